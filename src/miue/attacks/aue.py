"""AUE: augmented unlearnable examples (Wang, Zhu, Gao, NeurIPS 2024, arXiv 2402.04010)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.attacks.min_min import Classifying, View
from miue.core.errors import UserError
from miue.core.method import AttackFacts
from miue.nets.base import Net
from miue.training.contrastive import contrastive


@dataclass(frozen=True, kw_only=True)
class AUE(Classifying):
    """Error-minimising noise through a contrastive augmentation: L = cross-entropy of f(T_s(x + delta)) to y, in nats.

    T_s is SimCLR's augmentation at `strength` s in (0, 1], for theta and for delta; the paper takes 0.6 for ten classes
    and 1.0 (preset "hundred") for a hundred. Aimed at victims that learn by contrast, too. Unlike the released code,
    T_s is our own tensor algebra (`miue.training.contrastive` says where it differs).
    """

    epochs: int = 60
    steps: int = 5
    step_size: float = 0.8
    noise_batch: int = 128
    strength: float = 0.6

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="aue",
        title="AUE",
        year=2024,
        reference="Wang et al., NeurIPS 2024, arXiv 2402.04010",
        summary="EM through a contrastive augmentation, against victims that learn by contrast, too",
        passes=360,
        needs="surrogate",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hundred": {"strength": 1.0},
        "quick": {  # ours
            "surrogate": "small-cnn:width=16",
            "epochs": 12,
            "epochs_at": 5000,
            "steps": 3,
            "step_size": 3.0,
            "batch": 32,
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.strength <= 1:
            raise UserError(f"strength={self.strength:g} is not above 0 and at most 1")

    def view(self, generator: torch.Generator) -> View:
        return lambda s: contrastive(s, generator, self.strength)

    def loss(self, net: Net, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        return F.cross_entropy(net(x), y)
