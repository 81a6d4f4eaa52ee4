"""SEP: self-ensemble protection (Chen, Yuan, Cheng, Liu, Huang, ICLR 2023, arXiv 2211.12005)."""

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
from miue.core.types import Budget
from miue.training.batches import Batches
from miue.training.views import Augment


@dataclass(frozen=True, kw_only=True)
class SEP(OnNet):
    """Features go to another class's centre, for many checkpoints of one training at once.

    Per checkpoint: L = MSE(g(x + delta), c_(y + C // 2 mod C)), c_k the mean feature of the clean pictures of class k.
    One step of delta walks over all checkpoints with variance-reduced gradients (`crafted._direction`). The paper's
    budget is 2 grey levels. Source: the paper and its released settings, 15 checkpoints of 120 epochs, whose training
    crops and flips while the steps on delta see plain pictures. Ours: evenly spaced checkpoints (there, epochs that did
    not improve are left out), each visited once a step in random order, inner steps as large as the outer ones, a
    cosine rate.
    """

    epochs: int = 120
    checkpoints: int = 15
    steps: int = 30
    step_size: float = 1.0
    train_augment: Literal["same", "none", "flip", "flip-crop"] = "flip-crop"
    augment: Augment = "none"

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="sep",
        title="SEP",
        year=2023,
        reference="Chen et al., ICLR 2023, arXiv 2211.12005",
        summary="features go to another class for many checkpoints of one training at once",
        passes=1020,
        needs="surrogate",
        natural=Budget(2),
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"surrogate": "small-cnn:width=16", "epochs": 15, "batch": 32, "checkpoints": 3, "steps": 15},  # ours
    }

    def known(self, net: Any, batches: Batches, run: Run) -> dict[str, Tensor]:
        return {"centre": centres(net, batches, run)}

    def aim(self, net: Any, known: Mapping[str, Tensor], classes: int) -> Aim:
        centre = known["centre"]
        return lambda x, y, delta: F.mse_loss(net.embed(x), centre[(y + classes // 2) % classes])

    def reached(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], delta: Float[Tensor, "b c h w"]
    ) -> tuple[str, Bool[Tensor, "b"]]:
        logits = net(x)
        return "are taken for the class they go to", logits.argmax(1) == (y + logits.shape[1] // 2) % logits.shape[1]
