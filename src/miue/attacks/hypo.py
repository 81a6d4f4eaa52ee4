"""HYPO: hypocritical perturbations (Tao, Feng, Wei, Yi, Huang, Chen, NeurIPS 2022, arXiv 2201.13329)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from miue.attacks.crafted import Aim, OnNet
from miue.core.method import AttackFacts


@dataclass(frozen=True, kw_only=True)
class HYPO(OnNet):
    """Helpful noise from a weakly robust network: L = cross-entropy of f(T(x + delta)) to the true class y, in nats.

    f is trained for 10 epochs against PGD of 2 grey levels. A weak baseline against plain victims, published for
    adversarially trained ones. Source: the paper and its released settings. Ours: the step of
    the adversary (a fifth of its radius) and a cosine rate. Preset "plain" takes a plainly trained network, as the
    delusive perturbations before it (Tao et al., NeurIPS 2021, arXiv 2102.04716), but in the L-infinity budget.
    """

    epochs: int = 10
    adversary: float = 2.0

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="hypo",
        title="HYPO",
        year=2022,
        reference="Tao et al., NeurIPS 2022, arXiv 2201.13329",
        summary="helpful noise from a weakly robust surrogate makes pictures look learnt",
        passes=210,
        needs="surrogate",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "plain": {"adversary": 0.0, "epochs": 40},
        "quick": {"surrogate": "small-cnn:width=16", "epochs": 6, "batch": 32, "steps": 40, "step_size": 1.0},  # ours
    }

    def aim(self, net: Any, known: Mapping[str, Tensor], classes: int) -> Aim:
        return lambda x, y, delta: F.cross_entropy(net(x), y)

    def reached(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], delta: Float[Tensor, "b c h w"]
    ) -> tuple[str, Bool[Tensor, "b"]]:
        return "are taken for their class", net(x).argmax(1) == y
