"""Common base of the neural lower bounds: a separable critic, early stopping, a value on held-out rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from miue.core.errors import UserError
from miue.core.method import at_least
from miue.core.run import Run
from miue.mi._features import paired, standardised
from miue.mi.estimate import Estimate
from miue.training.loop import descend

TOGETHER = 2048  # held-out pairs that are scored against each other


@dataclass(frozen=True, kw_only=True)
class Critic(ABC):
    """T(x, y) = f(x) . g(y), two small networks, trained to raise a lower bound of I(x; y).

    60 % of the rows train, 20 % decide when to stop, 20 % give the value. The untrained critic is a candidate, too. The
    value is not clipped: below 0 it is no bound. AdamW, at most `steps` steps.
    """

    any_width: ClassVar[bool] = True
    width: int = 128
    out: int = 32
    steps: int = 1000
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 1e-3
    patience: int = 8

    def __post_init__(self) -> None:
        at_least(self, width=1, out=1, steps=1, batch=4, patience=1)
        if not self.lr > 0 or not self.weight_decay >= 0:
            raise UserError(f"lr={self.lr:g}, weight_decay={self.weight_decay:g}: a positive rate, no negative decay")

    @abstractmethod
    def bound(self, scores: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
        """Lower bound in nats from scores of b pairs: [i, j] is T(x_i, y_j), with true pairs on the diagonal."""

    @abstractmethod
    def objective(self, scores: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
        """Objective that training maximises and early stopping watches."""

    @abstractmethod
    def ceiling(self, pairs: int) -> float:
        """Largest value that the bound can take with `pairs` held-out pairs."""

    @abstractmethod
    def notes(self, nats: float, ceiling: float) -> tuple[str, ...]:
        """Warnings about a value."""

    def __call__(
        self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], run: Run, labels: Int[Tensor, "n"] | None = None
    ) -> Estimate:
        x, y = paired(x, y, run, 40)
        x, y = standardised(x), standardised(y)
        order = torch.randperm(len(x), generator=run.rng("mi", "split"))
        train, stop, held = order.tensor_split([len(x) * 3 // 5, len(x) * 4 // 5])
        nets = self._trained(x, y, train, stop, run)
        nats = self._mean(self.bound, nets, x, y, held)
        ceiling = self.ceiling(-(-len(held) // _blocks(held)))
        notes = self.notes(nats, ceiling)
        return Estimate(
            nats, "lower bound", ceiling=ceiling, notes=("no lower bound: overfitted",) if nats < -0.05 else notes
        )

    def _trained(self, x: Tensor, y: Tensor, train: Tensor, stop: Tensor, run: Run) -> nn.ModuleList:
        with run.seeded("mi", "critic"):
            nets = nn.ModuleList(self._net(side.shape[1]) for side in (x, y)).double().to(run.exact_device)
        optimizer = torch.optim.AdamW(nets.parameters(), weight_decay=self.weight_decay)
        every = min(25, self.steps)
        best, best_weights, waited = self._mean(self.objective, nets, x, y, stop), _copy(nets), 0
        losses = descend(
            lambda at: -self.objective(_scores(nets, x[at], y[at])),
            self._stream(train, run),
            optimizer,
            lambda _: self.lr,
            run,
        )
        for step, _ in enumerate(losses, 1):
            if step % every:
                continue
            value, waited = self._mean(self.objective, nets, x, y, stop), waited + 1
            if value > best:
                best, best_weights, waited = value, _copy(nets), 0
            if waited == self.patience:
                break
        nets.load_state_dict(best_weights)
        return nets

    def _net(self, d: int) -> nn.Sequential:
        middle = nn.Linear(self.width, self.width)
        return nn.Sequential(nn.Linear(d, self.width), nn.ReLU(), middle, nn.ReLU(), nn.Linear(self.width, self.out))

    def _stream(self, train: Tensor, run: Run) -> Iterator[Tensor]:
        generator = run.rng("mi", "batches")
        for _ in range(self.steps):
            chosen = torch.randperm(len(train), generator=generator)[: self.batch]
            yield run.exact(train[chosen])

    @torch.no_grad()
    def _mean(self, of: Callable[[Tensor], Tensor], nets: nn.ModuleList, x: Tensor, y: Tensor, rows: Tensor) -> float:
        """Mean over blocks of held-out rows, weighted by their size."""
        blocks = rows.to(x.device).tensor_split(_blocks(rows))
        return sum(float(of(_scores(nets, x[at], y[at]))) * len(at) for at in blocks) / len(rows)


def _blocks(rows: Tensor) -> int:
    return -(-len(rows) // TOGETHER)


def _scores(nets: nn.ModuleList, x: Tensor, y: Tensor) -> Float[Tensor, "b b"]:
    return nets[0](x) @ nets[1](y).T


def _copy(nets: nn.ModuleList) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in nets.state_dict().items()}


def log_mean_exp_others(scores: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
    """log of the mean of exp(score) over all pairs off the diagonal."""
    b = len(scores)
    others = scores.masked_fill(torch.eye(b, dtype=torch.bool, device=scores.device), -torch.inf)
    return (
        others.flatten().logsumexp(0) - torch.tensor(float(b * (b - 1)), dtype=scores.dtype, device=scores.device).log()
    )


def variance_note(nats: float) -> tuple[str, ...]:
    """Warning for large values: bounds with a mean of exp(score) need exp(I) pairs (McAllester & Stratos 2020)."""
    return ("above 4 nats this bound has exponential variance",) if nats > 4 else ()
