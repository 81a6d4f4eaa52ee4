"""MINE: the Donsker-Varadhan bound with a neural critic (Belghazi et al., ICML 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from miue.core.method import Facts
from miue.mi._critic import Critic, log_mean_exp_others, variance_note


@dataclass(frozen=True, kw_only=True)
class MINE(Critic):
    """mean_i T_ii - log mean_{i != j} exp T_ij on held-out pairs.

    A lower bound for infinitely many pairs; for few the logarithm of a sample mean errs upwards. Gradients come from
    all b (b - 1) pairs of a batch, in place of the original's moving average.
    """

    facts: ClassVar[Facts] = Facts(name="mine", year=2018, reference="Belghazi et al., ICML 2018")

    def bound(self, scores: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
        return scores.diagonal().mean() - log_mean_exp_others(scores)

    def objective(self, scores: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
        return self.bound(scores)

    def ceiling(self, pairs: int) -> float:
        return math.inf

    def notes(self, nats: float, ceiling: float) -> tuple[str, ...]:
        return variance_note(nats)
