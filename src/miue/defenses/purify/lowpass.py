"""Ideal low-pass: frequencies above a cut are gone, those below are exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import Run
from miue.training.jpeg import cosines

PART = 4096  # pictures processed at once


def projection(side: int, kept: int) -> Float[Tensor, "side side"]:
    """D^T D for the first `kept` rows of the orthonormal DCT-II, D_ki = s_k cos(pi k (2 i + 1) / (2 side))."""
    waves = cosines(side)[:kept]
    return (waves.T @ waves).float()


@dataclass(frozen=True, kw_only=True)
class LowPass:
    """Keep the lowest frequencies of every training picture: DCT-II, all others set to 0, back, clamped to [0,1].

    share: of the frequencies in each direction, rounded up: with 0.5 a quarter of the coefficients is left. Sharper
    than `blur` and `resize`. FUSE reports that many protections lose their effect under such a filter.
    """

    share: float = 0.5

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(
        name="lowpass", reference="spectral filtering, as in FUSE: Cai et al., arXiv 2606.26719"
    )

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"lowpass: share={self.share:g} is not between 0 and 1")

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        rows, columns = (projection(side, math.ceil(self.share * side)).to(x) for side in x.shape[2:])
        return torch.cat([(rows @ part @ columns).clamp_(0, 1) for part in x.split(PART)])
