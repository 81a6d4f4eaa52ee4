"""Victims: what somebody else trains. A recipe is the complete description of that training; `fit` carries it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from miue import nets
from miue.batches import Batch, Batches, FlipCrop
from miue.run import Run
from miue.train import cosine, descend, restore, state
from miue.types import Augment, ImageSet, Loss, UserError


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy with (possibly soft) labels, in nats."""

    slot: ClassVar[Literal["loss"]] = "loss"

    def __call__(self, net: Any, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
        return F.cross_entropy(net(x), y)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a victim is trained: the network, SGD or AdamW with a cosine rate, and what is done to batches.

    warmup: share of all steps with a linear rise. source: where the numbers come from.
    """

    net: str = "resnet18"
    epochs: int = 60
    batch: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    warmup: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    augment: tuple[Augment, ...] = (FlipCrop(),)
    loss: Loss = CrossEntropy()
    source: str = ""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or not self.lr > 0:
            raise UserError(
                f"epochs={self.epochs}, batch={self.batch}, lr={self.lr:g}: at least 1, 2 and a positive rate"
            )

    def described(self) -> dict[str, Any]:
        """The recipe as plain values, for records."""
        plain: Mapping[str, Any] = asdict(self) | {"augment": [repr(a) for a in self.augment], "loss": repr(self.loss)}
        return dict(plain)


def fit(
    data: ImageSet, recipe: Recipe, run: Run, watch: Callable[[int, nets.Classifier], float | None] | None = None
) -> tuple[nets.Classifier, dict[int, float]]:
    """Train a network from random weights; also what `watch` saw after which epoch, counted from 1.

    Resumes after the last finished epoch where `run` keeps state.
    """
    batches = Batches(data, run)
    with run.seeded("victim"):
        net: Any = run.place(nets.build(recipe.net, data.shape, len(data.classes)))
    optimizer = _optimizer(net, recipe)
    identity = {"recipe": repr(recipe), "data": data.digest, "seed": run.seed}
    first, seen = 0, dict[int, float]()
    if kept := run.load("victim", **identity):
        restore(net, optimizer, kept[0])
        first = kept[1]["epoch"]
        seen = {int(epoch): value for epoch, value in kept[1]["seen"].items()}
    count = batches.count(recipe.batch)
    rate = cosine(recipe.lr, recipe.epochs * count, recipe.warmup)
    text = f"{recipe.net} on {data.name}"
    with run.progress(text, recipe.epochs * count, first * count) as tick:
        for epoch in range(first, recipe.epochs):
            net.train()
            generator = run.rng("augment", epoch)
            losses = descend(
                lambda batch, g=generator: _loss(net, recipe, batch, len(data.classes), g),
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
            run.save("victim", state(net, optimizer), {**identity, "epoch": epoch + 1, "seen": seen})
    return net, seen


def _loss(
    net: nets.Classifier, recipe: Recipe, batch: Batch, classes: int, generator: torch.Generator
) -> Float[Tensor, ""]:
    x, y = batch[1], F.one_hot(batch[2], classes).float()
    for augment in recipe.augment:
        x, y = augment(x, y, generator)
    return recipe.loss(net, x, y)


def _optimizer(net: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )
