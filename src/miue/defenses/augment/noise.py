"""Random noise on every batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Add Gaussian noise, then clamp to [0,1]. sigma: standard deviation in grey levels."""

    sigma: float = 8.0

    slot: ClassVar[Literal["augment"]] = "augment"
    facts: ClassVar[Facts] = Facts(
        name="noise", reference="the field's usual control; sigma 8 as in MI-UE, arXiv 2603.03725"
    )

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise UserError(f"noise: sigma={self.sigma:g} is not positive")

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        drawn = torch.randn(x.shape, generator=generator).to(x.device)
        return (x + drawn * (self.sigma / 255)).clamp_(0, 1), y
