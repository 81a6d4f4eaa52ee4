"""The victims of an evaluation, side by side or one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from miue.core.run import Run
from miue.core.types import ImageSet
from miue.core.workers import Sets, side_by_side
from miue.evaluation.adaptive import Adaptive, Victim, parted, train
from miue.evaluation.records import Role, VictimRun
from miue.evaluation.victim import train_victim
from miue.victims.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """One victim of an evaluation; arguments of `train`. Its pictures have the name of its role."""

    role: Role
    victim: Victim
    seed: int
    weights: bool = False


def trained(sets: Mapping[str, ImageSet], jobs: Mapping[str, Job], run: Run) -> list[VictimRun]:
    """Train the victims, by their names, and return their records in the same order.

    sets: training sets by role, and the clean pictures "test". Each record is told as it comes. If `run` keeps records,
    workers train what adaptive ones try as victims of their own.
    """
    names = list(jobs)

    def tell(place: int, record: VictimRun) -> None:
        run.say(f"{names[place]}: {record.last:.1%}")

    if run.keep is not None and run.processes_for(2) > 1 and (trials := _trials(sets, jobs)):
        others = {name: job for name, job in jobs.items() if not isinstance(job.victim, Adaptive)}
        side_by_side(_train, sets, {**others, **trials}, run, "victims and trials")
    return side_by_side(_train, sets, jobs, run, "victims", tell)


@dataclass(frozen=True)
class _Trial:
    """One candidate of an adaptive victim."""

    role: Role
    candidate: Recipe
    seed: int


def _trials(sets: Mapping[str, ImageSet], jobs: Mapping[str, Job]) -> dict[str, _Trial]:
    return {
        f"{name}, {text}": _Trial(job.role, candidate, job.seed)
        for name, job in jobs.items()
        if isinstance(job.victim, Adaptive)
        for text, candidate in job.victim.fitting(sets[job.role]).items()
    }


def _train(sets: Sets, job: Job | _Trial, run: Run) -> VictimRun:
    own, data, test = run.reseeded(job.seed), sets[job.role], sets["test"]
    if isinstance(job, _Trial):
        return train_victim(job.role, data, parted(test, own)[0], job.candidate, own, run.keep)
    return train(job.role, data, test, job.victim, own, run.keep, job.weights)
