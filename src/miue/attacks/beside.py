"""Published pictures beside new ones in a batch, for losses that compare the pictures of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.method import Kept
from miue.core.run import Run
from miue.core.types import stretch

LEAST = 8  # published pictures of every class to choose from, where there are so many


@dataclass(frozen=True)
class Others:
    """Pictures, their classes and their deltas, on the device."""

    x: Float[Tensor, "b c h w"]
    y: Int[Tensor, "b"]
    delta: Float[Tensor, "b c h w"]


class Beside:
    """Published pictures of an earlier set, which keep their deltas, at most `size` of them at once.

    x is the published picture minus its delta: where the sum was cut off at black or white, that is not the original.
    """

    def __init__(self, size: int, kept: Kept, run: Run) -> None:
        k = max(int(kept.labels.max()) + 1, 1)
        shuffled = torch.randperm(len(kept.labels), generator=run.rng("beside"))
        per_class = max(size // k, LEAST)
        parts = [shuffled[kept.labels[shuffled] == label][:per_class] for label in range(k)]
        self.size, self.run, rows = size, run, torch.cat(parts)
        self.labels, self.pictures = kept.labels[rows], kept.published(rows)
        self.delta = kept.perturbation.delta[kept.perturbation.rows(rows)]

    def draw(self, y: Int[Tensor, "b"], generator: torch.Generator) -> Others:
        """Some of them, first those of the classes in a batch."""
        order = torch.randperm(len(self.labels), generator=generator)
        far = ~torch.isin(self.labels[order], y.cpu())
        rows = order[far.to(torch.uint8).argsort(stable=True)][: self.size]
        pictures = self.run.put(self.pictures[rows]).float().div_(255)
        delta = stretch(self.run.put(self.delta[rows]).float(), *pictures.shape[-2:]).div_(255)
        return Others(pictures - delta, self.run.put(self.labels[rows]), delta)
