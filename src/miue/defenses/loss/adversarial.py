"""Adversarial training (Madry et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.types import Budget
from miue.training import perturb


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """min over weights, max over |delta| <= eps: cross-entropy on x + delta, delta by projected signed steps.

    eps: grey levels. step_size: grey levels; 0 is a quarter of eps, which is the literature's 2 for its 8 (with smaller
    radii some keep 2). The attack starts at random and sees the network in evaluation mode; the weights then learn in
    training mode.
    """

    eps: int = 8
    steps: int = 10
    step_size: float = 0.0

    slot: ClassVar[Literal["loss"]] = "loss"
    facts: ClassVar[Facts] = Facts(name="at", year=2018, reference="Madry et al., ICLR 2018, arXiv 1706.06083")

    def __post_init__(self) -> None:
        Budget(self.eps)
        if self.steps < 1 or self.step_size < 0:
            raise UserError(
                f"at: steps={self.steps}, step_size={self.step_size:g}: at least one step, of a positive size"
            )

    def __call__(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator, done: float
    ) -> Float[Tensor, ""]:
        return F.cross_entropy(net(self.attacked(net, x, y, generator)), y)

    def attacked(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> Float[Tensor, "b c h w"]:
        """Adversarial pictures within eps of x and in [0,1], by maximising the network's loss."""
        radius, step = Budget(self.eps).unit, (self.step_size or self.eps / 4) / 255
        return perturb.adversarial(net, x, y, radius, step, self.steps, generator)
