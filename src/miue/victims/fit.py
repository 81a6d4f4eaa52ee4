"""Victims: networks that somebody else trains on the set. A recipe describes the training; `fit` carries it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from miue import nets
from miue.core.files import digest
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data.split import holdout
from miue.training import batches as feed
from miue.training.batches import Batch, Batches
from miue.training.loop import Training, accuracy, cosine, triangle
from miue.training.views import mirrored
from miue.victims.recipe import Recipe

T = TypeVar("T")
TRAINED = "trained"  # folder for the weights of victims, shared by all analyses


@dataclass(frozen=True)
class Prepared:
    """The training pictures of a victim, purified if the recipe says so."""

    train: Batches
    held: Batches | None
    """The part that is held out; None if the recipe holds out nothing."""


def prepare(data: ImageSet, recipe: Recipe, run: Run) -> Prepared:
    """Purify the whole training set once, then hold out a part. Purified pictures are float: four times the memory."""
    x: Any = data.images.float().div_(255) if recipe.purify else None
    for purify in recipe.purify:
        x = purify(x, data.labels, run)
    if not recipe.hold_out:
        return Prepared(Batches(data, run, purified=x), None)
    parts = holdout(data, recipe.hold_out, run)
    train, held = (Batches(data.select(rows), run, purified=None if x is None else x[rows]) for rows in parts)
    return Prepared(train, held)


def shown(test: ImageSet, recipe: Recipe, run: Run) -> Batches:
    """Test pictures as the victim sees them: through those of its purifying defenses that are for all pictures.

    These get zeros for labels, which nobody has at that point.
    """
    everywhere = [purify for purify in recipe.purify if getattr(purify, "everywhere", False)]
    x: Any = test.images.float().div_(255) if everywhere else None
    for purify in everywhere:
        x = purify(x, torch.zeros_like(test.labels), run)
    return Batches(test, run, purified=x)


@dataclass
class _Best:
    """The weights of the epoch that is best on the held-out part."""

    epoch: int = 0
    accuracy: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, epoch: int, accuracy: float, net: torch.nn.Module) -> None:
        if accuracy > self.accuracy:
            self.epoch, self.accuracy = epoch, accuracy
            self.weights = {k: v.detach().clone() for k, v in net.state_dict().items()}

    def put_into(self, net: torch.nn.Module) -> None:
        if self.weights:
            net.load_state_dict(self.weights)


def fit(data: ImageSet | Prepared, recipe: Recipe, run: Run) -> nets.Classifier:
    """Train a network as a recipe says and return it. Resumes after the last finished epoch if `run` saves state."""
    ready = data if isinstance(data, Prepared) else prepare(data, recipe, run)
    net, _ = watched_fit(ready, recipe, run)
    finish(net, ready, recipe, run)
    return net


def finish(net: nets.Classifier, ready: Prepared, recipe: Recipe, run: Run) -> None:
    """Do to a trained network, in place, what the recipe says is done after the training."""
    for step in recipe.finish:
        step(net, ready.train, run)


def watched_fit(
    data: ImageSet | Prepared,
    recipe: Recipe,
    run: Run,
    watch: Callable[[int, nets.Classifier], T | None] | None = None,
) -> tuple[nets.Classifier, dict[int, T]]:
    """Train a network and return it with the values of `watch` by epoch, counted from 1.

    What the recipe does after the training is left to `finish`. Resumes after the last finished epoch if `run` saves
    state. data: the training set, or the result of `prepare`. watch(epoch, net): called after each epoch; None is left
    out, all else is kept as JSON.
    """
    ready = data if isinstance(data, Prepared) else prepare(data, recipe, run)
    batches, data = ready.train, ready.train.data
    with run.seeded("victim"):
        net: Any = run.place(nets.build(recipe.net, data.shape, len(data.classes)))
    feed.prepare(net, batches, run)
    probe = any(start.probe for start in recipe.start)
    optimizer = _optimizer(net.head if probe else net, recipe)
    identity, text = _identity(data, recipe, run), f"{recipe.net} on {data.name}"
    training = Training(net, optimizer, run, text, "victim", identity, slow=recipe.slow)
    values: list[tuple[int, T]] = training.facts.setdefault("seen", [])
    best = _Best(*training.facts.get("best", ()), weights=training.tensors)
    if not training.done:
        for start in recipe.start:
            start(net, batches, run)
    net.trunk.requires_grad_(not probe)
    count, course = batches.count(recipe.batch), triangle if recipe.schedule == "triangle" else cosine
    first = torch.rand(len(data), generator=run.rng("mirror")) < 0.5 if recipe.alternate else None
    for epoch in training.epochs(recipe.epochs, count, course(recipe.lr, recipe.epochs * count, recipe.warmup)):
        if recipe.patience and epoch - best.epoch >= recipe.patience:
            break
        net.train(not probe)
        loss = partial(_loss, net, recipe, len(data.classes), run.rng("augment", epoch), epoch / recipe.epochs)
        stream = batches.shuffled(recipe.batch, "victim", epoch)
        if first is not None:
            stream = _alternating(stream, first ^ bool(epoch % 2))
        training.learn(loss, stream, "layers", epoch)
        if watch and (value := watch(epoch + 1, net)) is not None:
            values.append((epoch + 1, value))
        if ready.held:
            best.offer(epoch + 1, accuracy(net, ready.held, run, crops=recipe.crops), net)
            training.tensors, training.facts["best"] = best.weights, (best.epoch, best.accuracy)
    best.put_into(net)
    net.requires_grad_(True)
    return net, dict(values)


def keep_victim(net: nets.Classifier, data: ImageSet, recipe: Recipe, run: Run) -> None:
    """Save the weights of a trained victim in `run.keep`, under a digest of its data, recipe and seed."""
    identity = _identity(data, recipe, run)
    run.save(digest(identity), net.state_dict(), identity)


def kept_victim(data: ImageSet, recipe: Recipe, run: Run) -> nets.Classifier | None:
    """The victim that `keep_victim` saved for the same data, recipe and seed; None if there is none."""
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
    net: nets.Classifier, recipe: Recipe, classes: int, generator: torch.Generator, done: float, batch: Batch
) -> Float[Tensor, ""]:
    x, y = batch[1], F.one_hot(batch[2], classes).float()
    for augment in recipe.augment:
        x, y = augment(x, y, generator)
    return recipe.loss(net, x, y, generator, done)


def _alternating(stream: Iterable[Batch], which: Bool[Tensor, "n"]) -> Iterator[Batch]:
    for index, x, y in stream:
        yield index, mirrored(x, which[index]), y


def _optimizer(net: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = _groups(net, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )


def _groups(net: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """All weights in one group, or those that are no biases in the first one and biases in the second."""
    factor, rest, biases = recipe.bias_lr, list[Tensor](), list[Tensor]()
    for name, weights in net.named_parameters():
        (biases if factor != 1 and name.rpartition(".")[2] == "bias" else rest).append(weights)
    faster = {"params": biases, "weight_decay": recipe.weight_decay / factor, "factor": factor}
    return [{"params": rest}, *([faster] if biases else [])]
