"""The form of the deltas of attacks with a surrogate: tied channels, colour, sub-groups, balance, views."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import BaseAttack, Kept, at_least
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Pieces
from miue.training import perturb
from miue.training.colour import luma
from miue.training.mixture import parts as views
from miue.training.rows import PART, Form, Rows, parts, row_bytes

ROUNDS = 30  # of taking class means out and clamping, which undoes some of it
LEVEL = 1 / 255
CHROMA = "1chroma"  # what the surrogate of the colour part looks through


def check_momentum(noise_momentum: float) -> None:
    """Raise UserError if the share of earlier directions that a step of delta keeps is out of range."""
    if not 0 <= noise_momentum < 1:
        raise UserError(f"noise_momentum={noise_momentum:g} is not a share from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class Shaped(BaseAttack):
    """Options of all attacks with one of the two drivers: those with a surrogate, except GUE.

    channels: "luma" gives red, green and blue the same change l, so that grey pictures carry all of it. colour: grey
    levels, within the budget, of a second part c without luma, for trainers who look at colour alone: the change is
    l + c - luma(c), cut off at the budget. A second pass makes c, with a surrogate of its own, which sees chroma alone;
    l stays. class_gradient: weight of the mean direction of its class in a batch beside a picture's own; 0: its own
    alone, large: nearly class-wise. groups: sub-groups of a class that have such a direction each; the pixels of a
    picture choose its group, so that pictures which are added later fit. balanced: the mean delta of a class is kept
    below one grey level, so that no pattern is common to it. see: what the surrogate and the steps on delta look
    through (`training.mixture.parts`).
    """

    channels: Literal["rgb", "luma"] = "rgb"
    colour: float = 0.0
    class_gradient: float = 0.0
    groups: int = 1
    balanced: bool = False
    see: str = ""

    classifies: ClassVar[bool] = True  # whether the surrogate learns the classes

    def __post_init__(self) -> None:
        at_least(self, groups=1)
        if not self.class_gradient >= 0:
            raise UserError(f"class_gradient={self.class_gradient:g} is negative; a weight is 0 or more")
        if not self.colour >= 0 or (self.colour and self.channels == "rgb"):
            raise UserError(f"colour={self.colour:g}: grey levels, 0 or more, and only beside channels=luma")
        if self.groups > 1 and not self.class_gradient:
            raise UserError(f"groups={self.groups} has no effect without class_gradient; 10 is a usual weight")
        whole = getattr(self, "per", "image") == "class"
        if self.groups > 1 and whole:
            raise UserError(f"groups={self.groups} with per=class: a class has one delta and no sub-groups")
        if self.class_gradient and whole:
            weight = f"class_gradient={self.class_gradient:g}"
            raise UserError(f"{weight} with per=class: a class has one delta, and one gradient; give class_gradient=0")
        if self.balanced and whole:
            raise UserError("balanced=true with per=class: the mean delta of a class is all that there is")
        if any(part.name == "adversary" for part in views(self.see)) and not self.classifies:
            raise UserError(
                f"see={self.see}: an adversary needs a surrogate that learns the classes, and this one does not"
            )

    def planes(self, channels: int, colour: bool = False) -> int:
        """Planes of delta, in the first pass or in that of the colour part, for pictures with so many channels."""
        if colour:
            return 1 + channels
        return 1 if self.channels == "luma" else channels

    def coloured(self, channels: int) -> bool:
        """True if there is a second pass: for a colour part, of pictures that have colour."""
        return self.colour > 0 and channels > 1

    def passes(self, channels: int) -> list[int]:
        """Planes of delta in every pass, for pictures with so many channels."""
        return [self.planes(channels)] + [self.planes(channels, True)] * self.coloured(channels)

    def grid(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Height and width of delta for pictures of c x h x w."""
        cells = getattr(self, "cells", 0)
        return (cells, cells) if cells else shape[1:]

    @property
    def against(self) -> float:
        """Grey levels of the adversary that the surrogate is trained against; 0: none."""
        return 0.0

    @property
    def keeps_means(self) -> bool:
        """True if pictures that are added later need the mean deltas of classes or sub-groups."""
        return getattr(self, "per", "image") == "image" and (self.class_gradient > 0 or self.balanced)

    def delta_bytes(self, count: int, shape: tuple[int, int, int], classes: int, processes: int) -> list[int]:
        """Bytes of the deltas of each pass at work, and of the directions that they keep, in all processes."""
        rows = processes * classes if getattr(self, "per", "image") == "class" else count
        sizes = [(planes, *self.grid(shape)) for planes in self.passes(shape[0])]
        forms: tuple[Form, ...] = ("fixed", "scaled") if getattr(self, "noise_momentum", 0) else ("fixed",)
        return [rows * sum(row_bytes(size, form) for form in forms) for size in sizes]

    def means_bytes(self, shape: tuple[int, int, int], classes: int) -> int:
        """Bytes of the kept means of all passes."""
        if not self.keeps_means:
            return 0
        values = prod(self.grid(shape))
        return sum(4 * classes * self.groups * (planes * values + 1) for planes in self.passes(shape[0]))


class Shape:
    """The form of the deltas in one pass: planes as they are optimised, and channels as they are added to pictures.

    mine: rows of this process. colour: whether this is the pass of the colour part, whose first plane is the tied part
    and stays as it is. kept: state of an earlier set that these pictures are added to.
    """

    def __init__(
        self,
        plan: Shaped,
        data: ImageSet,
        budget: Budget,
        run: Run,
        mine: Int[Tensor, "m"],
        colour: bool = False,
        kept: Kept | None = None,
    ) -> None:
        self.plan, self.data, self.budget, self.run, self.mine, self.colour = plan, data, budget, run, mine, colour
        self.later = ("later", kept.count) if kept else ()
        self.channels = data.shape[0]
        self.count = plan.planes(self.channels, colour)
        self.tied = plan.channels == "luma"
        share = torch.ones(self.count, 1, 1)
        if colour:
            share[1:] = min(plan.colour / budget.eps, 1)
        self.share = run.put(share)
        self.mixture = views(CHROMA if colour else plan.see)
        if self.channels == 1 and any(part.name == "chroma" for part in self.mixture):
            raise UserError(f"see={plan.see}: grey pictures have no chroma; leave it out")
        self.group = torch.zeros(len(data), dtype=torch.long)
        if plan.groups > 1:
            for row in mine.tolist():
                self.group[row] = zlib.crc32(data.images[row].numpy().tobytes()) % plan.groups
        means = kept.state(f"means{self.suffix}")[0] if kept and plan.keeps_means else None
        self.earlier = means and {name: run.put(table) for name, table in means.items()}

    @property
    def suffix(self) -> str:
        """End of the names of state that this pass keeps."""
        return "-colour" * self.colour

    def names(self, *names: object) -> tuple[object, ...]:
        """Seed names of this pass."""
        return (*self.later, "colour", *names) if self.colour else (*self.later, *names)

    def whole(self, planes: Rows) -> Pieces:
        """The change of the whole set, from the planes of all processes."""

        def pieces() -> Iterator[Tensor]:
            ends = torch.searchsorted(self.mine, torch.arange(0, len(self.data) + PART, PART))
            for first, start, end in zip(range(0, len(self.data), PART), ends[:-1], ends[1:], strict=True):
                own = torch.arange(int(start), int(end))
                part = torch.zeros(min(PART, len(self.data) - first), *planes.shape[1:], device=self.run.device)
                part[self.run.put(self.mine[own] - first)] = planes[own]
                yield self.joined(self.run.total(part))

        return Pieces((len(self.data), self.channels, *planes.shape[2:]), pieces)

    def joined(self, planes: Float[Tensor, "b p g g2"]) -> Float[Tensor, "b c g g2"]:
        """The change of every channel, within the budget. The cut has the gradient of the plain sum."""
        if not self.tied:
            return planes
        tied = planes[:, :1].expand(-1, self.channels, -1, -1)
        if not self.colour:
            return tied
        colour = planes[:, 1:]
        return perturb.clamped(tied + colour - luma(colour), -self.budget.unit, self.budget.unit)

    def random_start(self, shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        """Uniform planes inside their limits."""
        return self.run.put(perturb.random_start(shape, self.budget, generator)) * self.share

    def moved(
        self, planes: Float[Tensor, "b p g g2"], gradient: Float[Tensor, "b p g g2"], step: float
    ) -> Float[Tensor, "b p g g2"]:
        """One signed descent step; planes of a smaller limit take smaller steps."""
        after = perturb.signed_step(planes, gradient, step, self.budget, self.share)
        return torch.cat([planes[:, :1], after[:, 1:]], 1) if self.colour else after

    def keep_in_range(self, planes: Float[Tensor, "b p h w"], x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p h w"]:
        """The part of the planes that a picture can hold; of a tied plane, the part that one of its channels can."""
        if not self.tied:
            return perturb.keep_in_range(planes, x)
        tied = planes[:, :1].clamp(-x.amax(1, keepdim=True), 1 - x.amin(1, keepdim=True))
        return torch.cat([tied, planes[:, 1:]], 1)

    def shared(
        self, index: Int[Tensor, "b"], gradient: Float[Tensor, "b p g g2"], y: Int[Tensor, "b"]
    ) -> Float[Tensor, "b p g g2"]:
        """Each picture's direction, and the mean direction of its class or sub-group in the batch beside it."""
        own, plan = perturb.direction(gradient), self.plan
        group = y * plan.groups + self.run.put(self.group[index])
        if self.earlier:  # deltas descend: those of a class point against its direction
            mean = -self.earlier["mean"][group]
        else:
            mean = perturb.class_mean(own, group, len(self.data.classes) * plan.groups, self.run.total)
        return own + plan.class_gradient * perturb.direction(mean)

    def means(self, planes: Float[Tensor, "m p g g2"] | Rows) -> dict[str, Tensor]:
        """Mean planes and number of pictures of every class and sub-group, over all processes."""
        plan, mine, k = self.plan, self.mine, len(self.data.classes)
        group = self.run.put(self.data.labels[mine] * plan.groups + self.group[mine])
        mean = perturb.class_means(planes, group, k * plan.groups, self.run.total)
        return {"mean": mean, "count": self.run.total(group.bincount(minlength=k * plan.groups).float())}

    def save_means(self, planes: Float[Tensor, "m p g g2"] | Rows, identity: Mapping[str, Any]) -> None:
        """Keep the means for pictures that are added later, if they are needed. All processes call it."""
        if self.plan.keeps_means and not self.earlier:
            means = self.means(planes)
            if self.run.rank == 0:
                self.run.save(f"means{self.suffix}", means, identity)

    def balance(self, planes: Float[Tensor, "m p g g2"] | Rows) -> None:
        """Take the means of their classes out of the deltas of this process; |mean| is then below half a grey level.

        A class whose deltas are too few or too alike for that keeps what is left after some rounds; one of a single
        picture keeps its delta. The pass of the colour part leaves the tied plane. Of pictures that are added to a set,
        the mean is that of their class in the whole set.
        """
        y, k = self.run.put(self.data.labels[self.mine]), len(self.data.classes)
        limit = self.share * self.budget.unit
        count = self.run.put(self.data.labels.bincount(minlength=k)).reshape(k, 1, 1, 1)
        before, sums = self._earlier_sums(planes.shape[1:])
        single, whole = (count + before == 1).flatten(), count.clamp_min(1) + before
        share = count.clamp_min(1) / whole  # of these pictures in their class
        for _ in range(ROUNDS):
            mean = perturb.class_means(planes, y, k, self.run.total) * share + sums / whole
            mean[single] = 0
            if self.colour:
                mean[:, :1] = 0
            if mean.abs().max() < LEVEL / 2:
                break
            for index in parts(len(planes)):
                index = index.to(y.device)
                planes[index] = (planes[index] - (mean / share)[y[index]]).clamp(-limit, limit)

    def _earlier_sums(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Number of earlier pictures of every class, and the sum of their planes; zeros if there are none."""
        k = len(self.data.classes)
        if not self.earlier:
            zeros = self.run.put(torch.zeros(k, *shape))
            return zeros[:, :1, :1, :1], zeros
        count = self.earlier["count"].reshape(k, -1, 1, 1, 1)
        mean = self.earlier["mean"].reshape(k, -1, *shape)
        return count.sum(1), (count * mean).sum(1)
