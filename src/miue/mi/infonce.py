"""InfoNCE: a neural lower bound that tells the true partner among K (van den Oord et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from miue.core.method import Facts
from miue.mi._critic import Critic


@dataclass(frozen=True, kw_only=True)
class InfoNCE(Critic):
    """log K + mean_i[T_ii - log sum_j exp T_ij] over K held-out pairs: a lower bound in expectation, at most log K."""

    facts: ClassVar[Facts] = Facts(name="infonce", year=2018, reference="van den Oord et al. 2018")

    def bound(self, scores: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
        return (scores.diagonal() - scores.logsumexp(1)).mean() + math.log(len(scores))

    def objective(self, scores: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
        return self.bound(scores)

    def ceiling(self, pairs: int) -> float:
        return math.log(pairs)

    def notes(self, nats: float, ceiling: float) -> tuple[str, ...]:
        return (f"capped at log K = {ceiling:.2f}: more pairs may give more",) if nats > 0.8 * ceiling else ()
