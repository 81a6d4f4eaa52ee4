"""Cutout (DeVries, Taylor, 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """Black out a square around a random pixel of each picture; what lies beyond the border is lost to it.

    share: side of the square as a share of the picture's (16 of 32 pixels).
    """

    share: float = 0.5

    slot: ClassVar[Literal["augment"]] = "augment"
    facts: ClassVar[Facts] = Facts(name="cutout", year=2017, reference="DeVries and Taylor, 2017, arXiv 1708.04552")

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"cutout: share={self.share:g} is not above 0 and at most 1")

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        inside = []
        for length in x.shape[2:]:
            side = max(int(length * self.share), 1)
            first = torch.randint(length, (len(x), 1), generator=generator) - side // 2
            place = torch.arange(length)
            inside.append((place >= first) & (place < first + side))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return x.masked_fill(hole.to(x.device), 0.0), y
