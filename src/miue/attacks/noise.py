"""Uniform noise: the control that every comparison needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import AttackFacts, BaseAttack, Kept, at_least
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.training import perturb


@dataclass(frozen=True, kw_only=True)
class Noise(BaseAttack):
    """Uniform in the L-infinity ball, one draw a picture or one a class. It should protect nothing (per image).

    In "l2" a uniform direction of the full length, in "l0" random values at random pixels: the control of attacks with
    such budgets. cells: side of the noise grid, in "linf"; 0 is pixel-wise.
    """

    per: Literal["image", "class"] = "image"
    cells: int = 0

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="noise",
        title="uniform noise",
        year=2021,
        reference="the control of Huang et al., ICLR 2021, arXiv 2101.04898",
        summary="uniform in the ball, one draw a picture or a class: the control of every comparison",
        passes=0,
        needs="nothing",
        norms=("linf", "l2", "l0"),
    )

    def __post_init__(self) -> None:
        at_least(self, cells=0)

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Float[Tensor, "k c g g2"]:
        return self._drawn(data, budget, run.rng("noise"))

    def craft_more(self, new: ImageSet, kept: Kept, budget: Budget, run: Run) -> Float[Tensor, "n c g g2"]:
        """Delta of later pictures: draws of their own."""
        return self._drawn(new, budget, run.rng("noise", kept.count))

    def _drawn(self, data: ImageSet, budget: Budget, generator: torch.Generator) -> Float[Tensor, "k c g g2"]:
        if self.cells and budget.norm != "linf":
            raise UserError(f"cells={self.cells}: a budget in {budget.norm} does not survive stretching; cells=0")
        c, h, w = data.shape
        perturb.check_cells(self.cells, min(h, w))
        rows = len(data) if self.per == "image" else len(data.classes)
        grid = (self.cells, self.cells) if self.cells else (h, w)
        return perturb.random_start((rows, c, *grid), budget, generator)
