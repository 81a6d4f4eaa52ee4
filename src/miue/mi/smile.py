"""SMILE: the Donsker-Varadhan value with clipped scores in its second term (Song & Ermon, ICLR 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.mi._critic import Critic, log_mean_exp_others, variance_note


@dataclass(frozen=True, kw_only=True)
class SMILE(Critic):
    """mean_i T_ii - log mean_{i != j} exp clip(T_ij, -tau, tau) on held-out pairs.

    Less variance than `MINE`, paid with bias upwards once true scores exceed tau: then it is no bound any more. The
    critic is trained on the Jensen-Shannon objective, as in the paper; the clipped value itself would grow without end.
    """

    tau: float = 5.0

    facts: ClassVar[Facts] = Facts(name="smile", year=2020, reference="Song and Ermon, ICLR 2020")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tau > 0:
            raise UserError(f"tau={self.tau:g} is not positive")

    def bound(self, scores: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
        return scores.diagonal().mean() - log_mean_exp_others(scores.clamp(-self.tau, self.tau))

    def objective(self, scores: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
        b = len(scores)
        others = F.softplus(scores).sum() - F.softplus(scores.diagonal()).sum()
        return -F.softplus(-scores.diagonal()).mean() - others / (b * (b - 1))

    def ceiling(self, pairs: int) -> float:
        return math.inf

    def notes(self, nats: float, ceiling: float) -> tuple[str, ...]:
        return variance_note(nats)
