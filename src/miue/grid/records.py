"""The records of a grid."""

from __future__ import annotations

from typing import Any, Literal

from miue.attacks.success import Success
from miue.core.files import Record
from miue.core.types import Budget
from miue.data.quality import Size
from miue.evaluation.profile import Profile
from miue.evaluation.records import VictimRun

Which = Literal["random", "stratified", "classes"]


def row_name(attack: str, budget: str, partial: str) -> str:
    """The name of a row of a table: "mi-ue:quick, linf:4, 50% protected". A budget of 8 grey levels is not named."""
    norm, _, eps = budget.partition(":")
    bound = f"{norm}:{float(eps):.4g}" if eps else norm
    return f"{attack}{partial}" if bound in ("", str(Budget())) else f"{attack}, {bound}{partial}"


def cell_name(row: str, recipe: str, defense: str, seed: int) -> str:
    """The name of a cell: that of its row, and what else decides it."""
    return f"{row}, {recipe} + {defense}, seed {seed}"


class Sets(Record):
    """Facts about the pictures of a grid that its plan and its tables need."""

    version: Literal[1] = 1
    source: str
    """Text that identifies the requested pictures (`Grid.source`)."""
    name: str
    data: str
    test: str
    """Digests of the clean training set and of the test set, as they were read."""
    shape: tuple[int, int, int]
    images: int
    tested: int
    classes: int
    chance: float
    """Share of the largest class of the test set."""
    largest: float = 0.0
    """Share of the largest class of the training set; 0 in records of earlier versions."""


class Craft(Size):
    """Cost and size of a perturbation of a grid."""

    version: Literal[1] = 1
    seconds: float
    """Seconds since the last start; if the attack was killed and resumed, only the last part counts."""
    passes: float
    """Forward passes with gradients, per picture, counted with the seconds."""
    noise: Profile | None = None
    """The noise in figures; None if there is none, and in records of earlier versions."""
    success: Success | None = None
    """The reach of the attack on its own surrogate; None without one, and in records of earlier versions."""


class CellState(Record):
    """The state of a cell: measured, failed or missing."""

    cell: str
    key: str
    state: Literal["there", "failed", "missing"]


class CellRecord(Record):
    """One cell of a grid: one victim, or the error that it ended in."""

    version: Literal[1] = 1
    key: str
    """Digest of everything that decides the result; also the name of the file."""
    attack: str
    """A spelling, or "clean", "noise", or "without": only the pictures that a partial protection leaves clean."""
    method: str = ""
    """The attack with every field that differs from its default."""
    budget: str = ""
    defense: str
    recipe: str
    share: float
    which: Which
    leaked: float
    seed: int
    sets: Sets
    training: dict[str, Any]
    """The recipe with its defense, as plain values."""
    victim: VictimRun | None = None
    craft: Craft | None = None
    """Cost and size of its perturbation, if it has one."""
    error: str = ""
    machine: dict[str, str]
    miue: str
