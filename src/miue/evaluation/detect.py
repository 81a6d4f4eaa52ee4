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
MOST = 100  # classes that are looked at
MORE = 0.15  # a simple network that reaches this much more than on clean pictures is noticed
SIMPLE: Mapping[str, Recipe] = {
    net: Recipe(net=net, epochs=30, lr=0.01, weight_decay=0.0, augment=(), source="UDP, shorter")
    for net in ("linear", "mlp2")
}


class Simple(Record):
    """What one simple network reaches. Accuracies are shares in [0,1]."""

    held_out: float
    """On a part of the same set that it has not trained on."""
    train: float
    """On the part that it has trained on: for "linear", how far the set is linearly separable."""


class Detection(Record):
    """A first look at a set, beside the same look at clean pictures of the same classes."""

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
    """Train simple networks on a part of the set and judge them on the rest of it, protected as it is.

    Networks without convolutions learn little from pictures and much from perturbations that follow the labels, so a
    high accuracy on held-out pictures gives a protection away (UDP, AAAI 2024). What is high depends on the pictures:
    `clean` is what a trainer has learnt to expect.
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
    """At most `MOST` of the classes, evenly: simple networks cost pictures times classes, and a few show as much."""
    classes = torch.arange(0, len(data.classes), -(-len(data.classes) // MOST))
    if len(classes) == len(data.classes):
        return data
    part = data.select(torch.isin(data.labels, classes))
    names = tuple(data.classes[i] for i in classes.tolist())
    return replace(part, labels=torch.searchsorted(classes, part.labels), classes=names)


def look(data: ImageSet, run: Run) -> dict[str, Simple]:
    """Every simple network, trained on a part of the set, on both parts."""
    kept, held = (data.select(rows) for rows in holdout(data, HELD_OUT, run))
    found = {}
    for name, recipe in SIMPLE.items():
        net = fit(kept, recipe, run.reseeded(run.seed))
        held_out, train = (accuracy(net, Batches(part, run), run) for part in (held, kept))
        found[name] = Simple(held_out=held_out, train=train)
    return found
