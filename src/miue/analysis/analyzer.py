"""Why an attack works: mutual information and covariance of clean and protected features, by depth, with controls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Any, TypeVar

from jaxtyping import Int
from torch import Tensor

from miue import mi
from miue.analysis.comparison import CLEAN, NOISE, TEST, check_sets, correlations, notes
from miue.analysis.features import LEAST, Depth, narrowed, paired_stages, plane, stratified
from miue.analysis.records import Analysis, Calibration, Crossed, Examined, Measured, Stage
from miue.attacks import Noise
from miue.core.errors import UserError
from miue.core.files import Record, digest, locked
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.core.workers import Sets, side_by_side
from miue.data import measure
from miue.evaluation.records import Role
from miue.nets import Classifier
from miue.training.batches import Batches
from miue.training.loop import accuracy
from miue.victims.fit import TRAINED, fit, keep_victim, kept_victim
from miue.victims.recipe import Recipe

R = TypeVar("R", bound=Record)
Pair = tuple[Tensor, Tensor]
"""Features of clean pictures and of their counterparts, row by row."""

VERSION = 2  # of the meaning of an examined victim; a higher number invalidates records on disk
ESTIMATORS = ("ksg", "sliced", "class-conditional")
LEVELS = (0, 2, 3)  # indices of mi.known.LEVELS: no information, all of it in the label, more than the label holds
NATS = (0.0, 0.5, 2.0, 5.0)  # about those of mi.known.LEVELS


@dataclass(frozen=True, kw_only=True)
class Analyzer:
    """Settings of an analysis, the same for all attacks: victims, pictures, estimators, number of shuffles.

    recipe, seeds: the victims, trained on each protected set. rows: number of clean pictures, the same share of every
    class, that are compared with their protected versions; the bias depends on it. halves, shuffles: as in
    `mi.measure`. noise: the control.
    """

    recipe: Recipe
    seeds: int = 3
    estimators: tuple[str, ...] = ESTIMATORS
    rows: int = 2000
    halves: int = 8
    shuffles: int = 4
    noise: Noise = field(default_factory=Noise)

    def __post_init__(self) -> None:
        if self.seeds < 1 or not self.estimators or self.halves < 2 or self.shuffles < 1:
            raise UserError(
                f"seeds={self.seeds}, {len(self.estimators)} estimators, halves={self.halves}, "
                f"shuffles={self.shuffles}: at least 1, 1, 2 and 1"
            )
        if self.rows < LEAST:
            raise UserError(f"{self.rows} rows are too few for any estimate; at least {LEAST}")
        for text in self.estimators:
            mi.estimator(text)

    def __call__(
        self,
        clean: ImageSet,
        test: ImageSet,
        attacks: Mapping[str, ImageSet],
        run: Run,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        methods: Mapping[str, str] | None = None,
    ) -> Analysis:
        """Examine victims of clean, noisy and all protected pictures. Rows of all sets correspond.

        Victims that were examined before on the same content are not examined again.

        attacks: protected sets by name; methods: the attacks' spellings. budget: of the noise control. Raises UserError
        if the sets do not belong together.
        """
        check_sets(clean, test, attacks)
        rows = stratified(clean, self.rows, run)
        noisy = self.noise(clean, budget, run.reseeded(0)).apply(clean)
        roles: list[Role] = ["clean", "noise", *["protected" for _ in attacks]]
        trained = {CLEAN: clean, NOISE: noisy, **attacks}
        others: dict[str, tuple[str, ...]] = {"clean": tuple(attacks), "noise": (), "protected": (NOISE,)}
        jobs = {
            f"{name}, seed {run.seed + seed}": _Job(name, role, NOISE if role == "clean" else name, seed, others[role])
            for seed in range(self.seeds)
            for name, role in zip(trained, roles, strict=True)
        }
        names = list(jobs)

        def tell(place: int, examined: Examined) -> None:
            run.say(f"{names[place]}: {examined.accuracy:.1%}")

        examined = side_by_side(partial(_examine, self, rows), {**trained, TEST: test}, jobs, run, "victims", tell)
        runs = [each.model_copy(update={"method": (methods or {}).get(each.name, each.name)}) for each in examined]
        sizes = {name: size for name, data in attacks.items() if (size := measure(clean, data))}
        widths = sorted({stage.width for examined in runs for stage in examined.stages})
        return Analysis(
            victim=self.recipe.victim,
            recipe=self.recipe.described(),
            images=len(clean),
            tested=len(test),
            rows=len(rows),
            classes=len(clean.classes),
            chance=test.chance,
            noise=str(budget),
            sizes=sizes,
            settings={"halves": self.halves, "shuffles": self.shuffles, "seed": run.seed},
            runs=runs,
            calibration=[c for width in widths for c in self._calibrated(width, len(rows), len(clean.classes), run)],
            correlations=correlations(runs, run),
            notes=notes(runs, sizes, test.chance, len(test), clean.chance),
            machine=run.machine,
        )

    def examined(
        self,
        name: str,
        role: Role,
        sets: tuple[ImageSet, ImageSet, ImageSet, ImageSet],
        rows: Int[Tensor, "r"],
        seed: int,
        run: Run,
        others: Mapping[str, ImageSet] = MappingProxyType({}),
    ) -> Examined:
        """Examine one victim and return its record; what was examined before on the same content is kept.

        sets: clean, test, trained on, shown. others: sets for the crossed control. The trained victim is kept, too:
        other estimators or rows need no new training. A victim that an evaluation has trained and kept is used as well.
        """
        clean, _, trained, _ = sets
        victim = digest(VERSION, self.recipe, trained.digest, run.seed + seed)
        keep = run.keep / "analysis" / victim if run.keep else None
        own, plan = replace(run, seed=run.seed + seed, keep=keep), replace(self, seeds=1)

        def recorded(kind: type[R], parts: Sequence[object], make: Callable[[], R]) -> R:
            path = keep / f"{digest(VERSION, plan, *parts, run.seed, seed)}.json" if keep else None
            if path and path.exists():
                return kind.load(path)
            result = make()
            if path:
                result.save(path)
            return result

        with ExitStack() as limits:
            if run.keep:
                limits.enter_context(locked(run.keep, f"analysis-{victim}"))
            limits.enter_context(run.threads_side_by_side())
            net = cache(lambda: self._victim(trained, own, run))
            digests = tuple(part.digest for part in sets)
            result = recorded(Examined, [digests], lambda: self._examined(name, role, net, sets, rows, own, run))
            crossed = []
            for shown, pictures in others.items():
                parts = ["crossed", clean.digest, trained.digest, pictures.digest]
                cell = recorded(Crossed, parts, lambda: self._crossed(shown, net(), clean, pictures, rows, run))  # noqa: B023 - called at once
                crossed.append(cell.model_copy(update={"shown": shown}))
            return result.model_copy(update={"crossed": crossed})

    def _examined(
        self,
        name: str,
        role: Role,
        net: Callable[[], Classifier],
        sets: tuple[ImageSet, ImageSet, ImageSet, ImageSet],
        rows: Int[Tensor, "r"],
        own: Run,
        run: Run,
    ) -> Examined:
        """One victim at every depth. own: its run; run: the analysis."""
        (clean, test, trained, shown), start = sets, time.monotonic()
        scores = [accuracy(net(), Batches(part, own), own, crops=self.recipe.crops) for part in (test, trained)]
        labels = clean.labels[rows]
        depths = paired_stages(net(), clean.select(rows), shown.select(rows), own)
        measuring = run.reseeded(run.seed)  # not the victim's seed: projections and shuffles are the same for all
        with run.progress(f"mutual information, {name}", len(depths)) as tick:
            stages, deepest = [], depths[-1][1:]
            for depth in depths:
                deepest = narrowed(*depth[1:])
                stages.append(self._stage(depth, deepest, labels, measuring))
                tick()
        points, axes = plane((depths[-1][0], *deepest), labels, measuring)
        return Examined(
            name=name,
            role=role,
            method=name,
            seed=own.seed,
            data=trained.digest,
            accuracy=scores[0],
            fitted=scores[1],
            stages=stages,
            statements=mi.statements(*deepest, labels, measuring),
            points=points,
            axes=axes,
            seconds=time.monotonic() - start,
        )

    def _crossed(
        self, shown: str, net: Classifier, clean: ImageSet, pictures: ImageSet, rows: Int[Tensor, "r"], run: Run
    ) -> Crossed:
        """The deepest features of a victim, of clean pictures and of others that it was not trained on."""
        depth = paired_stages(net, clean.select(rows), pictures.select(rows), run)[-1]
        measuring = run.reseeded(run.seed)
        measurements = self._measured(depth[1:], narrowed(*depth[1:]), clean.labels[rows], measuring)
        return Crossed(shown=shown, stage=depth[0], mi=measurements)

    def _victim(self, data: ImageSet, own: Run, run: Run) -> Classifier:
        """Return the trained victim. own: run of its checkpoints; run: the analysis, which keeps trained victims."""
        store = replace(own, keep=run.keep / TRAINED if run.keep else None)
        if (net := kept_victim(data, self.recipe, store)) is None:
            net = fit(data, self.recipe, own)
            keep_victim(net, data, self.recipe, store)
            own.forget()
        return net

    def _stage(self, depth: Depth, narrow: Pair, labels: Int[Tensor, "n"], run: Run) -> Stage:
        """Measurements of one depth. narrow: its features as most methods can afford them."""
        name, x, y = depth
        measurements = self._measured((x, y), narrow, labels, run)
        rank = min(8, int(labels.unique(return_counts=True)[1].min()) - 1)
        clean, protected = (mi.covariance(side, labels, run, rank) for side in narrow)
        dead = int(((x.std(0) == 0) | (y.std(0) == 0)).sum())
        return Stage(name=name, width=x.shape[1], dead=dead, mi=measurements, clean=clean, protected=protected)

    def _measured(self, whole: Pair, narrow: Pair, labels: Int[Tensor, "n"], run: Run) -> list[Measured]:
        """A measurement by every estimator. whole: all features, for methods that take them."""
        measurements = []
        for text in self.estimators:
            estimator = mi.estimator(text)
            x, y = _taken(estimator, whole, narrow)
            value = mi.measure(estimator, x, y, run, labels, self.halves, self.shuffles)
            values: dict[str, Any] = {k: v for k, v in vars(value).items() if k in Measured.model_fields}
            values |= {"estimator": text, "itself": estimator(x, x, run, labels).nats, "notes": list(value.notes)}
            measurements.append(Measured(**values))
        return measurements

    def _calibrated(self, width: int, n: int, classes: int, run: Run) -> list[Calibration]:
        """Estimates of every estimator for known samples with the features' n and d (Gaussians if d < classes)."""
        classes, calibration = max(min(classes, 10, n // 20), 2), []
        for level in LEVELS:
            generator = run.rng("calibration", level, width)
            model = replace(mi.known.LEVELS[level], classes=classes)
            if width < classes:
                pairs = mi.known.gaussian_pairs(n, width, NATS[level], generator)
            else:
                truth = model.nats(run.rng("calibration", level), 20_000)
                pairs = model.sample(n, width, generator, truth)
            narrow = narrowed(pairs.x, pairs.y)
            for text in self.estimators:
                estimator = mi.estimator(text)
                x, y = _taken(estimator, (pairs.x, pairs.y), narrow)
                nats = estimator(x, y, run, pairs.labels).nats
                calibration.append(
                    Calibration(estimator=text, sample=pairs.name, width=width, truth=pairs.nats, nats=nats)
                )
        return calibration


@dataclass(frozen=True)
class _Job:
    """One victim of an analysis."""

    name: str
    role: Role
    shown: str
    """Name of the set that is paired with the clean one; of the clean victim the noisy one, since a picture paired with
    itself has infinite information."""
    seed: int
    others: tuple[str, ...] = ()
    """Sets of the crossed control."""


def _taken(estimator: mi.Estimator, whole: Pair, narrow: Pair) -> Pair:
    """The features that an estimator gets: all of them if it takes any width, else the leading components.

    Such a method takes z-scores, and those of leading components would be as large in every direction.
    """
    return whole if getattr(estimator, "any_width", False) else narrow


def _examine(analyzer: Analyzer, rows: Int[Tensor, "r"], sets: Sets, job: _Job, run: Run) -> Examined:
    four = sets[CLEAN], sets[TEST], sets[job.name], sets[job.shown]
    others = {name: sets[name] for name in job.others}
    examined = analyzer.examined(job.name, job.role, four, rows, job.seed, run, others)
    return examined.model_copy(update={"name": job.name, "role": job.role})  # a kept record may have others
