"""The slots of a recipe for defenses: the call of each, and when it happens."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Purify(Protocol):
    """A defense that cleans the training pictures once, before training. x: the whole set, in main memory.

    The result may leave the 8-bit grid, and [0,1] if the defense declares `unbounded`. Rows keep their places.
    One that declares `everywhere` is a part of the victim: the pictures that it is tested on go through it, too, with
    zeros for labels.
    An optional method check(training set) raises UserError if it cannot clean it; it is called before any training.
    """

    slot: ClassVar[Literal["purify"]]

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Any) -> Float[Tensor, "n c h w"]: ...


@runtime_checkable
class Augment(Protocol):
    """A change of every training batch, drawn anew each time; labels are probabilities and may become soft."""

    slot: ClassVar[Literal["augment"]]

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]: ...


@runtime_checkable
class Loss(Protocol):
    """The victim's training loss for one batch. done: the finished share of the training, in [0,1)."""

    slot: ClassVar[Literal["loss"]]

    def __call__(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator, done: float
    ) -> Float[Tensor, ""]: ...


@runtime_checkable
class Start(Protocol):
    """A change of a network, in place, before it is trained.

    train: the `Batches` that the victim trains on. probe: whether only the head learns afterwards, on fixed features.
    An optional method check(net) raises UserError if it does not fit the network; it is called before any training.
    """

    slot: ClassVar[Literal["start"]]

    @property
    def probe(self) -> bool: ...

    def __call__(self, net: Any, train: Any, run: Any) -> None: ...


@runtime_checkable
class Finish(Protocol):
    """A change of a network, in place, after it was trained. train: the `Batches` that it was trained on.

    A defense that learns from other pictures returns them from `pictures(training set)`, so that none is a test
    picture of the victim.
    """

    slot: ClassVar[Literal["finish"]]

    def __call__(self, net: Any, train: Any, run: Any) -> None: ...


Defense = Start | Purify | Augment | Loss | Finish
