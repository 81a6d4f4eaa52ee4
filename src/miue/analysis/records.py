"""What is written as JSON about victims, proofs, analyses and grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from miue.analysis.ranks import Spearman
from miue.core.files import Record
from miue.data.quality import Size
from miue.evaluation.records import Role
from miue.mi.covariance import Covariance
from miue.mi.statements import Statement

# --- analyses ---


class Measured(Record):
    """A mutual information in nats as `mi.measure` gives it; `itself` is the value of clean features with themselves.

    A pair without any loss has infinite information: `itself` is the most that the estimator shows on these features.
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
    p: float
    parts: Mapping[str, float]
    notes: Sequence[str]


class Stage(Record):
    """Clean and protected features at one depth of a victim, mean over positions. dead: features that are constant."""

    name: str
    width: int
    dead: int
    mi: Sequence[Measured]
    clean: Covariance
    protected: Covariance


class Examined(Record):
    """One victim: trained on the pictures of `name`, asked what its features of them tell about clean features."""

    name: str
    role: Role
    method: str
    seed: int
    data: str
    """Digest of the training set as it was read."""
    accuracy: float
    """On clean test pictures, after the last epoch."""
    fitted: float
    """On its own training set."""
    stages: Sequence[Stage]
    """Shallow to deep."""
    statements: Sequence[Statement]
    points: Sequence[tuple[int, float, float, float, float]]
    """The deepest features of some pictures in a plane: class, clean x, clean y, protected x, protected y."""
    axes: tuple[float, float]
    """Share of variance on each axis of that plane."""
    seconds: float


class Calibration(Record):
    """What an estimator says of samples whose mutual information is known, with the same n and d as the features."""

    estimator: str
    sample: str
    width: int
    truth: float
    nats: float


class Correlation(Spearman):
    """That of two quantities, a pair for each attack (means over seeds)."""

    of: tuple[str, str]
    estimator: str
    stage: str


class Generation(Record):
    """How a surrogate's features of the protected pictures changed, epoch by epoch, while the attack made them.

    cosine: mean over pairs of one class, 1 - trace of the covariance of features of length 1. between: over pairs of
    two classes. within: share of the features' variance that lies within classes. Epochs count from 1.
    """

    name: str
    cosine: Sequence[float]
    between: Sequence[float]
    within: Sequence[float]


class Analysis(Record):
    """Why attacks work, or do not: mutual information and covariance by depth, beside what they are judged by.

    Runs of role "clean" (a victim of clean pictures, which are compared with noisy ones) and "noise" are the controls.
    """

    version: Literal[1] = 1
    victim: str
    recipe: dict[str, Any]
    images: int
    rows: int
    """Pictures, the same for all, whose features were taken."""
    classes: int
    chance: float
    noise: str
    """Budget of the noise control."""
    sizes: Mapping[str, Size] = {}
    """How far each attack's pictures are from the clean ones."""
    settings: dict[str, Any]
    runs: Sequence[Examined]
    calibration: Sequence[Calibration]
    correlations: Sequence[Correlation]
    generation: Sequence[Generation] = []
    notes: Sequence[str]
    machine: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The controls, then the attacks."""
        return list(dict.fromkeys(run.name for run in self.runs))

    @property
    def stages(self) -> list[str]:
        """Names of the depths, shallow to deep."""
        return [stage.name for stage in self.runs[0].stages]

    @property
    def estimators(self) -> list[str]:
        """Spellings of the estimators."""
        return [found.estimator for found in self.runs[0].stages[0].mi]

    def accuracies(self, name: str) -> list[float]:
        """Accuracy on clean test pictures, one a seed."""
        return [run.accuracy for run in self.runs if run.name == name]

    def found(self, name: str, estimator: str, stage: str) -> list[Measured]:
        """What an estimator gave for one attack at one depth, one a seed."""
        stages = [s for run in self.runs if run.name == name for s in run.stages if s.name == stage]
        return [found for s in stages for found in s.mi if found.estimator == estimator]

    def covariances(self, name: str, stage: str) -> list[Covariance]:
        """Those of protected features, one a seed."""
        return [s.protected for run in self.runs if run.name == name for s in run.stages if s.name == stage]
