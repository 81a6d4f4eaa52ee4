"""One victim of an evaluation: trained and tested, or read from its record."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from miue.core.files import digest, locked
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.evaluation.records import Role, VictimRun
from miue.nets import Classifier
from miue.training.loop import accuracy
from miue.victims.fit import TRAINED, keep_victim, prepare, shown, watched_fit
from miue.victims.recipe import Recipe

VERSION = 1  # of the meaning of a victim run; a higher number invalidates records on disk
CHECKS = 10  # how often a victim is tested while it trains, for its best epoch
EARLY = 3  # first epochs, all tested as well: many victims are at their best there


def train_victim(
    role: Role,
    data: ImageSet,
    test: ImageSet,
    recipe: Recipe,
    run: Run,
    keep: Path | None,
    weights: bool = False,
) -> VictimRun:
    """Train one victim and return its record; return the kept record if the same one was trained before.

    Another process may train it meanwhile: this one waits for it. keep: the folder of records; None keeps nothing.
    weights: whether the weights are kept beside the record, for an analysis.
    """
    if keep is None:
        return _trained(role, data, test, recipe, replace(run, keep=None))[0]
    key = digest(VERSION, recipe, data.digest, test.digest, run.seed)
    record = keep / "victims" / f"{key}.json"
    with locked(keep, f"victim-{key}"):
        if record.exists():
            names = {"role": role, "victim": recipe.victim, "defense": recipe.defense}
            return VictimRun.load(record).model_copy(update=names)
        run = replace(run, keep=keep / "victims" / key)
        result, net = _trained(role, data, test, recipe, run)
        if weights:
            keep_victim(net, data, recipe, replace(run, keep=keep / TRAINED))
        result.save(record)
        run.forget()
        return result


def _trained(role: Role, data: ImageSet, test: ImageSet, recipe: Recipe, run: Run) -> tuple[VictimRun, Classifier]:
    with run.threads_side_by_side():  # also where it is alone, so that the number of workers changes no result
        return _trained_and_tested(role, data, test, recipe, run)


def _trained_and_tested(
    role: Role, data: ImageSet, test: ImageSet, recipe: Recipe, run: Run
) -> tuple[VictimRun, Classifier]:
    tests, start = shown(test, recipe, run), time.monotonic()
    right = partial(accuracy, run=run, crops=recipe.crops)
    every = 1 if recipe.hold_out else max(recipe.epochs // CHECKS, 1)

    def watch(epoch: int, net: Classifier) -> float | None:
        return right(net, tests) if epoch <= EARLY or epoch % every == 0 or epoch == recipe.epochs else None

    ready = prepare(data, recipe, run)
    net, accuracies = watched_fit(ready, recipe, run, watch)
    last = right(net, tests) if recipe.hold_out or recipe.finish else accuracies[recipe.epochs]
    if recipe.finish:  # steps after the last epoch count as a part of it
        accuracies[recipe.epochs] = last
    best = max(accuracies, key=lambda epoch: (accuracies[epoch], -epoch))
    record = VictimRun(
        role=role,
        victim=recipe.victim,
        defense=recipe.defense,
        seed=run.seed,
        data=data.digest,
        last=last,
        best=accuracies[best],
        best_epoch=best,
        train=right(net, ready.train),
        seconds=time.monotonic() - start,
        device=f"{run.machine['device']}, {run.numerics.precision}",
    )
    return record, net
