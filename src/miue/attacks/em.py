"""EM: error-minimising noise (Huang, Ma, Erfani, Bailey, Wang, ICLR 2021, arXiv 2101.04898)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.attacks.min_min import MinMin
from miue.attacks.presets import LASTING
from miue.core.method import AttackFacts
from miue.nets.base import Net


@dataclass(frozen=True, kw_only=True)
class EM(MinMin):
    """Delta descends the surrogate's own training loss: L = cross-entropy of f(x + delta) to y, in nats.

    A round is 10 batches of the surrogate and 20 steps on every delta; rounds end once the surrogate knows 99 % of the
    protected pictures ("class": 90 %). The surrogate sees no augmentation. Source: the paper and its released settings.
    Unlike the released code: batches are random instead of walking through the set, the rate follows a cosine and
    gradients are not clipped; one delta a class takes the sign of a batch's summed gradient instead of the mean of its
    signed steps, and comes from the whole set instead of a fifth of it. Negative noise is kept.
    """

    epochs: int = 100
    steps: int = 20
    step_size: float = 0.8
    weight_decay: float = 5e-4
    surrogate_steps: int | None = 10
    stop: float = 0.99
    augment: Literal["none", "flip", "flip-crop", "flip-first"] = "none"

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="em",
        title="EM",
        year=2021,
        reference="Huang et al., ICLR 2021, arXiv 2101.04898",
        summary="the training loss of a surrogate is driven to zero, so that nothing seems left to learn",
        passes=200,
        needs="surrogate",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "class": {"per": "class", "steps": 1, "noise_batch": 128, "stop": 0.9},
        "lasting": {**LASTING, "surrogate_steps": None, "stop": 0.0, "augment": "flip-crop"},  # ours
        "quick": {  # ours: as much work as MI-UE's preset of this name
            "surrogate": "small-resnet:width=4",
            "epochs": 12,
            "epochs_at": 5000,
            "steps": 3,
            "step_size": 3.0,
            "batch": 32,
            "surrogate_steps": None,
            "stop": 0.0,
            "augment": "flip-crop",
        },
    }

    def loss(self, net: Net, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        return F.cross_entropy(net(x), y)
