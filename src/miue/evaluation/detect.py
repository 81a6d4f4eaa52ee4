"""The trainer's first look at a data set: would somebody who received it notice that it was protected?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch

from miue.core.files import Record
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data.split import holdout
from miue.training.batches import Batches
from miue.training.loop import accuracy
from miue.victims.fit import fit
from miue.victims.recipe import Recipe

HELD_OUT = 0.2
MOST = 100  # largest number of classes in a first look
MORE = 0.15  # gain in held-out accuracy over clean pictures from which a trainer notices the protection
SIMPLE: Mapping[str, Recipe] = {
    net: Recipe(net=net, epochs=30, lr=0.01, weight_decay=0.0, augment=(), source="UDP, shorter")
    for net in ("linear", "mlp2")
}


class Simple(Record):
    """Accuracies of one simple network, as shares in [0,1]."""

    held_out: float
    """On the held-out part of the same set."""
    train: float
    """On its own training part: for "linear", how far the set is linearly separable."""


class Detection(Record):
    """A first look at a set, and the same look at clean pictures of the same classes."""

    version: Literal[1] = 1
    data: str
    reference: str
    """Digests of the set and of the clean pictures."""
    seed: int
    looks: Mapping[str, Simple]
    clean: Mapping[str, Simple]
    noticed: bool
    reason: str


def first_look(data: ImageSet, clean: ImageSet, run: Run) -> Detection:
    """Train simple networks on a part of the set and test them on the rest, which is protected, too.

    Networks without convolutions learn little from pictures and much from perturbations that follow the labels, so a
    high accuracy on held-out pictures reveals a protection (UDP, AAAI 2024). How high is normal depends on the
    pictures: `clean` stands for the accuracy that a trainer expects.
    """
    classes = len(data.classes)
    data, clean = _sample(data), _sample(clean)
    looks, before = look(data, run), look(clean, run)
    gain = {net: looks[net].held_out - before[net].held_out for net in looks}
    net = max(gain, key=lambda n: gain[n])
    reason = (
        f"{net} reaches {looks[net].held_out:.1%} on held-out pictures of the set, {before[net].held_out:.1%} on clean"
    )
    if len(data.classes) < classes:
        reason += f" ({len(data.classes)} of {classes} classes)"
    return Detection(
        data=data.digest,
        reference=clean.digest,
        seed=run.seed,
        looks=looks,
        clean=before,
        noticed=gain[net] > MORE,
        reason=reason,
    )


def _sample(data: ImageSet) -> ImageSet:
    """Return the set with at most `MOST` evenly spaced classes: the cost is pictures times classes, and few suffice."""
    classes = torch.arange(0, len(data.classes), -(-len(data.classes) // MOST))
    if len(classes) == len(data.classes):
        return data
    part = data.select(torch.isin(data.labels, classes))
    names = tuple(data.classes[i] for i in classes.tolist())
    return replace(part, labels=torch.searchsorted(classes, part.labels), classes=names)


def look(data: ImageSet, run: Run) -> dict[str, Simple]:
    """Train every simple network on a part of the set; return its accuracies on both parts, by name."""
    fitted, held = (data.select(rows) for rows in holdout(data, HELD_OUT, run))
    accuracies = {}
    for name, recipe in SIMPLE.items():
        net = fit(fitted, recipe, run.reseeded(run.seed))
        held_out, train = (accuracy(net, Batches(part, run), run) for part in (held, fitted))
        accuracies[name] = Simple(held_out=held_out, train=train)
    return accuracies
