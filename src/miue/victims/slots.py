"""The slots of a recipe that defenses fill: what each of them is called with, and when."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Purify(Protocol):
    """A defense that cleans the training pictures once, before training: x is the whole set, in main memory.

    It may leave the 8-bit grid, and [0,1] where it says so by `unbounded`. Rows stay where they are.
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
    """The victim's training loss for one batch. done: the share of the training that is over, in [0,1)."""

    slot: ClassVar[Literal["loss"]]

    def __call__(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator, done: float
    ) -> Float[Tensor, ""]: ...


@runtime_checkable
class Start(Protocol):
    """What is done to a network before it is trained. probe: afterwards only the head learns, on features as they are.

    train: the `Batches` that the victim trains on. The network is changed in place. A method check(net), where there
    is one, raises UserError for a network that it does not fit, before anything is trained.
    """

    slot: ClassVar[Literal["start"]]

    @property
    def probe(self) -> bool: ...

    def __call__(self, net: Any, train: Any, run: Any) -> None: ...


@runtime_checkable
class Finish(Protocol):
    """What is done to a network after it was trained, in place. train: the `Batches` that it was trained on.

    One that learns from other pictures gives them by `pictures(training set)`, so that none of them tests the victim.
    """

    slot: ClassVar[Literal["finish"]]

    def __call__(self, net: Any, train: Any, run: Any) -> None: ...


Defense = Start | Purify | Augment | Loss | Finish
