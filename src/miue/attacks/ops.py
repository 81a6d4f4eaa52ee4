"""OPS: the one-pixel shortcut (Wu et al., ICLR 2023, arXiv 2205.12141)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import AttackFacts, BaseAttack
from miue.core.run import Run
from miue.core.types import Budget, ImageSet

FLAT = 1e-6  # added to a deviation in grey levels, which is 0 for a constant pixel


def corners(channels: int) -> Float[Tensor, "colours {channels}"]:
    """The corners of the colour cube, 0 or 255 in every channel; black and white for grey."""
    return torch.tensor(list(product((0.0, 255.0), repeat=channels)))


def moments(
    images: Tensor, labels: Int[Tensor, "n"], classes: int
) -> tuple[Float[Tensor, "k c h w"], Float[Tensor, "k c h w"]]:
    """Sums of values and of squares over each class, exact for integers, so their order does not matter."""
    first = torch.zeros(classes, *images.shape[1:], dtype=torch.float64)
    second = torch.zeros_like(first)
    for rows in torch.arange(len(images)).split(1024):
        part = images[rows].double()
        first.index_add_(0, labels[rows], part)
        second.index_add_(0, labels[rows], part.square())
    return first, second


def scores(
    first: Float[Tensor, "c h w"], second: Float[Tensor, "c h w"], count: int
) -> Float[Tensor, "places colours"]:
    """mean |q - x| / std |q - x| over the pictures of a class and the channels, for every place and corner colour q.

    A corner lies on one side of every value, so both moments of |q - x| follow from those of x: with q = 255 they are
    255 n - S1 and 255^2 n - 510 S1 + S2, with q = 0 they are S1 and S2.
    """
    c = len(first)
    flat1, flat2, white = first.reshape(c, -1), second.reshape(c, -1), corners(c).double() / 255
    total = (1 - white) @ flat1 + white @ (255 * count - flat1)
    square = (1 - white) @ flat2 + white @ (255**2 * count - 510 * flat1 + flat2)
    mean = total / (c * count)
    deviation = (square / (c * count) - mean.square()).clamp_min(0).sqrt()
    return (mean / (deviation + FLAT)).T


@dataclass(frozen=True, kw_only=True)
class OPS(BaseAttack):
    """One pixel of every picture takes one colour, at a place and in a corner colour of its class's own.

    The place and colour with the highest score (`scores`), class by class; with a budget of m pixels, the best m
    places. No place serves two classes; where there are too few places, no place and colour do. The colour is painted
    by a change of +255 or -255 that clamps to it, so there is one row a class.
    """

    per: ClassVar[str] = "class"
    facts: ClassVar[AttackFacts] = AttackFacts(
        name="ops",
        title="OPS",
        year=2023,
        reference="Wu et al., ICLR 2023, arXiv 2205.12141",
        summary="one pixel of every picture takes the colour and place of its class",
        passes=0,
        needs="nothing",
        natural=Budget(1, "l0"),
        norms=("l0",),
    )

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Float[Tensor, "k c h w"]:
        (c, h, w), k, pixels = data.shape, len(data.classes), int(budget.eps)
        counts, colours = data.labels.bincount(minlength=k).tolist(), corners(c)
        shared = k * pixels > h * w
        first, second = moments(data.images, data.labels, k)
        free = torch.ones(h * w, len(colours), dtype=torch.bool)
        delta = torch.zeros(k, c, h * w)
        for label in range(k):
            if not counts[label]:
                continue
            best, colour = scores(first[label], second[label], counts[label]).where(free, -torch.inf).max(1)
            places = best.argsort(descending=True, stable=True)[:pixels]
            if len(places) < pixels or best[places[-1]] == -torch.inf:
                raise UserError(
                    f"{k} classes of {pixels} pixels need more places and colours than {w} x {h} pictures have; "
                    "use larger pictures or a smaller budget (l0:1)"
                )
            delta[label, :, places] = (colours[colour[places]].T * 2 / 255 - 1).contiguous()
            free[places, colour[places] if shared else slice(None)] = False
        return delta.reshape(k, c, h, w)
