"""The driver of attacks on a trained surrogate: train it once on clean pictures, then signed steps on every delta.

Training is SGD with a cosine rate. Both parts resume: training after its last finished epoch, crafting after its last
finished batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from miue import nets
from miue.attacks.shape import Shape, Shaped, check_momentum
from miue.attacks.surrogate import restored, trained
from miue.core.errors import UserError
from miue.core.method import Kept, at_least
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Pieces, stretch
from miue.training import perturb
from miue.training.batches import Batches
from miue.training.loop import LAYOUT, check_steps
from miue.training.mixture import Part, look
from miue.training.rows import Rows
from miue.training.views import Augment, augmented

Aim = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x + delta as the surrogate sees it, y, delta) -> loss that delta descends."""

PROBE = 4  # steps on delta by which one trial of a forecast is longer than the other


@dataclass(frozen=True, kw_only=True)
class Crafted(Shaped):
    """Hyper-parameters that these methods share. A method adds its own, its `network` and its `aim`.

    epochs, batch, lr, momentum, weight_decay: training of the surrogate. adversary: radius in grey levels of the PGD
    with 10 steps that it is trained against; 0 trains plainly. checkpoints: networks kept on the way, evenly spaced,
    the last one included. steps, step_size: signed steps on delta, in grey levels. noise_batch: pictures per step, over
    all processes. start: where delta begins. augment: what networks see in both parts, drawn anew for every step.
    train_augment: the same for the training of the surrogate alone; "same": as `augment`. cells: side of the noise
    grid; 0 is pixel-wise. noise_momentum: share of the earlier directions that a step of delta keeps; 0: none. What
    `Shaped` adds holds for both parts, too; a class direction is that of the class in a noise batch.
    """

    epochs: int = 40
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    adversary: float = 0.0
    checkpoints: int = 1
    steps: int = 100
    step_size: float = 0.8
    noise_batch: int = 512
    start: Literal["zero", "uniform", "gaussian"] = "zero"
    augment: Augment = "flip-crop"
    train_augment: Literal["same", "none", "flip", "flip-crop"] = "same"
    cells: int = 0
    noise_momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, epochs=1, steps=1, batch=2, noise_batch=1, adversary=0, weight_decay=0, cells=0)
        check_steps(self.step_size, self.lr, self.momentum)
        check_momentum(self.noise_momentum)
        if not 1 <= self.checkpoints <= self.epochs:
            raise UserError(f"checkpoints={self.checkpoints} is not between 1 and the {self.epochs} epochs of training")

    @property
    def against(self) -> float:
        return self.adversary

    @abstractmethod
    def network(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """The surrogate with random weights."""

    def known(self, net: Any, batches: Batches, run: Run) -> dict[str, Tensor]:
        """The facts of the clean pictures that the aim needs, to be kept. batches: pictures as `net` knows them."""
        return {}

    @abstractmethod
    def aim(self, net: Any, known: Mapping[str, Tensor], classes: int) -> Aim:
        """Loss that delta descends against this trained, frozen network."""

    def reached(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], delta: Float[Tensor, "b c h w"]
    ) -> tuple[str, Bool[Tensor, "b"]] | None:
        """The aim of protected pictures on a surrogate, as "are taken for ...", and which ones reach it.

        None for a method that aims at no class.
        """
        return None

    def trials(self, count: int, later: bool = False) -> list[tuple[Crafted, float]]:
        """Two short versions with factors; the sum of factor x seconds forecasts the seconds of this one.

        later: of pictures that are added, for which no surrogate is trained.
        """
        plain = replace(self, steps=1) if later else replace(self, epochs=self.checkpoints, steps=1)
        steps = (self.steps - 1) / PROBE
        return [(plain, self.epochs / plain.epochs - steps), (replace(plain, steps=1 + PROBE), steps)]

    def kept_bytes(self, count: int, shape: tuple[int, int, int], classes: int, processes: int) -> int:
        """Largest number of bytes that a run with `count` pictures keeps on disk, while its state is replaced."""
        with torch.random.fork_rng(devices=[]):
            net = nets.weight(self.network(shape, classes))
        state, passes = 2 if self.momentum else 1, len(self.passes(shape[0]))
        deltas = sum(self.delta_bytes(count, shape, classes, processes))
        return net * (state * (passes + 1) + self.checkpoints * passes) + self.means_bytes(shape, classes) + deltas

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Pieces:
        """Delta of the whole set, one row per picture."""
        return self._passes(data, budget, run, None)

    def craft_more(self, new: ImageSet, kept: Kept, budget: Budget, run: Run) -> Pieces:
        """Delta of later pictures: the same steps against the kept surrogates."""
        return self._passes(new, budget, run, kept)

    def _passes(self, data: ImageSet, budget: Budget, run: Run, kept: Kept | None) -> Pieces:
        perturb.check_cells(self.cells, max(data.shape[1:]))
        batches = Batches(data, run, run.mine(len(data)))
        form = Shape(self, data, budget, run, batches.rows, False, kept)
        deltas = self._pass(form, batches, None, kept)
        if self.coloured(data.shape[0]):
            form = Shape(self, data, budget, run, batches.rows, True, kept)
            deltas = self._pass(form, batches, deltas, kept)
        return form.whole(deltas)

    def _pass(self, form: Shape, batches: Batches, tied: Rows | None, kept: Kept | None) -> Rows:
        """The deltas of this process by one pass: a surrogate, then all deltas. tied: those of the first pass."""
        data, run, suffix = batches.data, form.run, form.suffix
        identity = self.identity(data, form.budget, run)
        shape = (len(batches.rows), form.count, *self.grid(data.shape))
        folder = run.overflow(sum(self.delta_bytes(len(batches.rows), data.shape, len(data.classes), 1)))
        deltas, packed = Rows(run, shape, "fixed", form.budget.levels, folder), {**identity, "layout": LAYOUT}
        size = max(self.noise_batch // run.world, 1)
        rows, most = torch.arange(len(deltas)), -(-len(data) // run.world)
        # all processes take the same number of steps, because they sum the gradients of classes in each
        parts = rows.split(size) if run.world == 1 else rows.tensor_split(-(-most // size))
        checkpoints = restored(self, data, form, kept.state) if kept else trained(self, batches, form, identity)
        looking = [(nets.frozen(net), known) for net, known in checkpoints]
        aims = [(net, self.aim(net, known, len(data.classes))) for net, known in looking]
        progress = run.progress(f"{type(self).__name__} on {data.name}, noise{suffix}", len(parts))
        with run.threads_for(*(net for net, _ in aims)), progress as tick:
            for number, own in enumerate(parts):
                slot = f"noise{suffix}-{run.rank}of{run.world}-{number}"
                saved = run.load(slot, **packed)
                if run.least(saved is not None) and saved:
                    deltas.pack(own, run.put(saved[0]["delta"]))
                else:
                    first = None if tied is None else tied[own][:, :1]
                    deltas[own] = _deltas(self, aims, batches, (number, batches.rows[own]), form, first)
                    run.save(slot, {"delta": deltas.packed(own)}, packed)
                tick()
        if self.balanced:
            form.balance(deltas)
        form.save_means(deltas, identity)
        return deltas


@dataclass(frozen=True, kw_only=True)
class OnNet(Crafted):
    """Base of methods whose surrogate is chosen by name."""

    surrogate: str = "resnet18"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "surrogate", nets.named(self.surrogate))

    def network(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return nets.build(self.surrogate, shape, classes)


def _deltas(
    plan: Crafted,
    aims: Sequence[tuple[Any, Aim]],
    batches: Batches,
    part: tuple[int, Tensor],
    form: Shape,
    tied: Tensor | None,
) -> Float[Tensor, "b p g g2"]:
    """Deltas of one batch, by signed steps that stay inside the budget and the range of pictures."""
    (number, rows), run = part, form.run
    x, y = batches.take(rows), run.put(batches.data.labels[rows])
    generator, order = (run.rng(*form.names(name, "noise", number), run.rank) for name in ("view", "checkpoints"))
    delta = _start(plan.start, (len(rows), form.count, *plan.grid(batches.data.shape)), form, generator)
    if tied is not None:
        delta[:, :1] = run.put(tied)
    velocity = torch.zeros_like(delta)
    for _ in range(plan.steps):
        gradient = _direction(plan, aims, x, y, delta, form, generator, order)
        if plan.class_gradient:
            gradient = form.shared(rows, gradient, y)
        if plan.noise_momentum:
            gradient = velocity = plan.noise_momentum * velocity + perturb.direction(gradient)
        delta = _stepped(plan, delta, gradient, x, form)
    return delta


def _stepped(plan: Crafted, delta: Tensor, gradient: Tensor, x: Tensor, form: Shape) -> Tensor:
    """One signed step. Only a pixel-wise delta can be clipped to the range of its picture."""
    moved = form.moved(delta, gradient, plan.step_size / 255)
    return moved if plan.cells else form.keep_in_range(moved, x)


def _start(how: str, shape: tuple[int, ...], form: Shape, generator: torch.Generator) -> Tensor:
    """Zeros, uniform in the ball, or a Gaussian of the budget's size cut off at the budget."""
    if how == "uniform":
        return form.random_start(shape, generator)
    if how == "gaussian":
        unit = form.budget.unit
        draw = (torch.randn(shape, generator=generator) * unit).clamp_(-unit, unit)
        return form.run.put(draw) * form.share
    return form.run.put(torch.zeros(shape))


def loss_of(
    plan: Crafted,
    net: Any,
    aim: Aim,
    mixture: tuple[Part, ...],
    x: Float[Tensor, "b c h w"],
    y: Int[Tensor, "b"],
    change: Float[Tensor, "b c h w"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Loss that delta descends against one surrogate, through one view of x + change."""
    seen = augmented(plan.augment, perturb.add(x, change), generator)
    return aim(look(mixture, net, seen, y, generator), y, change)


def _direction(
    plan: Crafted,
    aims: Sequence[tuple[Any, Aim]],
    x: Tensor,
    y: Tensor,
    delta: Tensor,
    form: Shape,
    generator: torch.Generator,
    order: torch.Generator,
) -> Tensor:
    """The gradient of the one aim; for several, the sum of variance-reduced gradients along a walk over all of them.

    With g_i the gradient of aim i at delta and g their mean, the walk starts at delta, visits the aims in random order,
    adds grad_i(here) - g_i + g to the sum, and takes a signed step against the sum (SVRG). All of them see one view.
    """
    view = generator.get_state()

    def gradient(against: tuple[Any, Aim], at: Tensor) -> Tensor:
        net, aim = against
        generator.set_state(view)
        leaf = at.detach().requires_grad_()
        value = loss_of(plan, net, aim, form.mixture, x, y, stretch(form.joined(leaf), *x.shape[2:]), generator)
        return torch.autograd.grad(value, leaf)[0]

    each = [gradient(against, delta) for against in aims]
    if len(each) == 1:
        return each[0]
    mean, here, total = torch.stack(each).mean(0), delta, torch.zeros_like(delta)
    for i in torch.randperm(len(each), generator=order).tolist():
        total = total + gradient(aims[i], here) - each[i] + mean
        here = _stepped(plan, here, total, x, form)
    return total
