"""The driver of the min-min family: an epoch of surrogate training, then K signed steps on every delta, repeated.

min over theta, min over delta:  theta descends the cross-entropy on x + delta; delta descends the method's own loss
while theta is frozen in evaluation mode. `MinMin` is the usual member of the family and needs a loss; `Alternating` is
for methods that transform pictures in another way, or train the surrogate on another loss.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue import nets
from miue.attacks.alternation import Alternation
from miue.attacks.shape import Shaped, check_momentum
from miue.core.errors import UserError
from miue.core.method import Kept, at_least
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Pieces
from miue.nets.base import Net
from miue.training import perturb
from miue.training.loop import check_steps
from miue.training.views import augmented, flip

View = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Alternating(Shaped):
    """Hyper-parameters that all methods of the family share. A method adds its own, and what theta and delta descend.

    per: one delta a picture ("image") or one a class ("class"). cells: side of the noise grid; 0 is pixel-wise.
    step_size, step_size_end: signed step in grey levels, linear from the first to the last epoch (end 0: constant).
    batch, noise_batch: pictures per step of theta and of delta, over all processes. companions: pictures of one class
    that come together in a noise batch; 0 chooses 8 where classes are so many that a random batch would hold fewer,
    else a plain shuffle. surrogate_steps: batches of theta in an epoch, at most a pass over the set, which is the
    default; 0: theta is never trained. restarts: how often theta begins anew, at equal distances and with the first
    rate, so that delta meets young surrogates, too; never in the pass of the colour part, and at most every epoch.
    views: draws of what the surrogate sees whose gradients are summed for one step of delta. start: where delta begins;
    "anew": uniform, and again in every epoch. stop: no further epoch once the surrogate has this accuracy on the
    protected pictures; 0: never. noise_momentum: share of the earlier directions that a step of delta keeps (the decay
    factor of Dong et al., CVPR 2018); 0: the plain signed step. colour_epochs: rounds of the pass that makes the colour
    part; 0: as many as `epochs`. epochs_at: pictures for which `epochs` and `colour_epochs` are stated; n > epochs_at
    pictures get epochs sqrt(epochs_at / n); 0: every set gets `epochs`. What `Shaped` adds holds for theta and delta
    alike.
    """

    surrogate: str = "resnet18"
    epochs: int = 100
    steps: int = 10
    step_size: float = 0.2
    step_size_end: float = 0.0
    batch: int = 128
    noise_batch: int = 512
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    per: Literal["image", "class"] = "image"
    cells: int = 0
    companions: int = 0
    surrogate_steps: int | None = None
    restarts: int = 0
    views: int = 1
    start: Literal["zero", "uniform", "anew"] = "zero"
    stop: float = 0.0
    noise_momentum: float = 0.0
    colour_epochs: int = 0
    epochs_at: int = 0

    together: ClassVar[bool] = False  # whether the loss of delta compares the pictures of a batch

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "surrogate", nets.named(self.surrogate))
        at_least(self, epochs=1, steps=1, batch=2, noise_batch=2, cells=0, companions=0, views=1)
        at_least(self, colour_epochs=0, epochs_at=0, weight_decay=0, step_size_end=0, restarts=0)
        check_steps(self.step_size, self.lr, self.momentum)
        check_momentum(self.noise_momentum)
        if not 0 <= self.stop <= 1:
            raise UserError(f"stop={self.stop:g} is no accuracy between 0 (never) and 1")
        if self.surrogate_steps is not None and self.surrogate_steps < 0:
            raise UserError(f"surrogate_steps={self.surrogate_steps} is negative; None is a pass over the set, 0 none")

    def base(self, x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
        """The pictures that delta is added to, drawn once a batch: all steps on delta see the same ones."""
        return x

    @abstractmethod
    def view(self, generator: torch.Generator) -> View:
        """The transformation of x + delta for the surrogate, drawn anew for every step."""

    @abstractmethod
    def learn(
        self, net: Any, x: Float[Tensor, "v c h w"], y: Int[Tensor, "b"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Loss that theta descends, on one batch as the surrogate sees it."""

    @abstractmethod
    def move(
        self,
        net: Any,
        x: Float[Tensor, "v c h w"],
        y: Int[Tensor, "b"],
        delta: Float[Tensor, "b c h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Loss that delta descends, from one batch as the surrogate sees it and from delta itself; theta is frozen."""

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Pieces:
        """Delta of the whole set. Resumes after the last finished epoch if `run` keeps state."""
        perturb.check_cells(self.cells, max(data.shape[1:]))
        return self._crafted(data, budget, run, None)

    def craft_more(self, new: ImageSet, kept: Kept, budget: Budget, run: Run) -> Pieces:
        """Delta of later pictures: the same steps against the kept surrogates, which stay as they are."""
        return self._crafted(new, budget, run, kept)

    def _crafted(self, data: ImageSet, budget: Budget, run: Run, kept: Kept | None) -> Pieces:
        turns = Alternation(self, data, budget, run, kept)
        turns.run_all()
        if self.coloured(data.shape[0]):
            turns = Alternation(self, data, budget, run, kept, turns.delta)
            turns.run_all()
        return turns.finished()

    def trace(self, budget: Budget, run: Run) -> list[tuple[float, float, float]]:
        """The three numbers of `_trace.traced` after every epoch: how the surrogate's features changed.

        Read from the state that `run` keeps for its seed; empty if there is none for this attack and budget.
        """
        saved = run.load("surrogate", plan=repr(self), budget=repr(budget), seed=run.seed)  # for any data
        return [(same, others, within) for same, others, within in saved[1].get("generation", ())] if saved else []

    def rounds(self, count: int) -> tuple[int, int]:
        """Epochs of a set of so many pictures, and those of the pass that makes its colour part."""
        share = min((self.epochs_at / max(count, 1)) ** 0.5, 1.0) if self.epochs_at else 1.0
        return ceil(share * self.epochs), ceil(share * (self.colour_epochs or self.epochs))

    def trials(self, count: int, later: bool = False) -> list[tuple[Alternating, float]]:
        """Short versions with factors; the sum of factor x seconds forecasts the seconds of a set of `count` pictures.

        later: of pictures that are added to it; where deltas start anew, their last round alone is made.
        """
        (rounds, coloured), short = self.rounds(count), replace(self, epochs=1, restarts=0)
        tied, rounds = replace(short, colour=0.0), 1 if later and self.start == "anew" else rounds
        if not self.colour:
            return [(tied, float(rounds))]
        coloured = min(coloured, rounds)
        return [(tied, float(rounds - coloured)), (replace(short, colour_epochs=1), float(coloured))]

    def kept_bytes(self, count: int, shape: tuple[int, int, int], classes: int, processes: int) -> int:
        """Largest number of bytes that a run with `count` pictures keeps on disk, while a checkpoint is replaced."""
        net, passes = nets.tried(self.surrogate, shape, classes), len(self.passes(shape[0]))
        state = processes * net * (2 if self.momentum else 1)
        deltas = 2 * sum(self.delta_bytes(count, shape, classes, processes))  # those of two epochs
        checkpoints = (passes + (1 if processes == 1 else 2)) * state + passes * net
        return checkpoints + self.means_bytes(shape, classes) + deltas


@dataclass(frozen=True, kw_only=True)
class Classifying(Alternating):
    """The surrogate classifies; delta descends a `loss` of the pictures alone. A method adds `view` and `loss`."""

    @abstractmethod
    def loss(self, net: Net, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        """Loss that delta descends, on one batch of protected, augmented pictures; the network is frozen."""

    def learn(
        self, net: Any, x: Float[Tensor, "v c h w"], y: Int[Tensor, "b"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        return F.cross_entropy(net(x), y)

    def move(
        self,
        net: Any,
        x: Float[Tensor, "v c h w"],
        y: Int[Tensor, "b"],
        delta: Float[Tensor, "b c h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        return self.loss(net, x, y)


@dataclass(frozen=True, kw_only=True)
class MinMin(Classifying):
    """The usual member. A method adds a `loss`.

    augment: what the surrogate sees of x + delta, drawn anew for every step; "flip-first" flips x once a batch and adds
    an unflipped delta, as the authors' released code does.
    """

    augment: Literal["none", "flip", "flip-crop", "flip-first"] = "flip-crop"

    def base(self, x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
        return flip(x, generator) if self.augment == "flip-first" else x

    def view(self, generator: torch.Generator) -> View:
        how = "none" if self.augment == "flip-first" else self.augment
        return lambda s: augmented(how, s, generator)
