"""Class-conditional: what passes through the label, and what passes within classes at a stated resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import Run
from miue.mi._decode import components, decode
from miue.mi._features import DEAD, axes, needed, one_scale, paired, residual
from miue.mi._tables import entropy
from miue.mi.estimate import Estimate
from miue.mi.gaussian import gaussian


@dataclass(frozen=True, kw_only=True)
class ClassConditional:
    """I(x; y + noise) = I(x; L) + I(y; L) - I(x, y; L) + I(x; y | L), L the label: an identity, term by term.

    The label terms are H(L) minus a held-out cross-entropy; the last one is that of Gaussians with one covariance in
    all classes, corrected for the sample size. Exact where classes are such Gaussians. Needs labels.
    noise: deviation of the Gaussian noise that y is observed with, as a share of the RMS deviation of its features.
    Without it the value of a nearly deterministic pair is a matter of rounding. rank: principal components of each side
    for the last term; None takes one for every 16 rows.
    """

    noise: float = 0.1
    rank: int | None = None

    facts: ClassVar[Facts] = Facts(
        name="class-conditional", reference="an identity: docs/mutual_information.md, section 2"
    )

    def __post_init__(self) -> None:
        if not self.noise >= 0 or (self.rank is not None and self.rank < 1):
            raise UserError(f"noise={self.noise}, rank={self.rank}: noise at least 0, rank at least 1 or None")

    def __call__(
        self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], run: Run, labels: Int[Tensor, "n"] | None = None
    ) -> Estimate:
        x, y = paired(x, y, run, 20)
        labels = needed(labels, len(x), run, "class-conditional")
        x, y = one_scale(x), one_scale(y)
        xi = torch.randn(y.shape, generator=run.rng("mi", "noise"), dtype=torch.float64)
        y = y + self.noise * run.exact(xi)
        label_entropy = entropy(labels.bincount().double())
        of_x, of_y = components(x), components(y)
        from_x, from_y, from_both = (
            label_entropy - decode(sides, labels, run.rng("mi", "label"))[1] for sides in ([of_x], [of_y], [of_x, of_y])
        )
        label, within = from_x + from_y - from_both, self._within(x, y, labels)
        parts = {"label": label, "within": within, "label from x": from_x, "label from y": from_y}
        notes = (f"y at a resolution of {self.noise:g} of its RMS deviation",) if self.noise else ()
        if not self.noise and within > 10:
            notes = ("a nearly deterministic pair: the value is its resolution; set noise=0.1",)
        return Estimate(label + within, "estimate", parts=parts, notes=notes)

    def settled(self, labels: Int[Tensor, "n"] | None, n: int) -> ClassConditional:
        """The same, with the rank of n rows also for fewer."""
        return self if labels is None else replace(self, rank=self._rank(n, len(labels.unique())))

    def _rank(self, n: int, c: int) -> int:
        return self.rank or max((n - c) // 16, 1)

    def _within(self, x: Tensor, y: Tensor, labels: Tensor) -> float:
        """I(x; y | L) of Gaussians, on the leading components after subtracting class means."""
        n, c = len(labels), int(labels.max()) + 1
        x, y = (_alive(residual(side, labels, c), self._rank(n, c)) for side in (x, y))
        return gaussian(x, y, dof=n - c)


def _alive(x: Float[Tensor, "n d"], rank: int) -> Float[Tensor, "n r"]:
    """Scores on the first principal components, without dead directions."""
    scores = x @ axes(x, rank)[0]
    deviation = scores.std(0)
    return scores[:, deviation > DEAD * deviation[0]]
