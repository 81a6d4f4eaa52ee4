"""TUE: transferable unlearnable examples (Ren, Xu, Wan, Ma, Sun, Tang, ICLR 2023, arXiv 2210.10114)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.attacks.min_min import Alternating, View
from miue.core.errors import UserError
from miue.core.method import AttackFacts
from miue.training.contrastive import contrast_loss, contrastive


def _length(v: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
    """||v||_2 with a gradient of 0 at 0."""
    square = v.square().sum(-1)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def separability_loss(delta: Float[Tensor, "b d"], y: Int[Tensor, "b"]) -> Float[Tensor, ""]:
    """Mean over pairs of classes i != j of (s_i + s_j + a) / (||mu_i - mu_j||_2 + a), a = 1e-5.

    mu_i: mean perturbation of class i in the batch. s_i: mean distance to it. 0 where the batch has one class.
    """
    classes, index = y.unique(return_inverse=True)
    k = len(classes)
    member = F.one_hot(index, k).to(delta.dtype)
    share = member / member.sum(0)
    mu = share.T @ delta
    spread = share.T @ _length(delta - mu[index])
    apart = _length(mu[:, None] - mu[None, :])
    ratio = (spread[:, None] + spread[None, :] + 1e-5) / (apart + 1e-5)
    other = ~torch.eye(k, dtype=torch.bool, device=delta.device)
    return (ratio * other).sum() / max(k * (k - 1), 1)


@dataclass(frozen=True, kw_only=True)
class TUE(Alternating):
    """Perturbations whose classes are linearly apart: L = csd * separability(delta) + ssl * NT-Xent(g(T(x + delta))).

    With ssl = 0, the released recipe for SimCLR, no network is used (surrogate_steps is 0) and deltas start at random:
    at 0 all classes coincide and there is no direction. Preset "contrastive" adds the second part, with a surrogate
    that learns by contrast; its rate, temperature, steps and start are those of the released MoCo recipe, whose queue
    and momentum encoder it does without. Unlike the released code the spread s_i has a gradient, too, and features are
    contrasted without a projection head. An epoch is one round: the surrogate's pass, if any, then `steps` steps
    (there, a round after every 20 batches). T is SimCLR's augmentation at full strength.
    """

    epochs: int = 40
    steps: int = 20
    step_size: float = 0.8
    surrogate_steps: int | None = 0
    start: Literal["zero", "uniform", "anew"] = "uniform"
    csd: float = 0.1
    ssl: float = 0.0
    tau: float = 0.5

    together: ClassVar[bool] = True
    classifies: ClassVar[bool] = False
    facts: ClassVar[AttackFacts] = AttackFacts(
        name="tue",
        title="TUE",
        year=2023,
        reference="Ren et al., ICLR 2023, arXiv 2210.10114",
        summary="perturbations of different classes are made linearly separable",
        passes=0,
        needs="nothing",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "contrastive": {
            "epochs": 200,
            "steps": 5,
            "lr": 0.3,
            "surrogate_steps": None,
            "start": "zero",
            "csd": 1.0,
            "ssl": 1.0,
            "tau": 0.2,
        },
        "quick": {  # ours
            "surrogate": "small-cnn:width=16",
            "epochs": 6,
            "epochs_at": 5000,
            "steps": 4,
            "step_size": 3.0,
            "batch": 64,
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.csd >= 0 and self.ssl >= 0 and self.csd + self.ssl > 0 and self.tau > 0):
            raise UserError(
                f"csd={self.csd:g}, ssl={self.ssl:g}, tau={self.tau:g}: weights must not be negative nor both 0, "
                "tau must be positive"
            )
        if (self.ssl > 0) == (self.surrogate_steps == 0):
            raise UserError(
                f"ssl={self.ssl:g} with surrogate_steps={self.surrogate_steps}: without a contrastive part no "
                "surrogate is used (surrogate_steps=0), with one it has to learn (None: a pass over the set)"
            )
        if self.start == "zero" and not self.ssl:
            raise UserError("start=zero: where all deltas are 0 their classes cannot be told apart; choose uniform")

    def view(self, generator: torch.Generator) -> View:
        if not self.ssl:
            return lambda s: s
        return lambda s: torch.cat([contrastive(s, generator, 1.0) for _ in range(2)])

    def learn(
        self, net: Any, x: Float[Tensor, "v c h w"], y: Int[Tensor, "b"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        return contrast_loss(net.embed(x), self.tau)

    def move(
        self,
        net: Any,
        x: Float[Tensor, "v c h w"],
        y: Int[Tensor, "b"],
        delta: Float[Tensor, "b c h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        apart = self.csd * separability_loss(delta.flatten(1), y)
        return apart + self.ssl * contrast_loss(net.embed(x), self.tau) if self.ssl else apart
