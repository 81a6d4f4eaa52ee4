"""The records of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Literal

from pydantic import Field

from miue.core.files import Record
from miue.data.quality import Size

Role = Literal["clean", "noise", "protected"]
ALONE = "trace-only"
"""Method of a set that carries a mark and no attack."""
Verdict = Literal["protected", "not protected", "inconclusive"]
PLAIN = "plain training"  # name of a trainer without a defense


def spread(values: Sequence[float], form: str = ".1%") -> str:
    """Text for values over seeds, "20.5% ± 1.1%": mean and standard deviation, or the one value. form: of a number."""
    return f"{fmean(values):{form}}" + (f" ± {stdev(values):{form}}" if len(values) > 1 else "")


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
    stopped: float | None = None
    """Accuracy at the epoch that is best on about 100 clean pictures a class (half of them where there are fewer than
    200), measured on the other test pictures. None where a class has one picture, or in records of earlier versions."""
    stopped_epoch: int = 0
    chosen: str = ""
    """The choice of an adaptive trainer among all that it tried ("gray+jpeg:quality=50"); empty for others."""
    tried: Mapping[str, float] = {}
    """Accuracies on the clean pictures that an adaptive trainer chose by; `last` and `best` are on others."""
    epochs: Mapping[int, float] = {}
    """Accuracies on clean test pictures after the epochs that were tested; empty in records of earlier versions."""
    train: float
    """Accuracy on its own (purified) training set, without augmentation, after the last epoch and before anything that
    follows the training."""
    seconds: float
    device: str = ""
    """Device and precision of the training; empty in records of earlier versions."""

    @property
    def early(self) -> float:
        """Accuracy of somebody who stops at the epoch that is best on a few clean pictures: `stopped`, else `best`."""
        return self.best if self.stopped is None else self.stopped


class Judgement(Record):
    """The judgement on one trainer, over all seeds."""

    victim: str
    trainer: str
    """Spelling of the defense, or "plain training"."""
    early: bool
    """True if the training stops at the epoch that is best on a few clean pictures; else it goes on to the last."""
    verdict: Verdict
    kept: float | None
    """Mean share of the clean victim's gain over chance that is left, at least 0; None where it learned nothing."""
    reason: str


class TraceRun(Record):
    """The test of ownership on one victim, by the scores of 1,000 questions. Clean and noisy victims are controls."""

    role: Role
    victim: str
    seed: int
    p: float
    z: float
    labels: float
    """p by the labels alone, as if the victim showed no scores. It decides nothing."""
    evidence: bool
    """True if p is at most 1e-3."""


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
    tested: int = 0
    """Number of clean test pictures; 0 in records of earlier versions."""
    data: dict[str, str]
    recipe: dict[str, Any]
    threshold: float
    """Largest share of the clean victim's gain over chance that a protected victim may keep."""
    size: Size | None = None
    """Distance of the protected pictures from the clean ones, as victims see them."""
    runs: Sequence[VictimRun]
    verdict: Verdict
    """Over all judgements: "protected" is protected against everything in `against`."""
    reason: str
    judgements: Sequence[Judgement] = Field(default_factory=list)
    notes: Sequence[str] = ()
    traces: Sequence[TraceRun] = Field(default_factory=list)
    """Empty if no trace was looked for."""
    inputs: Mapping[str, str | int] = {}
    """The pictures as the call named them, `clean`, `test`, `split`, `test_split` and `canvas`, as far as it did; empty
    in records of earlier versions."""
    machine: dict[str, str]

    def against(self, verdict: Verdict) -> list[str]:
        """Trainers with this verdict: "plain training", "gray", "gray stopped early".

        The last is named only where stopping early has another verdict than the last epoch. Where there are several
        networks, trainers have the names of their victims.
        """
        several = len({j.victim for j in self.judgements if j.trainer == PLAIN}) > 1
        verdicts = {(j.victim, j.early): j.verdict for j in self.judgements}
        names = []
        for j in self.judgements:
            same = verdicts[j.victim, False] == j.verdict
            if j.verdict == verdict and not (j.early and same):
                names.append((j.victim if several else j.trainer) + (" stopped early" if j.early else ""))
        return names

    def kept(self, victim: str) -> float | None:
        """The larger kept share of a victim: to the last epoch, or stopped early."""
        return max((j.kept for j in self.judgements if j.victim == victim and j.kept is not None), default=None)

    @property
    def traced(self) -> bool | None:
        """True if the trace was found in every protected victim; None if it was not looked for."""
        return all(t.evidence for t in self.traces if t.role == "protected") if self.traces else None

    @property
    def passed(self) -> bool:
        """True if the set does what it is for: it protects, and its trace is found if that was looked for.

        A set with a mark alone is there to be found.
        """
        if self.method == ALONE and self.traced is not None:
            return self.traced
        return self.verdict == "protected" and self.traced is not False

    def accuracies(
        self, role: Role, victim: str | None = None, which: Literal["last", "best", "early", "train"] = "last"
    ) -> list[float]:
        """Accuracies of one role, in the order of seeds."""
        return [getattr(r, which) for r in self.runs if r.role == role and victim in (None, r.victim)]
