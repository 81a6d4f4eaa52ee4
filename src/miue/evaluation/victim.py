"""One victim of an evaluation, trained and tested, or read where it was before."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from miue.core.files import digest, locked
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.evaluation.records import Role, VictimRun
from miue.nets import Classifier
from miue.training.batches import Batches
from miue.training.loop import accuracy
from miue.victims.fit import TRAINED, keep_victim, prepare, watched_fit
from miue.victims.recipe import Recipe

VERSION = 1  # of what a victim run means; a higher number makes kept ones void
CHECKS = 10  # how often a victim is tested while it trains, for its best epoch
EARLY = 3  # epochs at the beginning that are tested besides: there many are at their best


def train_victim(
    role: Role,
    data: ImageSet,
    test: ImageSet,
    recipe: Recipe,
    run: Run,
    keep: Path | None,
    weights: bool = False,
) -> VictimRun:
    """One victim, or its record where the same one was trained before, perhaps by another process meanwhile.

    weights: whether its weights are kept beside the record, for an analysis.
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
        done, net = _trained(role, data, test, recipe, run)
        if weights:
            keep_victim(net, data, recipe, replace(run, keep=keep / TRAINED))
        done.save(record)
        run.forget()
        return done


def _trained(role: Role, data: ImageSet, test: ImageSet, recipe: Recipe, run: Run) -> tuple[VictimRun, Classifier]:
    tests, start = Batches(test, run), time.monotonic()
    every = 1 if recipe.hold_out else max(recipe.epochs // CHECKS, 1)

    def watch(epoch: int, net: Classifier) -> float | None:
        return accuracy(net, tests, run) if epoch <= EARLY or epoch % every == 0 or epoch == recipe.epochs else None

    ready = prepare(data, recipe, run)
    net, seen = watched_fit(ready, recipe, run, watch)
    last = accuracy(net, tests, run) if recipe.hold_out or recipe.finish else seen[recipe.epochs]
    if recipe.finish:  # what came after the last epoch counts as a part of it
        seen[recipe.epochs] = last
    best = max(seen, key=lambda epoch: (seen[epoch], -epoch))
    record = VictimRun(
        role=role,
        victim=recipe.victim,
        defense=recipe.defense,
        seed=run.seed,
        data=data.digest,
        last=last,
        best=seen[best],
        best_epoch=best,
        train=accuracy(net, ready.train, run),
        seconds=time.monotonic() - start,
        device=f"{run.machine['device']}, {run.numerics.precision}",
    )
    return record, net
