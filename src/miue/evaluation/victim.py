"""One victim of an evaluation: trained and tested, or read from its record."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from miue.core.files import digest, locked
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data.split import holdout
from miue.evaluation.records import Role, VictimRun
from miue.nets import Classifier
from miue.training.loop import accuracy, correct
from miue.victims.fit import TRAINED, finish, keep_victim, prepare, shown, watched_fit
from miue.victims.recipe import Recipe

VERSION = 2  # of the meaning of a victim run; a higher number invalidates records on disk
PER_CLASS = 100  # clean pictures of a class that a trainer chooses by: an epoch, or a defense
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
    record = record_path(keep, data, test, recipe, run)
    key = record.stem
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
    every = 1 if recipe.hold_out else max(recipe.epochs // CHECKS, 1)
    parts = None if test.labels.bincount().eq(1).any() else parted_rows(test, run)

    def scores(net: Classifier) -> list[float]:
        """Accuracy on all test pictures; then on those that the trainer chooses by, and on the others, if any."""
        right = correct(net, tests, run, crops=recipe.crops).double()
        return [float(rows.mean()) for rows in (right, *(right[part] for part in parts or ()))]

    def watch(epoch: int, net: Classifier) -> list[float] | None:
        return scores(net) if epoch <= EARLY or epoch % every == 0 or epoch == recipe.epochs else None

    ready = prepare(data, recipe, run)
    net, seen = watched_fit(ready, recipe, run, watch)
    train = accuracy(net, ready.train, run, crops=recipe.crops)  # before `finish`, which may forget some of this set
    finish(net, ready, recipe, run)
    end = scores(net) if recipe.hold_out or recipe.finish else seen[recipe.epochs]
    if recipe.finish:  # steps after the last epoch count as a part of it
        seen[recipe.epochs] = end
    best, stop = (max(seen, key=lambda epoch: (seen[epoch][of], -epoch)) for of in (0, 1 if parts else 0))
    record = VictimRun(
        role=role,
        victim=recipe.victim,
        defense=recipe.defense,
        seed=run.seed,
        data=data.digest,
        last=end[0],
        best=seen[best][0],
        best_epoch=best,
        epochs={epoch: values[0] for epoch, values in seen.items()},
        stopped=seen[stop][2] if parts else None,
        stopped_epoch=stop,
        train=train,
        seconds=time.monotonic() - start,
        device=f"{run.machine['device']}, {run.numerics.precision}",
    )
    return record, net


def record_path(keep: Path, data: ImageSet, test: ImageSet, recipe: Recipe, run: Run) -> Path:
    """Path of the record of a victim, kept or not."""
    return keep / "victims" / f"{digest(VERSION, recipe, data.digest, test.digest, run.seed)}.json"


def parted_rows(test: ImageSet, run: Run) -> tuple[Int[Tensor, "k"], Int[Tensor, "m"]]:
    """The rows of a test set in two parts: what a trainer chooses by, and the rest. Classes keep their shares.

    Raises UserError if a class has one picture.
    """
    share = min(PER_CLASS * len(test.labels.unique()) / len(test), 0.5)
    rest, chosen_by = holdout(test, share, run)
    return chosen_by, rest
