"""Sliced: the mean over random projections (Goldfeld & Greenewald 2021; of k dimensions: Goldfeld et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import Run
from miue.mi._critics import mine_nats
from miue.mi._features import paired, standardised
from miue.mi._slices import ELEMENTS, bin_count, histogram_nats, kde_nats
from miue.mi.estimate import Estimate
from miue.mi.gaussian import gaussian
from miue.mi.ksg import ksg_ceiling, ksg_nats


@dataclass(frozen=True, kw_only=True)
class Sliced:
    """SI = mean over (A, B) of I(A x; B y), z-scored features, A and B random orthonormal `dims` x d matrices.

    A lower bound of I(x; y) by data processing, and a loose one: for independent directions it shrinks as 1/d, so
    values of different dimensions cannot be compared. directions: "independent" is the literature's definition;
    "shared" takes A = B, for x and y of one space: larger values, but 0 no longer means independence. per: estimator of
    each slice, with k neighbours ("ksg") or `bins` (0: the cube root of n; "histogram"). "mine" trains a small critic a
    slice, all at once: take few slices. bins_of: bins of equal counts or of equal widths. correct=False leaves the
    histogram its bias. Preset "raw" is a plain histogram, equal widths and no correction, for comparison with others'
    numbers: with many bins most of its value is bias. parts["slice error"] is the standard error from the choice of
    directions.
    """

    slices: int = 200
    dims: int = 1
    directions: Literal["independent", "shared"] = "independent"
    per: Literal["histogram", "kde", "ksg", "gaussian", "mine"] = "histogram"
    k: int = 5
    bins: int = 0
    bins_of: Literal["counts", "widths"] = "counts"
    correct: bool = True

    any_width: ClassVar[bool] = True
    facts: ClassVar[Facts] = Facts(
        name="sliced", year=2021, reference="Goldfeld and Greenewald 2021; of k dimensions: Goldfeld et al. 2022"
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"raw": {"bins_of": "widths", "correct": False}}

    def __post_init__(self) -> None:
        if self.slices < 2 or self.dims < 1 or self.k < 1 or self.bins < 0 or self.bins == 1:
            raise UserError(
                f"slices={self.slices}, dims={self.dims}, k={self.k}, bins={self.bins}: at least 2, 1, 1 and 2 (or 0)"
            )
        if self.dims > 1 and self.per in ("histogram", "kde"):
            raise UserError(
                f"per={self.per} takes slices of one dimension; dims={self.dims} needs ksg, gaussian or mine"
            )

    def __call__(
        self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], run: Run, labels: Int[Tensor, "n"] | None = None
    ) -> Estimate:
        x, y = paired(x, y, run, 40 if self.per == "mine" else max(2 * self.dims + 3, self.k + 2, 8))
        dx, dy = x.shape[1], y.shape[1]
        if self.dims > min(dx, dy):
            raise UserError(f"dims={self.dims} directions of {min(dx, dy)} features; take fewer")
        if self.directions == "shared" and dx != dy:
            raise UserError(f"shared directions need one space; x has {dx} features and y has {dy}")
        x, y = standardised(x), standardised(y)
        generator = run.rng("mi", "slices")
        pairs = [self._directions(dx, dy, generator) for _ in range(self.slices)]
        values = []
        many = max(ELEMENTS // (len(x) * self.dims), 1)
        for first in range(0, self.slices, many):
            of_x, of_y = (run.exact(torch.cat(maps, 1)) for maps in zip(*pairs[first : first + many], strict=True))
            of_x, of_y = ((side @ of).unflatten(1, (-1, self.dims)) for side, of in ((x, of_x), (y, of_y)))
            values += self._values(of_x, of_y, run)
        sample = torch.tensor(values, dtype=torch.float64)
        parts = {"slice error": float(sample.std()) / math.sqrt(self.slices)}
        ceiling = self._ceiling(len(x))
        return Estimate(
            float(sample.mean()), "lower bound", ceiling=ceiling, parts=parts, notes=self._notes(len(x), dx, dy)
        )

    def settled(self, labels: Int[Tensor, "n"] | None, n: int) -> Sliced:
        """The same, with the bins of n rows also for fewer."""
        return replace(self, bins=self._bins(n)) if self.per == "histogram" else self

    def _directions(
        self, dx: int, dy: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "dx k"], Float[Tensor, "dy k"]]:
        a = _orthonormal(dx, self.dims, generator)
        return a, a if self.directions == "shared" else _orthonormal(dy, self.dims, generator)

    def _values(self, x: Float[Tensor, "n s k"], y: Float[Tensor, "n s k"], run: Run) -> list[float]:
        """Mutual information of every slice, nats."""
        if self.per == "histogram":
            return histogram_nats(x[..., 0], y[..., 0], self._bins(len(x)), self.correct, self.bins_of)
        if self.per == "mine":
            return mine_nats(x, y, run)
        return [self._value(a, b) for a, b in zip(x.unbind(1), y.unbind(1), strict=True)]

    def _value(self, x: Float[Tensor, "n k"], y: Float[Tensor, "n k"]) -> float:
        if self.per == "ksg":
            return ksg_nats(x, y, self.k)
        return gaussian(x, y) if self.per == "gaussian" else kde_nats(x[:, 0], y[:, 0])

    def _bins(self, n: int) -> int:
        return self.bins or bin_count(n)

    def _ceiling(self, n: int) -> float:
        if self.per == "ksg":
            return ksg_ceiling(n, self.k)
        return (
            math.inf
            if self.per in ("gaussian", "mine")
            else math.log(self._bins(n) if self.per == "histogram" else n - 1)
        )

    def _notes(self, n: int, dx: int, dy: int) -> tuple[str, ...]:
        notes = ()
        if min(dx, dy) > 50 and self.directions == "independent":
            most = isotropic_ceiling(min(dx, dy)) if self.dims == 1 else None
            bound = "" if most is None else f"; isotropic features reach {most:.5f} at most"
            notes = (f"values shrink as 1/d{bound}",)
        if self.per == "histogram" and not self.correct:
            notes += (f"of this the bins alone make up to {(self._bins(n) - 1) ** 2 / (2 * n):.3f}",)
        return notes


def _orthonormal(d: int, k: int, generator: torch.Generator) -> Float[Tensor, "d k"]:
    return torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64))[0]


def isotropic_ceiling(d: int) -> float:
    """psi(d - 1) - psi((d - 1) / 2) - log 2: sliced MI of an isotropic Gaussian in d >= 2 dimensions with itself."""
    d1, d2 = torch.tensor([d - 1, (d - 1) / 2], dtype=torch.float64).digamma().tolist()
    return d1 - d2 - math.log(2)
