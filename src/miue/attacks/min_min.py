"""The driver of the min-min family: an epoch of surrogate training, then K signed steps on every delta, repeated.

min over theta, min over delta:  theta descends the cross-entropy on x + delta; delta descends the method's own loss
while theta is frozen in evaluation mode. `MinMin` is the usual member of the family and needs a loss; `Alternating` is
for methods that transform pictures in another way, or train the surrogate on another loss.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue import nets
from miue.attacks._trace import traced, watched
from miue.attacks.beside import Beside
from miue.attacks.deltas import Deltas
from miue.attacks.shape import Shape, Shaped, check_momentum
from miue.core.errors import UserError
from miue.core.method import Kept, at_least
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.nets.base import Net
from miue.training import perturb
from miue.training.batches import Batch, Batches, prepare
from miue.training.loop import Training, check_steps, cosines
from miue.training.mixture import look
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

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Float[Tensor, "k c g g2"]:
        """Delta of the whole set. Resumes after the last finished epoch if `run` keeps state."""
        perturb.check_cells(self.cells, max(data.shape[1:]))
        return self._crafted(data, budget, run, None)

    def craft_more(self, new: ImageSet, kept: Kept, budget: Budget, run: Run) -> Float[Tensor, "n c g g2"]:
        """Delta of later pictures: the same steps against the kept surrogates, which stay as they are."""
        return self._crafted(new, budget, run, kept)

    def _crafted(self, data: ImageSet, budget: Budget, run: Run, kept: Kept | None) -> Float[Tensor, "k c g g2"]:
        turns = _Alternation(self, data, budget, run, kept)
        turns.run_all()
        if self.coloured(data.shape[0]):
            turns = _Alternation(self, data, budget, run, kept, turns.deltas.planes)
            turns.run_all()
        return turns.deltas.finished()

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
        (c, h, w), net = shape, nets.tried(self.surrogate, shape, classes)
        rows = processes * classes if self.per == "class" else count
        plane = 4 * rows * (self.cells**2 or h * w) * (2 if self.noise_momentum else 1)
        passes = [self.planes(c)] + [self.planes(c, True)] * self.coloured(c)
        states = [processes * net * (2 if self.momentum else 1) + planes * plane for planes in passes]
        means = sum(self.means_bytes(planes, classes, self.cells**2 or h * w) for planes in passes)
        return sum(states[:-1]) + (2 if processes == 1 else 3) * states[-1] + len(passes) * net + means


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


class _Alternation:
    """State of one pass of the driver: the surrogate, the deltas, and the progress.

    kept: state of an earlier set that these pictures are added to; its surrogate stays as it is. tied: deltas of a
    first pass that stay, while this one makes the colour part.
    """

    def __init__(
        self,
        plan: Alternating,
        data: ImageSet,
        budget: Budget,
        run: Run,
        kept: Kept | None = None,
        tied: Tensor | None = None,
    ) -> None:
        self.plan, self.data, self.budget, self.run = plan, data, budget, run
        mine = run.mine(len(data))
        self.batches = Batches(data, run, mine)
        self.form = Shape(plan, data, budget, run, mine, tied is not None, kept)
        self.epochs = plan.rounds(len(data))[self.form.colour]
        lives = 1 if self.form.colour else plan.restarts + 1
        # epochs at which a surrogate begins, and the last one ends
        self.begins = [-(-life * self.epochs // lives) for life in range(lives + 1)]
        self.kept, self.beside = kept, Beside(plan.noise_batch, kept, run) if kept and plan.together else None
        self.net = self._fresh()
        if kept:
            weights, facts = kept.state(f"surrogate{self.form.suffix}")
            self.net.load_state_dict(weights)
            self.epochs = facts["epochs"]  # as many as the first pictures had
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay
        )
        wanted, passes = 0 if kept else plan.surrogate_steps, self.batches.count(plan.batch)
        self.count = passes if wanted is None else min(wanted, passes)
        per_class = plan.noise_batch / run.world / max(len(data.classes), 1)
        self.group = plan.companions or (8 if per_class < 8 else 1)
        self.watched = watched(data, mine, run)
        self.identity = plan.identity(data, budget, run)
        text = f"{type(plan).__name__} on {data.name}{', colour' * self.form.colour}"
        slot = f"checkpoint{self.form.suffix}"
        self.training = Training(self.net, self.optimizer, run, text, slot, self.identity, own=True)
        if kept and plan.start == "anew":  # the last round alone counts
            self.training.done = max(self.training.done, self.epochs - 1)
        self.deltas = Deltas(plan, data, self.form, run, tied, self.training.tensors)
        self.generation: list[tuple[float, float, float]] = self.training.facts.setdefault("generation", [])

    def run_all(self) -> None:
        plan, run, rate = self.plan, self.run, cosines(self.plan.lr, self.begins, floor=1e-6)
        moves = self.batches.count(plan.noise_batch)
        for epoch in self.training.epochs(self.epochs, self.count, lambda step: rate(step // self.count), moves):
            if not self.kept:
                if plan.stop and epoch and self._accuracy(epoch) >= plan.stop:
                    break
                if epoch and epoch in self.begins:
                    self.net.load_state_dict(self._fresh(epoch).state_dict())
                    self.optimizer.state.clear()
                self._train_surrogate(epoch)
            self._move_deltas(epoch)
            self._trace()
            self.training.tensors = self.deltas.tensors
        if not self.kept:
            facts = {**self.identity, "generation": self.generation, "epochs": self.training.done}
            if run.rank == 0:  # the same in every process
                run.save(f"surrogate{self.form.suffix}", self.net.state_dict(), facts)
            self.form.save_means(self.deltas.planes, self.identity)

    def _fresh(self, *names: object) -> Any:
        """A surrogate that has learned nothing."""
        with self.run.seeded(*self.form.names("surrogate", *names)):
            net = self.run.place(nets.build(self.plan.surrogate, self.data.shape, len(self.data.classes)))
        prepare(net, self.batches, self.run)
        return net

    def _train_surrogate(self, epoch: int) -> None:
        """Train the surrogate for one epoch on x + delta."""
        plan, run = self.plan, self.run
        generator = run.rng(*self.form.names("view", "train", epoch), run.rank)

        def loss(batch: Batch) -> Float[Tensor, ""]:
            index, x, y = batch
            base, view = plan.base(x, generator), plan.view(generator)
            with torch.no_grad():
                seen = view(perturb.add(base, self.deltas.of(index)))
            return plan.learn(self.net, look(self.form.mixture, self.net, seen, y, generator), y, generator)

        self.net.train()
        stream = islice(self.batches.shuffled(plan.batch, *self.form.names("train", epoch)), self.count)
        self.training.learn(loss, stream, *self.form.names("layers", epoch), run.rank)

    def _move_deltas(self, epoch: int) -> None:
        """Take K signed steps on every delta, warm start, against the frozen surrogate in evaluation mode."""
        plan, run = self.plan, self.run
        share = epoch / max(self.epochs, 1)
        step = (plan.step_size + share * ((plan.step_size_end or plan.step_size) - plan.step_size)) / 255
        generator = run.rng(*self.form.names("view", "noise", epoch), run.rank)
        self.deltas.begin(epoch)
        self.net.eval().requires_grad_(False)
        for index, x, y in self.batches.shuffled(plan.noise_batch, *self.form.names("noise", epoch), group=self.group):
            rows, inverse = self.deltas.rows(index)
            others = self.beside and self.beside.draw(y, generator)
            if others:
                x, y = torch.cat([x, others.x]), torch.cat([y, others.y])
            base = plan.base(x, generator)
            for _ in range(plan.steps):
                leaf = self.deltas.planes[run.put(rows)].requires_grad_()
                gradient = torch.zeros_like(leaf)
                for _ in range(plan.views):
                    delta = self.deltas.stretched(leaf, inverse)
                    delta = torch.cat([delta, others.delta]) if others else delta
                    seen = plan.view(generator)(perturb.add(base, delta))
                    seen = look(self.form.mixture, self.net, seen, y, generator)
                    value = plan.move(self.net, seen, y, delta, generator)
                    gradient += torch.autograd.grad(value, leaf)[0]
                self.deltas.move(index, rows, gradient, y[: len(index)], step, base[: len(index)])
            self.training.tick()
        self.deltas.balance()
        self.net.requires_grad_(True)

    def _accuracy(self, epoch: int) -> float:
        """Accuracy of the surrogate on all protected pictures, through its mixture but without augmentation."""
        self.net.eval()
        right = torch.zeros((), device=self.run.device)
        generator = self.run.rng(*self.form.names("view", "accuracy", epoch), self.run.rank)
        for index, x, y in self.batches.in_order(self.plan.noise_batch):
            seen = look(self.form.mixture, self.net, perturb.add(x, self.deltas.of(index)), y, generator)
            with torch.no_grad():  # an adversary in the mixture needs gradients
                right += (self.net(seen).argmax(1) == y).sum()
        return float(self.run.total(right)) / len(self.data)

    def _trace(self) -> None:
        """Record the surrogate's features of some protected pictures if state is kept; deltas do not depend on it.

        Not in the pass of the colour part, whose surrogate does not know pictures with luminance.
        """
        if self.run.keep is None or self.run.rank or self.form.colour or self.kept:
            return
        rows, see = self.watched, lambda rows: perturb.add(self.batches.take(rows), self.deltas.of(rows))
        self.generation.append(traced(self.net.eval(), see, rows, self.data.labels[rows]))
