"""Float batches on the run's device from an ImageSet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.run import Run
from miue.core.types import ImageSet

RESIDENT = 16 * 2**30  # largest number of bytes of pictures that stay on an accelerator
SHOWN = 2**24  # values of pictures that a network is shown before it is trained: 5,461 pictures of 32 px in colour

Batch = tuple[Int[Tensor, "b"], Float[Tensor, "b c h w"], Int[Tensor, "b"]]


def order(labels: Int[Tensor, "n"], generator: torch.Generator, group: int = 1) -> Int[Tensor, "n"]:
    """A random order of all rows in which rows of one class come in runs of `group` (1: a plain shuffle).

    With groups, every picture in a small batch has others of its class beside it, even if there are many classes.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    if group == 1:
        return shuffled
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    parts = [run for rows in by_class.split(labels.bincount().tolist()) for run in rows.split(group)]
    return torch.cat([parts[i] for i in torch.randperm(len(parts), generator=generator).tolist()])


class Batches:
    """The pictures of one process, as uint8 on its device if they fit; each batch is converted to float.

    rows: the rows of this process (default: all). Every process makes the same number of batches.
    purified: float pictures that replace those of the set, row by row, if a defense has left the 8-bit grid.
    """

    def __init__(
        self,
        data: ImageSet,
        run: Run,
        rows: Int[Tensor, "m"] | None = None,
        purified: Float[Tensor, "n c h w"] | None = None,
    ) -> None:
        self.data, self.run = data, run
        self.rows = torch.arange(len(data)) if rows is None else rows
        images = data.images if purified is None else purified
        fits = images.numel() * images.element_size() <= RESIDENT
        self.images = images.to(run.device) if fits else images

    def take(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """Pictures as float in [0,1] on the run's device."""
        x = self.run.put(self.images[index.to(self.images.device)])
        return x if x.is_floating_point() else x.float().div_(255)

    def count(self, size: int) -> int:
        """Batches of each process, for about `size` pictures over all processes together. No batch is empty."""
        return max(min(math.ceil(len(self.data) / size), len(self.data) // self.run.world), 1)

    def shuffled(self, size: int, *names: object, group: int = 1) -> Iterator[Batch]:
        """Yield (index, x, y) in an order drawn from the names. Sizes of batches differ by one picture at most."""
        labels = self.data.labels[self.rows]
        shuffle = order(labels, self.run.rng("order", *names, self.run.rank), group)
        for part in self.rows[shuffle].tensor_split(self.count(size)):
            yield part, self.take(part), self.run.put(self.data.labels[part])

    def in_order(self, size: int) -> Iterator[Batch]:
        """Yield (index, x, y) in the order of the set."""
        for part in self.rows.split(size):
            yield part, self.take(part), self.run.put(self.data.labels[part])


def prepare(net: Any, batches: Batches, run: Run) -> None:
    """Show a network training pictures before its first step, if it takes anything from them.

    The pictures are drawn from the whole set, so that every process shows the same ones.
    """
    if getattr(net, "prepares", False):
        count = max(SHOWN // math.prod(batches.data.shape), 1)
        rows = torch.randperm(len(batches.data), generator=run.rng("prepare"))[:count]
        net.prepare(run.exact(batches.take(rows)))
