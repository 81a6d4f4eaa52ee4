"""Attacks that watch their driver."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from miue.attacks import MinMin
from miue.core.run import Run

TINY: dict[str, Any] = {"surrogate": "small-cnn:width=4", "epochs": 2, "steps": 2, "step_size": 1.5}


@dataclass(frozen=True, kw_only=True)
class Watching(MinMin):
    """Descends `pull` of the pictures and remembers what it was given."""

    pull: Callable[[Any, Tensor, Tensor], Tensor] = lambda net, x, y: net.embed(x).square().sum()
    seen: list[dict[str, Any]] = field(default_factory=list, repr=False, hash=False, compare=False)

    def loss(self, net, x, y):
        state = net.state_dict()
        parts = b"".join(v.cpu().numpy().tobytes() for v in state.values())
        value = self.pull(net, x, y)
        self.seen.append(
            {
                "x": x.detach().clone(),
                "y": y.clone(),
                "value": value.item(),
                "weights": hashlib.sha256(parts).hexdigest(),
                "training": net.training,
                "learning": [p.requires_grad for p in net.parameters()],
                "gradients": [p.grad is not None and bool(p.grad.any()) for p in net.parameters()],
            }
        )
        return value


class Stopping(Run):
    """A run that is interrupted when its attack wants to begin an epoch, or after some of its ticks."""

    def __init__(self, keep, ticks: int, **options) -> None:
        super().__init__(seed=1, device_name="cpu", keep=keep, **options)
        self.ticks, self.done, self.first = ticks, 0, 0

    @contextmanager
    def progress(self, text: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        self.first = done

        def tick(note: str = "") -> None:
            if self.done == self.ticks:
                raise KeyboardInterrupt
            self.done += 1

        yield tick


def levels(delta: Tensor) -> list[int]:
    return sorted(torch.unique(delta).tolist())
