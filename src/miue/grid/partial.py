"""Partial protection: only a share of the pictures is perturbed, or clean twins of some have leaked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.grid.records import Which


@dataclass(frozen=True, kw_only=True)
class Partial:
    """A partial protection: `share` of the pictures protected, and clean twins of `leaked` of the protected ones.

    which: the protected pictures are drawn from the whole set ("random"), from every class alike ("stratified"), or
    are whole classes. With the same seed a larger share contains a smaller one, and likewise for leaks: curves do not
    jump because other pictures were drawn. The perturbation is that of the whole set.
    """

    share: float = 1.0
    which: Which = "stratified"
    leaked: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and 0 <= self.leaked <= 1):
            raise UserError(
                f"share={self.share:g}, leaked={self.leaked:g}: a protected share is above 0 and at most 1, "
                "a leaked one lies in 0 to 1"
            )

    @property
    def whole(self) -> bool:
        """True if every picture is protected and none has leaked."""
        return self.share == 1 and self.leaked == 0

    def protected(self, data: ImageSet, run: Run) -> Bool[Tensor, "n"]:
        """Mask of the protected rows; their number is the nearest to the share. Raises UserError if that is 0."""
        chosen = _rank(data.labels, self.which, run.rng("partial", "share", self.which)) < self.share
        if not chosen.any():
            raise UserError(f"share={self.share:g} of {len(data)} pictures ({self.which}) protects none")
        return chosen

    def twins(self, data: ImageSet, run: Run) -> Bool[Tensor, "n"]:
        """Mask of the protected rows that also leak as clean pictures: the leaked share of every class.

        Raises UserError if `leaked` is above 0 but no row leaks.
        """
        rows = self.protected(data, run).nonzero().flatten()
        rank = _rank(data.labels[rows], "stratified", run.rng("partial", "leaked"))
        chosen = torch.zeros(len(data), dtype=torch.bool)
        chosen[rows[rank < self.leaked]] = True
        if self.leaked and not chosen.any():
            raise UserError(f"leaked={self.leaked:g} of {len(rows)} protected pictures are none; take a larger share")
        return chosen

    def joined(self, clean: ImageSet, protected: ImageSet, run: Run) -> ImageSet:
        """Training set of a trainer: every row, protected or not, then the leaked clean twins."""
        chosen, twins = self.protected(clean, run), self.twins(clean, run)
        images = torch.where(chosen[:, None, None, None], protected.images, clean.images)
        return ImageSet(
            torch.cat([images, clean.images[twins]]),
            torch.cat([clean.labels, clean.labels[twins]]),
            clean.classes,
            f"{protected.name}{self}",
        )

    def rest(self, clean: ImageSet, run: Run) -> ImageSet:
        """Training set without the protected pictures: the unprotected rows and the leaked clean twins."""
        rows = ~self.protected(clean, run) | self.twins(clean, run)
        if not rows.any():
            raise UserError(
                f"share={self.share:g} of {len(clean)} pictures leaves none unprotected; take a smaller one"
            )
        return clean.select(rows, f"{clean.name} without{self}")

    def __str__(self) -> str:
        """Text to put after a name: ", 40% protected (random), 10% leaked"; empty for the whole set."""
        parts = [f"{100 * self.share:g}% protected ({self.which})"] if self.share < 1 else []
        parts += [f"{100 * self.leaked:g}% leaked"] if self.leaked else []
        return "".join(f", {part}" for part in parts)


def _rank(labels: Int[Tensor, "n"], which: Which, generator: torch.Generator) -> Float[Tensor, "n"]:
    """Rank in (0,1) of every row: (i + 1/2) / n in random order, over n rows, rows of a class, or classes.

    The number of rows with a rank below a share is the nearest to that share.
    """

    def places(n: int) -> Float[Tensor, "n"]:
        return (torch.randperm(n, generator=generator) + 0.5) / n

    if which == "random":
        return places(len(labels))
    classes, index = labels.unique(return_inverse=True)
    if which == "classes":
        return places(len(classes))[index]
    rank = torch.zeros(len(labels))
    for label in range(len(classes)):
        rows = (index == label).nonzero().flatten()
        rank[rows] = places(len(rows))
    return rank
