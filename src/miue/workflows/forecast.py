"""The plan of a protection and its cost, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from miue import data
from miue.core.files import Record
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.evaluation.forecast import scaled
from miue.workflows import room
from miue.workflows.addition import Addition
from miue.workflows.job import Job, class_sizes
from miue.workflows.record import Settings

SMALLEST, TRIAL = 64, 1.5  # pictures of the first trial; seconds of a trial that is long enough


@dataclass(frozen=True)
class Forecast:
    """Cost of a job: seconds, estimated by a short trial, and bytes on disk and in memory."""

    seconds: float
    disk: int
    memory: int


class Planned(Record):
    """Plan of a protection, with its cost."""

    source: str
    classes: Mapping[str, int]
    """Pictures of every class that would be protected."""
    inputs: Mapping[str, int]
    """Inputs by status and reason."""
    notes: Sequence[str]
    settings: Settings
    out: str
    private: str
    seconds: float
    disk_mb: float
    memory_mb: float
    device: str


def planned(job: Job, run: Run) -> Planned:
    """Return the plan of a job: scan the pictures, check the settings, time the attack on a few. Writes nothing.

    Raises UserError.
    """
    source = job.scan()
    settings, _ = job.checked(source)
    cost = forecast(job, source, run, settings)
    return Planned(
        source=data.readable(source.location),
        classes=class_sizes(source),
        inputs=source.summary(),
        notes=list(source.notes),
        settings=settings,
        out=data.readable(str(job.out)),
        private=data.readable(str(job.private)),
        seconds=cost.seconds,
        disk_mb=cost.disk / 1e6,
        memory_mb=cost.memory / 1e6,
        device=run.machine["device"],
    )


class PlannedAddition(Record):
    """Plan of adding pictures to an output, with its cost."""

    out: str
    private: str
    classes: Mapping[str, int]
    """New pictures of every class."""
    inputs: Mapping[str, int]
    """Inputs by status and reason."""
    notes: Sequence[str]
    attack: str
    budget: str
    canvas: int
    seconds: float
    disk_mb: float
    memory_mb: float
    device: str


def planned_addition(addition: Addition, run: Run) -> PlannedAddition:
    """Return the plan of an addition; the attack is timed on a few new pictures. Writes nothing. Raises UserError."""
    settings, source = addition.record.settings, addition.new.source
    seconds, memory, disk = 0.0, 0, 0
    if source.usable and not addition.again:
        first = sum(line.part == 0 for line in addition.protected)
        if trials := trials_of(addition.method, first, later=True):
            state = addition.kept(run)
            craft = lambda short, few, trial: short.more(few, state, settings.rest, trial)  # noqa: E731
            seconds = _tried(addition.method, trials, craft, addition.read(), replace(run, seed=settings.seed))
        memory = _memory(addition.method, source, settings, run)
        disk = sum(size for parts in addition.disk().values() for size in parts.values())
    return PlannedAddition(
        out=data.readable(str(addition.out)),
        private=data.readable(str(addition.private)),
        classes={name: n for name, n in class_sizes(source).items() if n and not addition.again},
        inputs=addition.counts,
        notes=addition.notes,
        attack=settings.attack,
        budget=settings.budget,
        canvas=settings.canvas,
        seconds=seconds,
        disk_mb=disk / 1e6,
        memory_mb=memory / 1e6,
        device=run.machine["device"],
    )


def _memory(method: Any, source: data.Source, settings: Settings, run: Run) -> int:
    """Bytes of pictures, deltas at work and the finished perturbation, as far as they do not lie in files."""
    count, side = len(source.usable), settings.canvas
    deltas = room.deltas(method, count, (3, side, side), len(source.classes), 1)
    pictures = 0 if data.cached(source, side) else count * 3 * side**2
    finished = count * 3 * (settings.cells or side) ** 2 * settings.limit.kind.itemsize
    held = ((deltas, run.room), (finished, run.room_for_results))
    return pictures + sum(size for size, most in held if size <= most)


def forecast(job: Job, source: data.Source, run: Run, settings: Settings | None = None) -> Forecast:
    """Return the cost of a job: time a few batches of the attack on its pictures, and scale."""
    settings = settings or job.settings(source)
    canvas, budget = settings.canvas, settings.rest
    method, count = job.attack, len(source.usable)
    seconds = 0.0
    if trials := trials_of(method, count):
        craft = lambda short, few, trial: short(few, budget, trial)  # noqa: E731
        seconds = _tried(method, trials, craft, data.read(source, canvas), replace(run, seed=job.seed))
    disk = sum(size for parts in job.disk(source, settings).values() for size in parts.values())
    return Forecast(seconds, disk, _memory(method, source, settings, run))


def _tried(
    method: Any,
    trials: Sequence[tuple[Any, float]],
    craft: Callable[[Any, ImageSet, Run], object],
    images: ImageSet,
    run: Run,
) -> float:
    """Seconds of an attack, by short versions of it. Trials have at most twice as many pictures as a batch, or all."""
    largest = 2 * max(getattr(method, "noise_batch", 0), getattr(method, "batch", 0), SMALLEST)
    sizes = [SMALLEST, 2 * SMALLEST]
    while sizes[-1] < min(len(images), largest):
        sizes.append(2 * sizes[-1])

    def work(short: Any) -> Callable[[ImageSet], object]:
        return lambda few: craft(short, few, Run(run.seed, run.device_name, None, True, run.fabric))

    return max(scaled([(work(short), factor) for short, factor in trials], images, sizes, TRIAL), 0.0)


def trials_of(method: Any, count: int, later: bool = False) -> list[tuple[Any, float]]:
    """Shorter versions of an attack, with factors: the sum of factor x seconds is an estimate for `count` pictures.

    Empty for an attack without epochs. An attack with work outside its epochs defines `trials` itself. later: of
    pictures that are added to a set of so many.
    """
    if hasattr(method, "trials"):
        return method.trials(count, later)
    epochs = getattr(method, "epochs", 0)
    return [(replace(method, epochs=1), float(epochs))] if epochs else []
