"""TAP: targeted adversarial poisons (Fowl, Goldblum, Chiang, Geiping, Czaja, Goldstein, NeurIPS 2021,
arXiv 2106.10807)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from miue.attacks.crafted import Aim, OnNet
from miue.core.method import AttackFacts


@dataclass(frozen=True, kw_only=True)
class TAP(OnNet):
    """Adversarial examples of a clean network, to the next class: L = cross-entropy of f(T(x + delta)) to y + 1 mod C.

    The label stays y. T crops and mirrors. Targeted only: the authors call the untargeted variant brittle.
    Source: the paper and its released settings. Unlike the released code: one start instead of the best of eight, a
    step in grey levels (0.4: a twentieth of a budget of 8), a cosine rate in training.
    """

    steps: int = 250
    step_size: float = 0.4
    start: Literal["zero", "uniform", "gaussian"] = "gaussian"

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="tap",
        title="TAP",
        year=2021,
        reference="Fowl et al., NeurIPS 2021, arXiv 2106.10807",
        summary="targeted adversarial examples of a clean surrogate: features of the next class",
        passes=290,
        needs="surrogate",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"surrogate": "small-cnn:width=16", "epochs": 15, "batch": 32, "steps": 40, "step_size": 1.0},  # ours
    }

    def aim(self, net: Any, known: Mapping[str, Tensor], classes: int) -> Aim:
        return lambda x, y, delta: F.cross_entropy(net(x), (y + 1) % classes)

    def reached(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], delta: Float[Tensor, "b c h w"]
    ) -> tuple[str, Bool[Tensor, "b"]]:
        logits = net(x)
        return "are taken for the next class", logits.argmax(1) == (y + 1) % logits.shape[1]
