"""The records of an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from miue.analysis.ranks import Spearman
from miue.core.files import Record
from miue.data.quality import Size
from miue.evaluation.records import Role, spread
from miue.mi.covariance import Covariance
from miue.mi.statements import Statement


class Measured(Record):
    """A mutual information in nats as `mi.measure` gives it.

    `itself`: estimate for clean features paired with themselves, the largest value to expect on these features (the
    truth is infinite).
    """

    estimator: str
    nats: float
    kind: Literal["estimate", "lower bound"]
    itself: float
    ceiling: float
    spread: float
    half: float
    null: float
    null_within: float
    p: float | None
    parts: Mapping[str, float]
    notes: Sequence[str]


FLAGS = {"saturated": "s", "not converged": "h"}
LEGEND = "s: saturated, close to the ceiling; h: half of the rows give another value."


def flags(measured: Sequence[Measured]) -> str:
    """Marks behind a value for what its estimator warned of with any seed; `LEGEND` says what they mean."""
    notes = {note.partition(":")[0] for m in measured for note in m.notes}
    marks = "".join(mark for note, mark in FLAGS.items() if note in notes)
    return f" ({marks})" if marks else ""


def flagged(measured: Sequence[Measured], form: str) -> str:
    """Mean and spread, marks for what the estimator warned of, and of `agreement` what both sides hold of the class."""
    of_class = [min(m.parts["label from x"], m.parts["label from y"]) for m in measured if m.estimator == "agreement"]
    class_held = f", class {spread(of_class, form)}" if of_class else ""
    return spread([m.nats for m in measured], form) + flags(measured) + class_held


class Stage(Record):
    """Clean and protected features at one depth of a victim, mean over positions. dead: features that are constant."""

    name: str
    width: int
    dead: int
    mi: Sequence[Measured]
    clean: Covariance
    protected: Covariance


class Crossed(Record):
    """A victim looked at on pictures that it was not trained on: its deepest features of them, and of clean ones."""

    shown: str
    """Name of the set that stands beside the clean pictures."""
    stage: str
    mi: Sequence[Measured]


class Examined(Record):
    """One victim trained on the pictures of `name`: how its features of them depend on its features of clean ones."""

    name: str
    role: Role
    method: str
    seed: int
    data: str
    """Digest of the training set as it was read."""
    accuracy: float
    """Accuracy on clean test pictures, after the last epoch."""
    fitted: float
    """Accuracy on its own training set."""
    stages: Sequence[Stage]
    """Shallow to deep."""
    statements: Sequence[Statement]
    points: Sequence[tuple[int, float, float, float, float]]
    """The deepest features of some pictures in a plane: class, clean x, clean y, protected x, protected y."""
    axes: tuple[float, float]
    """Share of variance on each axis of that plane."""
    seconds: float
    crossed: Sequence[Crossed] = ()
    """A victim of clean pictures looked at on each protected set, one of a protected set on noise; empty in records of
    earlier versions."""


class Calibration(Record):
    """Estimate for samples with known mutual information, with the same n and d as the features."""

    estimator: str
    sample: str
    width: int
    truth: float
    nats: float


class Correlation(Spearman):
    """Rank correlation of two quantities, one pair of values per attack (means over seeds)."""

    of: tuple[str, str]
    estimator: str
    stage: str


class Generation(Record):
    """Features of the protected pictures in an attack's surrogate, epoch by epoch, while the attack made them.

    cosine: mean over pairs of one class, 1 - trace of the covariance of features of length 1. between: over pairs of
    two classes. within: share of the features' variance that lies within classes. Epochs count from 1.
    """

    name: str
    cosine: Sequence[float]
    between: Sequence[float]
    within: Sequence[float]


class Analysis(Record):
    """Mutual information and covariance of each attack by depth, with controls and calibration.

    Runs of role "clean" and "noise" are the controls. The clean run compares clean pictures with noisy ones.
    """

    version: Literal[1] = 1
    victim: str
    recipe: dict[str, Any]
    images: int
    tested: int = 0
    """Number of clean test pictures; 0 in records of earlier versions."""
    rows: int
    """Number of pictures whose features are compared, the same in all runs."""
    classes: int
    chance: float
    noise: str
    """Budget of the noise control."""
    sizes: Mapping[str, Size] = {}
    """Distance of each attack's pictures from the clean ones."""
    settings: dict[str, Any]
    runs: Sequence[Examined]
    calibration: Sequence[Calibration]
    correlations: Sequence[Correlation]
    generation: Sequence[Generation] = []
    notes: Sequence[str]
    machine: dict[str, str]

    @property
    def names(self) -> list[str]:
        """Names of the controls, then of the attacks."""
        return list(dict.fromkeys(run.name for run in self.runs))

    @property
    def stages(self) -> list[str]:
        """Names of the depths, shallow to deep."""
        return [stage.name for stage in self.runs[0].stages]

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks."""
        return self.names[2:]

    @property
    def headings(self) -> list[str]:
        """Estimators as heads of columns; KSG with its number of rows, by which its bias goes."""
        return [f"{name}, n = {self.rows}" if name.partition(":")[0] == "ksg" else name for name in self.estimators]

    @property
    def crosses(self) -> list[tuple[str, str]]:
        """(victim of, looked at on) of the crossed control: for every attack its own and the clean victim, on noise and
        on its pictures. Empty if it was not measured.
        """
        clean, noise = self.names[:2]
        if not self.runs[0].crossed:
            return []
        return [(clean, noise), *(pair for a in self.attacks for pair in ((clean, a), (a, noise), (a, a)))]

    @property
    def estimators(self) -> list[str]:
        """Spellings of the estimators."""
        return [measured.estimator for measured in self.runs[0].stages[0].mi]

    def accuracies(self, name: str) -> list[float]:
        """Accuracies on clean test pictures, one per seed."""
        return [run.accuracy for run in self.runs if run.name == name]

    def found(self, name: str, estimator: str, stage: str) -> list[Measured]:
        """Measurements of one estimator for one attack at one depth, one per seed."""
        stages = [s for run in self.runs if run.name == name for s in run.stages if s.name == stage]
        return [measured for s in stages for measured in s.mi if measured.estimator == estimator]

    def across(self, name: str, shown: str, estimator: str) -> list[Measured]:
        """Measurements at the deepest features of victims of `name`, looked at on `shown`, one per seed.

        What a victim is looked at on anyway is there, too. Empty if the crossed control was not measured.
        """
        own = [run for run in self.runs if run.name == name]
        if shown == name or (shown == self.names[1] and own[0].role == "clean"):  # the second control is the noise
            return self.found(name, estimator, self.stages[-1])
        crossed = [crossed for run in own for crossed in run.crossed if crossed.shown == shown]
        return [measured for c in crossed for measured in c.mi if measured.estimator == estimator]

    def interaction(self, name: str, estimator: str) -> list[float]:
        """The loss of an attack's own victim beyond that of the victim of clean pictures, per seed.

        [I(protected) - I(noise)] of the victim of `name`, less the same of the victim of clean pictures.
        """
        clean, noise = self.names[:2]
        four = [self.across(*pair, estimator) for pair in ((name, name), (name, noise), (clean, name), (clean, noise))]
        return [(a.nats - b.nats) - (c.nats - d.nats) for a, b, c, d in zip(*four, strict=False)]

    def covariances(self, name: str, stage: str) -> list[Covariance]:
        """Covariances of protected features, one per seed."""
        return [s.protected for run in self.runs if run.name == name for s in run.stages if s.name == stage]
