"""The trainer's first look at a data set: would somebody who received it notice that it was protected?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from miue.batches import Batches, holdout
from miue.records import Record
from miue.run import Run
from miue.train import accuracy
from miue.types import ImageSet
from miue.victims import Recipe, fit

HELD_OUT = 0.2
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
    looks, before = look(data, run), look(clean, run)
    gain = {net: looks[net].held_out - before[net].held_out for net in looks}
    net = max(gain, key=lambda n: gain[n])
    reason = (
        f"{net} reaches {looks[net].held_out:.1%} on held-out pictures of the set, {before[net].held_out:.1%} on clean"
    )
    return Detection(
        data=data.digest,
        reference=clean.digest,
        seed=run.seed,
        looks=looks,
        clean=before,
        noticed=gain[net] > MORE,
        reason=reason,
    )


def look(data: ImageSet, run: Run) -> dict[str, Simple]:
    """Every simple network, trained on a part of the set, on both parts."""
    kept, held = (data.select(rows) for rows in holdout(data, HELD_OUT, run))
    found = {}
    for name, recipe in SIMPLE.items():
        net, _ = fit(kept, recipe, run.reseeded(run.seed))
        held_out, train = (accuracy(net, Batches(part, run), run) for part in (held, kept))
        found[name] = Simple(held_out=held_out, train=train)
    return found
