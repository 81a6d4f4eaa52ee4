"""The records of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from miue.core.files import Record
from miue.data.quality import Size

Role = Literal["clean", "noise", "protected"]
Verdict = Literal["protected", "not protected", "inconclusive"]


class VictimRun(Record):
    """One victim: trained on `role` data with one seed, tested on clean pictures. Accuracies are shares in [0,1]."""

    role: Role
    victim: str
    """Name of the network and of its defense, if any; the same in all runs of one victim."""
    defense: str = ""
    """Spelling of the victim's defense against the protection ("gray+jpeg:quality=10"); empty for plain training."""
    seed: int
    data: str
    """Digest of the training set as it was read."""
    last: float
    best: float
    best_epoch: int
    chosen: str = ""
    """What an adaptive trainer chose of all that it tried ("gray+jpeg:quality=50"); empty for others."""
    tried: Mapping[str, float] = {}
    """Accuracies on the clean pictures that an adaptive trainer chose by; `last` and `best` are on others."""
    train: float
    """Accuracy on its own (purified) training set, without augmentation, after the last epoch."""
    seconds: float
    device: str = ""
    """Device and precision of the training; empty in records of earlier versions."""


class Outcome(Record):
    """Result of an evaluation on one data set: victims, their controls, and a verdict by a threshold set in advance."""

    version: Literal[1] = 1
    name: str
    method: str
    budget: str
    channel: str | None = None
    """Processing of all training pictures before training ("jpeg:quality=75"), if any."""
    classes: int
    chance: float
    images: int
    data: dict[str, str]
    recipe: dict[str, Any]
    threshold: float
    """Largest share of the clean victim's gain over chance that a protected victim may keep."""
    size: Size | None = None
    """Distance of the protected pictures from the clean ones, as victims see them."""
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
