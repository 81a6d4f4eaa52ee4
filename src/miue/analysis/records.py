"""What is written as JSON about victims, proofs, analyses and grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of everything that is written as JSON: strict about fields, never edited in place, infinities as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


BALL = 8  # grey levels: the budget of most papers, against which others are told


class Size(Record):
    """How large the changes of a set are, measured on pictures of 8 bit."""

    pictures: int
    outside: int
    """Pictures with a value that changed by more than BALL grey levels."""
    linf: int
    """Largest change of any picture, grey levels."""
    l2: float
    """Mean over pictures, [0,1] units."""
    changed: float
    """Mean share of changed pixels."""
    psnr: float | None
    """Mean over pictures that changed, dB; None where nothing did."""

    @classmethod
    def over(cls, sizes: Sequence[Size]) -> Size | None:
        """Those of several sets together; None where there is none."""
        if not sizes:
            return None
        n = [size.pictures for size in sizes]
        ratios = [size.psnr for size in sizes if size.psnr is not None]
        return Size(
            pictures=sum(n),
            outside=sum(size.outside for size in sizes),
            linf=max(size.linf for size in sizes),
            l2=fmean((size.l2 for size in sizes), n),
            changed=fmean((size.changed for size in sizes), n),
            psnr=fmean(ratios) if ratios else None,
        )

    def __str__(self) -> str:
        share = f"{self.changed:.1%}" if self.changed >= 0.01 else f"{self.changed:.2%}"
        ratio = "" if self.psnr is None else f", PSNR {self.psnr:.1f} dB"
        return f"largest change {self.linf} grey levels, L2 {self.l2:.3g}, {share} of the pixels{ratio} on average"

    @property
    def leaves(self) -> str:
        """What is told of a set with pictures outside of the ball; empty for others."""
        if not self.outside:
            return ""
        return f"{self.outside} of {self.pictures} pictures leave the {BALL}/255 ball: {self}"


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
    device: str = ""
    """What it was trained on, and in which precision; empty in records of an earlier time."""


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
    size: Size | None = None
    """How far the protected pictures are from the clean ones, as victims see them."""
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


# --- analyses ---


class Covariance(Record):
    """Summaries of features of length 1, means over classes; `trace` = 1 - `cosine` up to rounding.

    trace: of a class's covariance (divisor n - 1). log_det: of the covariances within the leading subspace that all
    classes share, `rank` dimensions, nats of 2 h; -inf where features of a class coincide. cosine: mean over pairs of
    different rows of one class. distance: Euclidean, mean over pairs of class means.
    """

    trace: float
    log_det: float
    cosine: float
    distance: float
    rank: int


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


class Statement(Record):
    """A line of the theory on these features: what it claims (`bound`), what was measured, whether it holds."""

    text: str
    bound: float
    measured: float
    holds: bool


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


class Spearman(Record):
    """A rank correlation of `n` pairs.

    p: of as large a value, either sign, when one side is permuted. low, high: 95 % of bootstrap samples of pairs.
    least, most: range when one pair is left out.
    """

    n: int
    rho: float
    p: float
    low: float
    high: float
    least: float
    most: float


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
    largest: float = 0.0
    """That of the training set; 0 in records of an earlier time."""


class Craft(Size):
    """How a perturbation of a grid was made, and how large it is."""

    version: Literal[1] = 1
    seconds: float
    """Since it was last started: of one that was killed on the way, only the last part."""
    passes: float
    """Forward passes with gradients, per picture, counted with the seconds."""


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
    """Of its perturbation, where it has one."""
    error: str = ""
    machine: dict[str, str]
    miue: str
