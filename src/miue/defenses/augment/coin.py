"""COIN (Wang et al., AAAI 2025): every pixel is taken from a random place nearby."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts


@dataclass(frozen=True, kw_only=True)
class Coin:
    """x'(r, c) = x(r + u, c + v), u and v uniform in (-reach, reach) pixels, drawn for every pixel by itself.

    Bilinear between pixels; the picture goes on periodically beyond its border. Aimed at convolution-based noise.
    """

    reach: float = 2.0

    slot: ClassVar[Literal["augment"]] = "augment"
    facts: ClassVar[Facts] = Facts(name="coin", year=2025, reference="Wang et al., AAAI 2025")

    def __post_init__(self) -> None:
        if not self.reach > 0:
            raise UserError(f"coin: reach={self.reach:g} pixels is not positive")

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        b, _, h, w = x.shape
        pad = min(math.ceil(self.reach), h, w)
        field = (torch.rand(b, h, w, 2, generator=generator) * 2 - 1) * min(self.reach, pad)
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        place = torch.stack([columns, rows], -1) + pad + field
        scale = torch.tensor([w + 2 * pad - 1, h + 2 * pad - 1])
        wider = F.pad(x, (pad, pad, pad, pad), mode="circular")
        return F.grid_sample(wider, (place / scale * 2 - 1).to(x.device), align_corners=True).clamp_(0, 1), y
