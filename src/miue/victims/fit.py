"""Victims: what somebody else trains. A recipe is the complete description of that training; `fit` carries it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from miue import nets
from miue.core.files import digest
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data.split import holdout
from miue.training.batches import Batch, Batches
from miue.training.loop import accuracy, cosine, descend, restore, state
from miue.victims.recipe import Recipe

TRAINED = "trained"  # folder of victims whose weights are kept, for all that look at them


@dataclass(frozen=True)
class Prepared:
    """What a victim trains on, purified where its recipe says so, and the part that it holds out."""

    train: Batches
    held: Batches | None


def prepare(data: ImageSet, recipe: Recipe, run: Run) -> Prepared:
    """Purify the whole training set, once, then hold out a part. Purified pictures are float: four times the memory."""
    x: Any = data.images.float().div_(255) if recipe.purify else None
    for purify in recipe.purify:
        x = purify(x, data.labels, run)
    if not recipe.hold_out:
        return Prepared(Batches(data, run, purified=x), None)
    parts = holdout(data, recipe.hold_out, run)
    train, held = (Batches(data.select(rows), run, purified=None if x is None else x[rows]) for rows in parts)
    return Prepared(train, held)


@dataclass
class _Best:
    """The weights of the epoch that was best on what was held out."""

    epoch: int = 0
    accuracy: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, epoch: int, accuracy: float, net: torch.nn.Module) -> None:
        if accuracy > self.accuracy:
            self.epoch, self.accuracy = epoch, accuracy
            self.weights = {f"best.{k}": v.detach().clone() for k, v in net.state_dict().items()}

    def put_into(self, net: torch.nn.Module) -> None:
        if self.weights:
            net.load_state_dict({k.removeprefix("best."): v for k, v in self.weights.items()})


def fit(data: ImageSet | Prepared, recipe: Recipe, run: Run) -> nets.Classifier:
    """Train a network as a recipe says. Resumes after the last finished epoch where `run` keeps state."""
    return watched_fit(data, recipe, run)[0]


def watched_fit(
    data: ImageSet | Prepared,
    recipe: Recipe,
    run: Run,
    watch: Callable[[int, nets.Classifier], float | None] | None = None,
) -> tuple[nets.Classifier, dict[int, float]]:
    """Train a network from random weights, or from where its recipe starts; also what `watch` saw after which epoch.

    data: the training set, or what `prepare` made of it. Epochs count from 1. Resumes after the last finished epoch
    where `run` keeps state.
    """
    ready = data if isinstance(data, Prepared) else prepare(data, recipe, run)
    batches, data = ready.train, ready.train.data
    with run.seeded("victim"):
        net: Any = run.place(nets.build(recipe.net, data.shape, len(data.classes)))
    probe = any(start.probe for start in recipe.start)
    optimizer = _optimizer(net.head if probe else net, recipe)
    identity = _identity(data, recipe, run)
    first, seen, best = 0, dict[int, float](), _Best()
    if kept := run.load("victim", **identity):
        restore(net, optimizer, kept[0])
        first = kept[1]["epoch"]
        best = _Best(
            kept[1]["best_epoch"], kept[1]["best"], {k: run.put(v) for k, v in kept[0].items() if k.startswith("best.")}
        )
        seen = {int(epoch): value for epoch, value in kept[1]["seen"].items()}
    else:
        for start in recipe.start:
            start(net, batches, run)
    net.trunk.requires_grad_(not probe)
    count = batches.count(recipe.batch)
    rate = cosine(recipe.lr, recipe.epochs * count, recipe.warmup)
    text = f"{recipe.net} on {data.name}"
    with run.progress(text, recipe.epochs * count, first * count) as tick:
        for epoch in range(first, recipe.epochs):
            if recipe.patience and epoch - best.epoch >= recipe.patience:
                break
            net.train(not probe)
            generator = run.rng("augment", epoch)
            losses = descend(
                lambda batch, g=generator, done=epoch / recipe.epochs: _loss(
                    net, recipe, batch, len(data.classes), g, done
                ),
                batches.shuffled(recipe.batch, "victim", epoch),
                optimizer,
                rate,
                run,
                epoch * count,
            )
            with run.seeded("layers", epoch):
                for _ in losses:
                    tick()
            if watch and (value := watch(epoch + 1, net)) is not None:
                seen[epoch + 1] = value
            if ready.held:
                best.offer(epoch + 1, accuracy(net, ready.held, run), net)
            facts = {**identity, "epoch": epoch + 1, "seen": seen, "best": best.accuracy, "best_epoch": best.epoch}
            run.save("victim", state(net, optimizer) | best.weights, facts)
    best.put_into(net)
    net.requires_grad_(True)
    for finish in recipe.finish:
        finish(net, batches, run)
    return net, seen


def keep_victim(net: nets.Classifier, data: ImageSet, recipe: Recipe, run: Run) -> None:
    """Keep the weights of a trained victim where `run` keeps state, by what it was trained on and how."""
    identity = _identity(data, recipe, run)
    run.save(digest(identity), net.state_dict(), identity)


def kept_victim(data: ImageSet, recipe: Recipe, run: Run) -> nets.Classifier | None:
    """The victim that `keep_victim` kept for the same set, recipe and seed; None where there is none."""
    identity = _identity(data, recipe, run)
    weights = run.load(digest(identity), **identity)
    if weights is None:
        return None
    net: Any = run.place(nets.build(recipe.net, data.shape, len(data.classes)))
    net.load_state_dict(weights[0])
    return net


def _identity(data: ImageSet, recipe: Recipe, run: Run) -> dict[str, Any]:
    return {"recipe": repr(recipe), "data": data.digest, "seed": run.seed}


def _loss(
    net: nets.Classifier, recipe: Recipe, batch: Batch, classes: int, generator: torch.Generator, done: float
) -> Float[Tensor, ""]:
    x, y = batch[1], F.one_hot(batch[2], classes).float()
    for augment in recipe.augment:
        x, y = augment(x, y, generator)
    return recipe.loss(net, x, y, generator, done)


def _optimizer(net: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )
