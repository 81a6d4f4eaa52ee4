"""EntF: entangled features against adversarial training (Wen, Zhao, Liu, Backes, Wang, Zhang, ICLR 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from miue.attacks.crafted import Aim, OnNet
from miue.attacks.surrogate import centres
from miue.core.method import AttackFacts
from miue.core.run import Run
from miue.training.batches import Batches


@dataclass(frozen=True, kw_only=True)
class EntF(OnNet):
    """Features of a robust network leave their class's centre ("push") or go to another's ("pull").

    push: L = -MSE(g(T(x + delta)), c_y). pull: L = MSE(g(T(x + delta)), c_(y + 1 mod C)). c_k: mean feature of clean
    pictures of class k. g is trained for 100 epochs against PGD of 4 grey levels. Aimed at victims that train
    adversarially. Source: the paper and its released settings. Ours: delta begins at zero (there: Gaussian, here
    `start=gaussian`), which other class is pulled to (the next one), the step of the adversary (a fifth of its radius),
    a cosine rate.
    """

    epochs: int = 100
    adversary: float = 4.0
    steps: int = 300
    step_size: float = 0.4
    how: Literal["push", "pull"] = "push"

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="entf",
        title="EntF",
        year=2023,
        reference="Wen et al., ICLR 2023",
        summary="features of different classes are entangled in a robust surrogate",
        passes=1400,
        needs="surrogate",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pull": {"how": "pull"},
        "quick": {"surrogate": "small-cnn:width=16", "epochs": 8, "batch": 32, "steps": 20, "step_size": 1.0},  # ours
    }

    def known(self, net: Any, batches: Batches, run: Run) -> dict[str, Tensor]:
        return {"centre": centres(net, batches, run)}

    def aim(self, net: Any, known: Mapping[str, Tensor], classes: int) -> Aim:
        centre = known["centre"]
        if self.how == "push":
            return lambda x, y, delta: -F.mse_loss(net.embed(x), centre[y])
        return lambda x, y, delta: F.mse_loss(net.embed(x), centre[(y + 1) % classes])

    def reached(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], delta: Float[Tensor, "b c h w"]
    ) -> tuple[str, Bool[Tensor, "b"]]:
        logits = net(x)
        if self.how == "push":
            return "are not taken for their class", logits.argmax(1) != y
        return "are taken for the next class", logits.argmax(1) == (y + 1) % logits.shape[1]
