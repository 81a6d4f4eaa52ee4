"""The only training loop of the package, accuracy, and the state of network and optimizer as plain tensors."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from miue.core.errors import UserError
from miue.core.files import digest, tensor_digest
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.training.batches import Batches
from miue.training.rows import Rows
from miue.training.views import six

log = logging.getLogger("miue")
HUGE = 1e6  # larger than any weight of a network that has learned
LAST_PULL = 0.23  # share of the way to the weights of the optimizer that slow weights go at the end of a training
LAYOUT = 3  # version of saved state; other versions are not read
B = TypeVar("B")


def descend(
    loss: Callable[[B], Float[Tensor, ""]],
    stream: Iterable[B],
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    run: Run,
    step: int = 0,
    clip: float = math.inf,
) -> Iterator[Float[Tensor, ""]]:
    """Take one optimizer step for each batch and yield its loss, still on the device.

    Gradients are averaged over processes. rate(step) is the learning rate, so that resuming at a step needs no
    scheduler state; a group of parameters with a "factor" learns at that many times the rate. clip: largest L2 norm of
    the gradient of all parameters together.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, batch in enumerate(stream, step):
        for group in optimizer.param_groups:
            group["lr"] = rate(number) * group.get("factor", 1)
        optimizer.zero_grad(set_to_none=True)
        value = loss(batch)
        value.backward()
        run.average(p.grad for p in parameters)
        if clip < math.inf:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        yield value.detach()


def cosine(peak: float, steps: int, warmup: float = 0.0, floor: float = 0.0) -> Callable[[int], float]:
    """A rate by step: a linear rise over the share `warmup` of all steps, then a half cosine from `peak` to `floor`."""
    rise = int(steps * warmup)

    def rate(step: int) -> float:
        if step < rise:
            return peak * (step + 1) / (rise + 1)
        done = (step - rise) / max(steps - rise, 1)
        return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))

    return rate


def cosines(peak: float, begins: Sequence[int], floor: float = 0.0) -> Callable[[int], float]:
    """A rate by step: one half cosine after the other, between the steps `begins`; the last of them is the end."""

    def rate(step: int) -> float:
        part = bisect_right(begins, step) - 1
        return cosine(peak, begins[part + 1] - begins[part], floor=floor)(step - begins[part])

    return rate


def triangle(peak: float, steps: int, warmup: float, first: float = 0.2, last: float = 0.07) -> Callable[[int], float]:
    """A rate by step: linear from first * peak to peak over the share `warmup` of all steps, then to last * peak.

    The defaults are those of airbench (Jordan, arXiv 2404.00498).
    """
    top = warmup * steps

    def rate(step: int) -> float:
        if step < top:
            return peak * (first + (1 - first) * step / top)
        return peak * (1 - (1 - last) * (step - top) / (steps - top))

    return rate


@dataclass
class Lookahead:
    """Weights that follow those of the optimizer at a distance, and pull them back every few steps.

    Every `every` steps, and at the end of an epoch: slow <- slow + (1 - keep) (fast - slow), then fast <- slow, for
    weights and buffers. keep = (1 - LAST_PULL) done^3, done: the share of all steps that is over. Between epochs slow
    and fast weights are the same, so that nothing has to be saved. Source: Zhang et al., NeurIPS 2019; `keep` follows
    airbench (Jordan, arXiv 2404.00498).
    """

    net: nn.Module
    every: int
    total: int
    """Steps of the whole training."""

    def __post_init__(self) -> None:
        self.slow = [value.clone() for value in self._fast()]

    def _fast(self) -> list[Tensor]:
        return [value for value in self.net.state_dict().values() if value.is_floating_point()]

    @torch.no_grad()
    def follow(self, taken: int, end: bool) -> None:
        """Pull the weights back if it is time. taken: steps of the whole training so far; end: of an epoch."""
        if end or taken % self.every == 0:
            keep = (1 - LAST_PULL) * (taken / self.total) ** 3
            for slow, fast in zip(self.slow, self._fast(), strict=True):
                fast.copy_(slow.lerp_(fast, 1 - keep))


def accuracy(net: Any, pictures: ImageSet | Batches, run: Run, size: int = 512, crops: bool = False) -> float:
    """Share of pictures that the network classifies correctly. Leaves it in evaluation mode.

    crops: whether logits are means over six views of a picture.
    """
    right = correct(net, pictures, run, size, crops)
    return right.sum().item() / len(right)


@torch.no_grad()
def correct(
    net: Any, pictures: ImageSet | Batches, run: Run, size: int = 512, crops: bool = False
) -> Bool[Tensor, "n"]:
    """True for each picture that the network classifies correctly; arguments of `accuracy`."""
    batches = pictures if isinstance(pictures, Batches) else Batches(pictures, run)
    net.eval()
    right = []
    for _, x, y in batches.in_order(size):
        logits = torch.stack([share * net(view) for share, view in six(x)]).sum(0) if crops else net(x)
        right.append(logits.argmax(1) == y)
    return torch.cat(right).cpu()


def state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers and optimizer moments under flat names."""
    moments = optimizer.state_dict()["state"]
    flat = {f"moment.{i}.{k}": v for i, s in moments.items() for k, v in s.items() if isinstance(v, Tensor)}
    return {f"net.{k}": v for k, v in net.state_dict().items()} | flat


def restore(net: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load tensors from `state` into a network and its optimizer."""
    net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("moment."):
            _, index, key = name.split(".", 2)
            moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def check_steps(step: float | int, lr: float | int, momentum: float | int) -> None:
    """Raise UserError if the step of the noise, or rate or momentum of the surrogate's SGD, is out of range."""
    if not (step > 0 and lr > 0):
        raise UserError(f"step_size={step:g}, lr={lr:g}: both must be positive")
    if not 0 <= momentum < 1:
        raise UserError(f"momentum={momentum:g} is not between 0 and 1")


def diverged(net: nn.Module) -> bool:
    """True if weights are NaN or huge, so that results with this network would be meaningless."""
    return not all((p.abs() < HUGE).all() for p in net.parameters())


def weights_digest(net: nn.Module) -> str:
    """A digest of the weights and buffers of a network."""
    return digest(*((name, tensor_digest(value)) for name, value in net.state_dict().items()))


@dataclass
class Training:
    """A network in training, with progress, seeds for random layers, averaged buffers, divergence checks, saved state.

        training = Training(net, optimizer, run, "SimCLR on shapes", "simclr", identity)
        for epoch in training.epochs(total, steps):
            training.learn(loss, stream(epoch))

    State that `run` saved under this name and identity is restored at once, and `epochs` continues after the last
    finished epoch.
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    run: Run
    text: str
    """Name of the training in messages."""
    name: str
    """Name of the saved state."""
    identity: Mapping[str, Any]
    """Data and settings that saved state must match."""
    own: bool = False
    """True if every process has its own state. Else all have the same, and process 0 saves it."""
    slow: int = 0
    """Steps between pulls of `Lookahead`; 0: none."""
    rows: Mapping[str, Rows] = field(default_factory=dict)
    """Deltas to save with every epoch, each in a file beside the state."""
    tensors: dict[str, Tensor] = field(init=False, default_factory=dict)
    """More tensors to save with every epoch; the caller sets them."""
    facts: dict[str, Any] = field(init=False, default_factory=dict)
    """More values to save with every epoch; the caller sets them."""
    done: int = field(init=False)
    """Number of finished epochs."""
    tick: Callable[..., None] = field(init=False)
    """Advances the progress, inside `epochs`."""

    def __post_init__(self) -> None:
        self.identity = {**self.identity, "layout": LAYOUT}
        slots = {self._slot(0), self._slot(1)}
        states = [s for slot in slots if (s := self.run.load(slot, **self.identity)) and self._has_rows(s[1]["epoch"])]
        self.done = self.run.least(max((meta["epoch"] for _, meta in states), default=0))
        if not self.run.least(any(meta["epoch"] == self.done for _, meta in states)):
            self.done = 0  # a process has no state of the epoch that all have reached
        for tensors, meta in states:
            if meta["epoch"] == self.done:
                restore(self.net, self.optimizer, tensors)
                more = {k.removeprefix("more."): v for k, v in tensors.items() if k.startswith("more.")}
                for path, rows in self._rows_files(self.done):
                    rows.load(path)
                self.tensors, self.facts = {k: self.run.put(v) for k, v in more.items()}, meta["facts"]
                log.info("%s: resumed after epoch %d", self.text, self.done)

    def epochs(
        self, total: int, steps: int, rate: Callable[[int], float] | None = None, more: int = 0
    ) -> Iterator[int]:
        """Yield the numbers of the remaining epochs of `total`, from 0. State is saved after each epoch.

        steps: batches in an epoch. rate: learning rate by step; None is a half cosine from the optimizer's rate to 0.
        more: ticks in an epoch besides its batches.
        """
        self._steps, self._total, ticks = steps, total * steps, steps + more
        self._rate = rate or cosine(self._peak, self._total)
        shown = self.run.progress(self.text, total * ticks, self.done * ticks)
        with self.run.threads_for(self.net), shown as self.tick:
            for epoch in range(self.done, total):
                yield epoch
                self.done = epoch + 1
                if self.own or self.run.rank == 0:
                    tensors = state(self.net, self.optimizer) | {f"more.{k}": v for k, v in self.tensors.items()}
                    meta = {**self.identity, "epoch": self.done, "facts": self.facts}
                    for path, rows in self._rows_files(self.done):
                        rows.save(path, self._mark(self.done))
                    self.run.save(self._slot(epoch), tensors, meta)

    def learn(
        self, loss: Callable[[B], Float[Tensor, ""]], stream: Iterable[B], *seeds: object, clip: float = math.inf
    ) -> None:
        """Take one step for each batch, then average buffers over processes. Raises UserError if the weights diverge.

        seeds: seed names for random layers; by default the name and the epoch. clip: as for `descend`.
        """
        first, slow = self.done * self._steps, Lookahead(self.net, self.slow, self._total) if self.slow else None
        with self.run.seeded(*(seeds or (self.name, "layers", self.done))):
            losses = descend(loss, stream, self.optimizer, self._rate, self.run, first, clip)
            for taken, _ in enumerate(losses, 1):
                if slow:
                    slow.follow(first + taken, taken == self._steps)
                self.tick()
        self.run.average(self.net.buffers())
        if diverged(self.net):
            raise UserError(
                f"{self.text}: the training of the network diverged in epoch {self.done + 1}, its weights are no "
                f"numbers or huge; a smaller lr than {self._peak:g} helps"
            )

    @property
    def _peak(self) -> float:
        return self.optimizer.defaults["lr"]

    def _rows_files(self, epoch: int) -> list[tuple[Path, Rows]]:
        """Where rows lie after so many epochs: two files in turn, so that the state of the last epoch keeps its own."""
        run = self.run
        if run.keep is None:
            return []
        end = f"{run.rank}of{run.world}-{epoch % 2}.rows"
        return [(run.keep / f"{self.name}-{name}-{end}", rows) for name, rows in self.rows.items()]

    def _has_rows(self, epoch: int) -> bool:
        """Return True if all rows of a saved state are there."""
        return all(rows.saved(path, self._mark(epoch)) for path, rows in self._rows_files(epoch))

    def _mark(self, epoch: int) -> str:
        return digest(sorted(self.identity.items()), epoch)

    def _slot(self, epoch: int) -> str:
        """Name of the saved state of an epoch.

        There is one for all processes, or two for each, used in turn, since processes may be killed an epoch apart.
        """
        run = self.run
        return f"{self.name}-{run.rank}of{run.world}-{epoch % 2}" if self.own and run.world > 1 else self.name
