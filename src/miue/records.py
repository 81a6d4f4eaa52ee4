"""What is written as JSON about victims, proofs and grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of everything that is written as JSON: strict about fields, never edited in place."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Role = Literal["clean", "noise", "protected"]
Which = Literal["random", "stratified", "classes"]
Verdict = Literal["protected", "not protected", "inconclusive"]


class VictimRun(Record):
    """One victim: trained on `role` data with one seed, tested on clean pictures. Accuracies are shares in [0,1]."""

    role: Role
    victim: str
    """The network, and the defense where there is one: what the runs of one victim have in common."""
    defense: str = ""
    """Spelling of what the victim does to learn anyway ("gray+jpeg:quality=10"); empty for plain training."""
    seed: int
    data: str
    """Digest of the training set as it was read."""
    last: float
    best: float
    best_epoch: int
    train: float
    """Accuracy on its own training set, purified where it was, without augmentation, after the last epoch."""
    seconds: float


class Outcome(Record):
    """What a protection is worth on one data set: victims, their controls and a verdict by a threshold set before."""

    version: Literal[1] = 1
    name: str
    method: str
    budget: str
    channel: str | None = None
    """What was done to all training pictures before training ("jpeg:75"), if anything."""
    classes: int
    chance: float
    images: int
    data: dict[str, str]
    recipe: dict[str, Any]
    threshold: float
    """Largest share of the clean victim's gain over chance that a protected victim may keep."""
    runs: Sequence[VictimRun]
    verdict: Verdict
    reason: str
    notes: Sequence[str] = ()
    machine: dict[str, str]

    def accuracies(
        self, role: Role, victim: str | None = None, which: Literal["last", "best", "train"] = "last"
    ) -> list[float]:
        """Accuracies of one role, in the order of seeds."""
        return [getattr(r, which) for r in self.runs if r.role == role and victim in (None, r.victim)]


class Sets(Record):
    """The pictures of a grid, as far as its plan and its tables need to know them."""

    version: Literal[1] = 1
    source: str
    """What the grid asked for."""
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
    error: str = ""
    machine: dict[str, str]
    miue: str
