"""OP: orthogonal projection (Sandoval-Segura, Singla, Geiping, Goldblum, Goldstein, NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import Run
from miue.training.loop import descend


def project(x: Float[Tensor, "n c h w"], basis: Float[Tensor, "d k"]) -> Float[Tensor, "n c h w"]:
    """x - sum_k (x . q_k) q_k for orthonormal columns q_k: the result is orthogonal to all of them."""
    q = basis.double()
    parts = [p.double() - (p.double() @ q) @ q.T for p in x.flatten(1).split(4096)]
    return torch.cat([p.to(x.dtype) for p in parts]).view_as(x)


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Fit a linear classifier to the pixels, then take the directions of its weights out of every training picture.

    One direction a class, so it finds what is linearly separable and the same all over a class. Plain SGD, the rate
    falls to a tenth at 1/2 and 3/4. steps: 980, as in the source (20 epochs of 50,000 pictures), on sets of any size:
    with fewer the directions are those of the mean pictures, and clean pictures are spoilt. As in the source nothing is
    clipped: values may leave [0,1]. Unlike there, batches are shuffled; the augmentation that its victims train with is
    `strong+cutmix`.
    """

    steps: int = 980
    batch: int = 1024
    lr: float = 0.1

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(
        name="op", year=2023, reference="Sandoval-Segura et al., NeurIPS 2023, arXiv 2305.19254"
    )
    unbounded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.lr > 0:
            raise UserError(f"op: steps={self.steps}, batch={self.batch}, lr={self.lr:g}: all must be positive")

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        return project(x, self.directions(x, y, run))

    def directions(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "d k"]:
        """Orthonormal basis of the weights of the fitted classifier, float64 in main memory."""
        pixels, classes = x[0].numel(), int(y.max()) + 1
        if pixels <= classes:
            raise UserError(
                f"op: {pixels} values of a picture and {classes} classes: nothing would be left of pictures"
            )
        with run.seeded("op"):
            linear = run.place(nn.Linear(pixels, classes, bias=False))
        whole = -(-len(x) // self.batch)

        def stream() -> Iterator[tuple[Tensor, Tensor]]:
            for epoch in count():
                for rows in torch.randperm(len(x), generator=run.rng("op", epoch)).tensor_split(whole):
                    yield run.put(x[rows].flatten(1)), run.put(y[rows])

        def rate(step: int) -> float:
            return self.lr * 0.1 ** ((step >= 0.5 * self.steps) + (step >= 0.75 * self.steps))

        optimizer = torch.optim.SGD(linear.parameters(), self.lr)
        batches = islice(stream(), self.steps)
        for _ in descend(lambda batch: F.cross_entropy(linear(batch[0]), batch[1]), batches, optimizer, rate, run):
            pass
        return torch.linalg.qr(F.normalize(linear.weight.detach().cpu().double(), dim=1).T).Q
