"""LSP: linearly separable perturbations (Yu et al., KDD 2022, arXiv 2111.00898)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import AttackFacts, BaseAttack, Kept
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.training import perturb


def clusters(
    labels: Int[Tensor, "n"], classes: int, features: int, separation: float, run: Run, kept: Kept | None = None
) -> Float[Tensor, "n {features}"]:
    """One Gaussian cluster per class: x = v + g A, with v a corner of its own of [-separation, separation]^features.

    g is standard normal, drawn for each row; the entries of A are uniform in [-1, 1], drawn for each class. kept: of an
    earlier set, whose clusters these points belong to. Raises UserError if there are fewer corners than classes.
    """
    generator = run.rng("lsp")
    corners = torch.randint(2, (8 * classes, features), generator=generator).unique(dim=0)
    if len(corners) < classes:
        raise UserError(f"{features} features have too few corners for {classes} classes; use larger pictures")
    corners = corners[torch.randperm(len(corners), generator=generator)]
    points = torch.randn(len(kept.labels if kept else labels), features, generator=generator)
    if kept:  # the draws above only lead to those of A
        points = torch.randn(len(labels), features, generator=run.rng("lsp", kept.count))
    for label in range(classes):
        mine = labels == label
        mixing = torch.rand(features, features, generator=generator) * 2 - 1
        points[mine] = points[mine] @ mixing + (2 * corners[label] - 1) * separation
    return points


@dataclass(frozen=True, kw_only=True)
class LSP(BaseAttack):
    """Every picture gets a point of its class's cluster, drawn as flat squares: separable by a plane, without a model.

    patch: side of a square in pixels, at most; pictures below 4 patches get smaller ones, 4 to a side. separation:
    half the distance of the clusters' centres along one feature (the spread of a feature is about 4 at 48 of them).
    Deviation: the clusters are drawn here and not by a library, so that they depend on the seed alone.
    """

    patch: int = 8
    separation: float = 10.0

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="lsp",
        title="LSP",
        year=2022,
        reference="Yu et al., KDD 2022, arXiv 2111.00898",
        summary="flat squares whose colours a plane separates by class",
        passes=0,
        needs="nothing",
        natural=Budget(6 / 255 * 3072**0.5, "l2"),
        norms=("l2",),
    )

    def __post_init__(self) -> None:
        if self.patch < 1 or not self.separation > 0:
            raise UserError(f"patch={self.patch}, separation={self.separation:g}: at least 1 and positive")

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Float[Tensor, "n c h w"]:
        return self._squares(data, budget, run, None)

    def craft_more(self, new: ImageSet, kept: Kept, budget: Budget, run: Run) -> Float[Tensor, "n c h w"]:
        """Delta of later pictures: points of their own in the clusters of the first ones."""
        return self._squares(new, budget, run, kept)

    def _squares(self, data: ImageSet, budget: Budget, run: Run, kept: Kept | None) -> Float[Tensor, "n c h w"]:
        c, h, w = data.shape
        side = min(self.patch, max(min(h, w) // 4, 1))
        rows, columns = -(-h // side), -(-w // side)
        points = clusters(data.labels, len(data.classes), c * rows * columns, self.separation, run, kept)
        squares = points.reshape(len(data), c, rows, columns)
        delta = squares.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :h, :w]
        return perturb.scaled(delta, budget)
