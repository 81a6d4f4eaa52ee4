"""From an ImageSet to float batches on the run's device, and per-sample crop and flip as tensor algebra."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.run import Run
from miue.core.types import ImageSet, UserError

RESIDENT = 16 * 2**30  # bytes of pictures that are kept on an accelerator

Batch = tuple[Int[Tensor, "b"], Float[Tensor, "b c h w"], Int[Tensor, "b"]]


def order(labels: Int[Tensor, "n"], generator: torch.Generator, group: int = 1) -> Int[Tensor, "n"]:
    """A random order of all rows in which rows of one class come in runs of `group` (1: a plain shuffle).

    Groups give every picture of a small batch companions of its own class, however many classes there are.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    if group == 1:
        return shuffled
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    parts = [run for rows in by_class.split(labels.bincount().tolist()) for run in rows.split(group)]
    return torch.cat([parts[i] for i in torch.randperm(len(parts), generator=generator).tolist()])


def holdout(data: ImageSet, share: float, run: Run) -> tuple[Int[Tensor, "m"], Int[Tensor, "t"]]:
    """Rows for training and for testing: `share` of every class (at least one picture) is held out at random."""
    if not 0 < share < 1:
        raise UserError(f"a held-out share of {share:g} is not between 0 and 1")
    generator, kept, held = run.rng("holdout"), [], []
    for label in range(len(data.classes)):
        rows = (data.labels == label).nonzero().flatten()
        if len(rows) == 1:
            raise UserError(f"class {data.classes[label]!r} has one picture, so none can be held out; add pictures")
        rows = rows[torch.randperm(len(rows), generator=generator)]
        cut = min(max(int(len(rows) * share), 1), len(rows) - 1) if len(rows) else 0
        held.append(rows[:cut])
        kept.append(rows[cut:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values


class Batches:
    """The pictures of one process as uint8 on its device (where they fit), turned into float once per batch.

    rows: which rows of the set are ours; every process makes the same number of batches, none is left out.
    purified: float pictures instead of the set's own, row by row, where a defense has left the 8-bit grid.
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
        """Batches of about `size` over all processes together, the same number in each of them, none of them empty."""
        return max(min(math.ceil(len(self.data) / size), len(self.data) // self.run.world), 1)

    def shuffled(self, size: int, *names: object, group: int = 1) -> Iterator[Batch]:
        """(index, x, y) in an order drawn from the names; batches differ by one picture at most."""
        labels = self.data.labels[self.rows]
        shuffle = order(labels, self.run.rng("order", *names, self.run.rank), group)
        for part in self.rows[shuffle].tensor_split(self.count(size)):
            yield part, self.take(part), self.run.put(self.data.labels[part])

    def in_order(self, size: int) -> Iterator[Batch]:
        """(index, x, y) in the set's order."""
        for part in self.rows.split(size):
            yield part, self.take(part), self.run.put(self.data.labels[part])


def flip(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Mirror each picture left to right with probability 1/2. Differentiable."""
    mirrored = (torch.rand(len(x), generator=generator) < 0.5).to(x.device)
    return torch.where(mirrored[:, None, None, None], x.flip(-1), x)


def crop(x: Float[Tensor, "b c h w"], generator: torch.Generator, share: float = 1 / 8) -> Float[Tensor, "b c h w"]:
    """Pad with zeros by `share` of the side (4 px of 32), cut each picture out at its own place. Differentiable.

    Two gathers: their backward is a plain scatter, that of an indexed unfolded view costs (2 pad + 1)^2 as much memory.
    """
    b, c, h, w = x.shape
    py, px = int(h * share), int(w * share)
    dy, dx = (torch.randint(2 * p + 1, (b, 1), generator=generator) for p in (py, px))
    rows = (torch.arange(h) + dy).to(x.device)[:, None, :, None].expand(b, c, h, w + 2 * px)
    columns = (torch.arange(w) + dx).to(x.device)[:, None, None, :].expand(b, c, h, w)
    return F.pad(x, (px, px, py, py)).gather(2, rows).gather(3, columns)


@dataclass(frozen=True)
class FlipCrop:
    """The field's usual augmentation: random crop after zero padding, then a random flip, per sample."""

    share: float = 1 / 8
    flip: bool = True
    slot: ClassVar[Literal["augment"]] = "augment"

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        x = crop(x, generator, self.share)
        return (flip(x, generator) if self.flip else x), y
