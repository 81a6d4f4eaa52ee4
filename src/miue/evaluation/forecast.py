"""The time that the victims of an evaluation will take, told before they are trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from miue.core.run import Run
from miue.core.types import ImageSet
from miue.evaluation.adaptive import Adaptive
from miue.evaluation.several import Job
from miue.evaluation.victim import record_path
from miue.victims.fit import fit
from miue.victims.recipe import Recipe

SMALLEST, MOST, TRIAL = 128, 5, 1.0  # pictures of the first trial; sizes of trials; seconds of one that is long enough


def told_cost(sets: Mapping[str, ImageSet], jobs: Mapping[str, Job], run: Run) -> str:
    """Return a sentence on the number of trainings that are missing and their time; '' if none is, or nobody listens.

    Each kind of training is timed for one epoch on a few pictures. Tests are not in it, nor what a defense does before
    or after the training.
    """
    missing = _missing(sets, jobs, run)
    if run.quiet or not missing:
        return ""
    clean = sets["clean"]
    kinds = {repr(_core(recipe)): _core(recipe) for recipe in missing}
    costs = {kind: _epoch(recipe, clean, run) for kind, recipe in kinds.items()}
    seconds = sum(costs[repr(_core(recipe))] * recipe.epochs for recipe in missing)
    count, workers = len(missing), run.processes_for(len(missing))
    beside = f", {workers} at a time" if workers > 1 else ""
    return f"{count} training{'s' if count > 1 else ''} to do{beside}: {spelt(seconds / workers)}"


def spelt(seconds: float) -> str:
    """Text for a time: "about 40 seconds", "about 12 minutes", "about 3 hours"."""
    for unit, size in (("hour", 3600.0), ("minute", 60.0)):
        if seconds > 1.5 * size:
            return f"about {seconds / size:.0f} {unit}s"
    return f"about {max(seconds, 1):.0f} second{'s' if seconds >= 1.5 else ''}"


def _missing(sets: Mapping[str, ImageSet], jobs: Mapping[str, Job], run: Run) -> list[Recipe]:
    """The recipes of all trainings that have no record yet; of an adaptive victim those of its trials and one more."""
    recipes = []
    for job in jobs.values():
        data, own = sets[job.role], run.reseeded(job.seed)
        if isinstance(job.victim, Adaptive):
            recipes += [job.victim.recipe, *job.victim.fitting(data).values()]
        elif not (run.keep and record_path(run.keep, data, sets["test"], job.victim, own).exists()):
            recipes.append(job.victim)
    return recipes


def _core(recipe: Recipe) -> Recipe:
    """The recipe without what does not decide how long an epoch takes."""
    return replace(recipe, epochs=1, hold_out=0.0, patience=0, purify=(), start=(), finish=())


def _epoch(recipe: Recipe, data: ImageSet, run: Run) -> float:
    """Seconds of an epoch on the whole set."""
    trial = Run(run.seed, run.device_name, quiet=True)

    def epoch(few: ImageSet) -> None:
        with trial.threads_side_by_side():
            fit(few, recipe, trial)

    return scaled([(epoch, 1.0)], data, [SMALLEST, *(SMALLEST * 2**i for i in range(MOST))], TRIAL)


def scaled(
    works: Sequence[tuple[Callable[[ImageSet], object], float]], data: ImageSet, sizes: Iterable[int], enough: float
) -> float:
    """Seconds of work on a whole set, scaled from trials on a few pictures that grow until they take long enough.

    works: parts of the work, each with the factor of its seconds. sizes: pictures of one trial after the other, at
    least two; the first only warms up, however long it takes. enough: seconds of a trial that is long enough.
    """
    seconds = 0.0
    for number, rows in enumerate(sizes):
        few = data.first_per_class(max(rows // len(data.classes), 1))
        few = few.select(torch.arange(0, len(few), max(len(few) // rows, 1)))  # where classes outnumber rows
        spent = [_seconds(work, few) for work, _ in works]
        seconds = sum(taken * factor for taken, (_, factor) in zip(spent, works, strict=True)) * len(data) / len(few)
        if number and (sum(spent) > enough or len(few) == len(data)):
            break
    return seconds


def _seconds(work: Callable[[ImageSet], object], few: ImageSet) -> float:
    start = time.monotonic()
    work(few)
    return time.monotonic() - start
