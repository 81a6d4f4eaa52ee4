"""Class-wise patterns without a model: one colour, or random blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import AttackFacts, BaseAttack
from miue.core.run import Run
from miue.core.types import Budget, ImageSet


def far_apart(
    classes: int, features: int, eps: int, generator: torch.Generator
) -> Float[Tensor, "{classes} {features}"]:
    """Points of whole grey levels in [-eps, eps]^features; each is the random candidate farthest from all before it.

    Candidates are corners first, then points inside. Raises UserError if there are fewer points than classes.
    """
    shape = (max(256, 8 * classes), features)
    corners = (torch.randint(2, shape, generator=generator) * 2.0 - 1) * eps
    inside = torch.randint(-eps, eps + 1, shape, generator=generator).float()
    chosen = corners[:1]
    for pool in (corners, inside):
        if len(chosen) == classes:
            break
        distance = torch.full((len(pool),), torch.inf)
        for point in chosen:
            distance = torch.minimum(distance, (pool - point).square().sum(1))
        while len(chosen) < classes and distance.max() > 0:
            point = pool[distance.argmax()]
            chosen = torch.cat([chosen, point[None]])
            distance = torch.minimum(distance, (pool - point).square().sum(1))
    if len(chosen) < classes:
        raise UserError(f"only {len(chosen)} colours within {eps} grey levels for {classes} classes: use more regions")
    return chosen


@dataclass(frozen=True, kw_only=True)
class Patterns(BaseAttack):
    """All pictures of a class get the same random blocks of flat colour, mostly at the edge of the budget.

    regions: how many blocks, a square number; 1 is one colour for the whole picture. Simple baselines for the others.
    """

    regions: int = 16

    per: ClassVar[str] = "class"
    facts: ClassVar[AttackFacts] = AttackFacts(
        name="patterns",
        title="patterns",
        year=2022,
        reference="after the synthetic poisons of Sandoval-Segura et al., 2022, arXiv 2204.08615",
        summary="one flat colour or random blocks a class: the simplest baselines",
        passes=0,
        needs="nothing",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "colour": {"regions": 1},
        "region-4": {"regions": 4},
        "region-16": {"regions": 16},
    }

    def __post_init__(self) -> None:
        if self.regions < 1 or isqrt(self.regions) ** 2 != self.regions:
            raise UserError(f"regions={self.regions} is no square number; 1, 4, 9 and 16 are")

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Float[Tensor, "k c h w"]:
        c, h, w = data.shape
        side, k = -(-max(h, w) // isqrt(self.regions)), len(data.classes)
        rows, columns = -(-h // side), -(-w // side)
        blocks = far_apart(k, c * rows * columns, int(budget.eps), run.rng("patterns")).reshape(k, c, rows, columns)
        delta = blocks.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :h, :w]
        return delta / 255
