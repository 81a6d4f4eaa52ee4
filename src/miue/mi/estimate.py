"""The interface of estimators, and their result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A mutual information in nats and its diagnostics. `mi.measure` fills in the fields that are None.

    kind: an estimate can be too large or too small; a lower bound is below the truth, up to sampling error. ceiling:
    largest possible value, whatever the truth is. parts: terms and diagnostics by name. notes: warnings for people.
    spread: standard error from half-samples. half: mean value over them; a difference from `nats` shows bias.
    null, null_within: mean value after shuffling y among all rows, and among rows of one class. p: of the full shuffle;
    None below 19 shuffles, which cannot give 0.05.
    """

    nats: float
    kind: Literal["estimate", "lower bound"]
    spread: float | None = None
    ceiling: float = math.inf
    parts: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    half: float | None = None
    null: float | None = None
    null_within: float | None = None
    p: float | None = None

    def __str__(self) -> str:
        """Return one line for people."""
        sign = ">= " if self.kind == "lower bound" else ""
        error = "" if self.spread is None else f" ± {self.spread:.3f}"
        details = {"shuffled": self.null, "shuffled within class": self.null_within, "p": self.p}
        details |= {"ceiling": self.ceiling if math.isfinite(self.ceiling) else None}
        listed = ", ".join(f"{name} {value:.3f}" for name, value in details.items() if value is not None)
        return (
            f"{sign}{self.nats:.3f}{error} nats"
            + (f" ({listed})" if listed else "")
            + "".join(f"; {note}" for note in self.notes)
        )


@runtime_checkable
class Estimator(Protocol):
    """Estimates the mutual information of paired samples: row i of x belongs to row i of y.

    labels: class of each row. Every estimator accepts them; one that needs them raises UserError if they are None.
    Optional: `any_width`, a class attribute, true where features of any width are taken as they are and z-scored; the
    others get the leading components of very wide ones. settled(labels, n): the estimator with everything fixed that
    depends on the number of rows, so that half of the rows estimate the same thing.
    """

    def __call__(
        self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], run: Any, labels: Int[Tensor, "n"] | None = None
    ) -> Estimate: ...


@dataclass(frozen=True)
class KnownPairs:
    """Paired samples whose mutual information is known: `nats`, up to a standard error of `error`."""

    name: str
    x: Float[Tensor, "n dx"]
    y: Float[Tensor, "n dy"]
    labels: Int[Tensor, "n"]
    nats: float
    error: float = 0.0
