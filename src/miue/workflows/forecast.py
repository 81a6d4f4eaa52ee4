"""The plan of a protection and its cost, before anything is written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from miue import data
from miue.core.files import Record
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.workflows.protect import Job, class_sizes
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


def forecast(job: Job, source: data.Source, run: Run, settings: Settings | None = None) -> Forecast:
    """Return the cost of a job: time a few batches of the attack on its pictures, and scale."""
    settings = settings or job.settings(source)
    canvas, budget = settings.canvas, settings.limit
    method, count = job.attack, len(source.usable)
    seconds = _tried(method, data.read(source, canvas), budget, job, run) if trials_of(method) else 0.0
    grid = getattr(method, "cells", 0) or canvas
    disk = sum(size for parts in job.disk(source, settings).values() for size in parts.values())
    return Forecast(seconds, disk, count * 3 * (canvas**2 + 8 * grid**2))


def _tried(method: Any, images: ImageSet, budget: Budget, job: Job, run: Run) -> float:
    """Seconds of an attack, scaled from short trials that grow until one takes long enough."""
    count, rows = len(images), SMALLEST
    largest = 2 * max(getattr(method, "noise_batch", 0), getattr(method, "batch", 0), SMALLEST)
    while True:
        few = images.first_per_class(max(rows // len(images.classes), 1))
        few = few.select(
            torch.arange(0, len(few), max(len(few) // rows, 1))
        )  # if classes outnumber rows: evenly spaced ones
        taken, seconds = 0.0, 0.0
        for short, times in trials_of(method):
            start = time.monotonic()
            short(few, budget, Run(job.seed, run.device_name, None, True, run.fabric))
            spent = time.monotonic() - start
            taken += spent
            seconds += spent * times * count / len(few)
        if (rows > SMALLEST and taken > TRIAL) or rows >= min(count, largest):
            return max(seconds, 0.0)
        rows *= 2  # the first trial only warms up, however long it takes


def trials_of(method: Any) -> list[tuple[Any, float]]:
    """Shorter versions of an attack, with factors: the sum of factor x seconds estimates its own seconds.

    Empty for an attack without epochs. An attack with work outside its epochs defines `trials` itself.
    """
    if hasattr(method, "trials"):
        return method.trials()
    epochs = getattr(method, "epochs", 0)
    return [(replace(method, epochs=1), float(epochs))] if epochs else []
