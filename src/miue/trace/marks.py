"""Marks: what a secret adds to the pictures before an attack runs.

mark[c, g] = rho * stretch(signs[c, g]), rounded to whole grey levels; |mark| <= rho. The sum of mark and attack, each
within its part of the budget, is one perturbation within the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Perturbation, stretch
from miue.trace.secret import Parameters, Secret

CELLS = 4  # side of a field
SHARE, ALONE = 5 / 8, 4  # of the budget beside an attack; grey levels of a mark by itself
LATER = "later"


def fields(signs: Int8[Tensor, "k c q q"], height: int, width: int) -> Float[Tensor, "k c h w"]:
    """Signs, stretched to a picture, largest value 1."""
    wide = stretch(signs.float(), height, width)
    return wide / wide.abs().amax((1, 2, 3), keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Tracing:
    """Settings of a trace.

    strength: grey levels of the budget that the mark takes; None: five eighths of it beside an attack, 4 alone. keys:
    fields a class, 1 or 2. beacon: see `Opened`; "later:NAME" names the public number, draws the secret, states the
    commitment and stops. alone: the mark without an attack. unmeasured: allow attacks of which no record shows that a
    trace survives beside their noise.
    """

    strength: int | None = None
    keys: int = 1
    beacon: str = ""
    alone: bool = False
    unmeasured: bool = False

    def __post_init__(self) -> None:
        if self.keys not in (1, 2):
            raise UserError(f"{self.keys} keys a class: allowed are 1, or 2 for sets of which others may mix a part")
        if self.strength is not None and self.strength < 1:
            raise UserError(f"a mark of {self.strength} grey levels: at least 1; 5 of 8 is usual")
        if self.beacon.split(":")[0] == LATER and not self.named:
            raise UserError(
                f"beacon {self.beacon!r}: name the public number that will be used, so that it cannot be chosen later, "
                'as in "later:drand quicknet, round 20000000"'
            )

    @property
    def named(self) -> str:
        """The name of a public number that is not known yet; empty if its value, or no beacon, is given."""
        start, _, name = self.beacon.partition(":")
        return name.strip() if start == LATER else ""

    def levels(self, budget: Budget) -> int:
        """Grey levels of a budget that the mark takes."""
        if self.strength is not None:
            return self.strength
        return min(ALONE, int(budget.eps)) if self.alone else int(SHARE * budget.eps)

    def check(self, budget: Budget, channels: int) -> None:
        """Raise UserError if a budget or the pictures cannot carry the mark."""
        if budget.norm != "linf" or budget.eps < 2:
            raise UserError(f"a trace needs a budget of at least 2 grey levels, as in --budget 8; this is {budget}")
        if channels == 1:
            raise UserError("a trace needs colour, and these pictures are grey: a grey key was not learned by victims")
        strength = self.levels(budget)
        if self.alone and strength > budget.eps:
            raise UserError(f"a mark of {strength} grey levels exceeds the budget of {budget.eps:g}")
        if not self.alone and strength >= budget.eps:
            raise UserError(
                f"a mark of {strength} grey levels leaves nothing of a budget of {budget.eps:g} for the attack; "
                "give less with --trace-strength, or --trace-only for the mark alone"
            )

    def parameters(self, classes: Sequence[str], canvas: int, budget: Budget) -> Parameters:
        """The public parameters of this trace on three colours, in a budget of the whole set."""
        own = {"keys": self.keys, "strength": self.levels(budget), "beacon": self.named}
        return Parameters(classes=tuple(classes), cells=CELLS, canvas=canvas, **own)


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No attack: delta is 0, one row a class."""

    cells: int = CELLS

    per: ClassVar[str] = "class"

    def __call__(self, data: ImageSet, budget: Budget, run: Run) -> Perturbation:
        """Zeros on a coarse grid."""
        zeros = torch.zeros(len(data.classes), data.shape[0], self.cells, self.cells)
        return Perturbation.rounded(zeros, budget, repr(self), data.labels)


def mark_of(secret: Secret, height: int, width: int) -> Int[Tensor, "k c h w"]:
    """The marks of all keys, class by class, in whole grey levels."""
    strength = secret.parameters.strength
    wide = fields(secret.signs, height, width) * strength / 255
    return Perturbation.rounded(wide, Budget(strength), "trace").delta


def rows_of(secret: Secret, labels: Int[Tensor, "n"], digests: Sequence[str] = ()) -> Int[Tensor, "n"]:
    """The row in `mark_of` of every picture. digests: SHA-256 of the original files, needed for two keys a class."""
    keys = secret.parameters.keys
    if keys == 1:
        return labels
    if len(digests) != len(labels):
        raise ValueError(f"{len(digests)} digests for {len(labels)} pictures")
    return labels * keys + torch.tensor(secret.coins(digests))


def marked(secret: Secret, data: ImageSet, rows: Int[Tensor, "n"], run: Run) -> ImageSet:
    """A set with its marks added, clamped to [0, 255]."""
    delta = mark_of(secret, *data.shape[1:])
    return Perturbation(delta, Budget(secret.parameters.strength), "trace", rows).apply(data, run.empty)


def traced(
    attack: Callable[[ImageSet, Budget, Run], Perturbation] | Any,
    secret: Secret | None,
    data: ImageSet,
    rows: Int[Tensor, "n"],
    budget: Budget,
    run: Run,
) -> Perturbation:
    """The sum of the marks and of an attack that ran on the marked pictures with the rest of the budget.

    |sum| <= strength + (budget - strength). It lies on the attack's grid. secret: None for the attack alone. rows: see
    `rows_of`. Raises UserError if that grid is coarser than the field.
    """
    if secret is None:
        return attack(data, budget, run)
    if isinstance(attack, Nothing):
        return summed(secret, None, rows, budget, run)
    rest = Budget(budget.eps - secret.parameters.strength)
    return summed(secret, attack(marked(secret, data, rows, run), rest, run), rows, budget, run)


def summed(
    secret: Secret, noise: Perturbation | None, rows: Int[Tensor, "n"], budget: Budget, run: Run
) -> Perturbation:
    """The marks, and the noise that was made on the marked pictures, as one perturbation. None: the marks alone."""
    cells = secret.parameters.cells
    if noise is None:
        return Perturbation(mark_of(secret, cells, cells), budget, "trace", rows)
    height, width = noise.delta.shape[-2:]
    if min(height, width) < cells:
        raise UserError(f"the attack's noise has {height} x {width} cells, and a trace needs at least {cells}")
    mark, name = mark_of(secret, height, width), f"trace with {noise.made_by}"
    if noise.labels is not None and secret.parameters.keys == 1:
        return Perturbation(
            (noise.delta.to(torch.int16) + mark).to(budget.kind), budget, name, noise.labels, noise.data
        )
    total = run.empty((len(rows), *noise.delta.shape[1:]), budget.kind)
    for index in torch.arange(len(rows)).split(4096):
        total[index] = (noise.delta[noise.rows(index)].to(torch.int16) + mark[rows[index]]).to(budget.kind)
    return Perturbation(total, budget, name, data=noise.data)
