"""CutMix and MixUp: two pictures in one, with labels in proportion. torchvision's, drawn from our generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import global_draws


def _mixed(
    mix: Callable[..., tuple[Tensor, Tensor]], p: float, x: Tensor, y: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The whole batch with its neighbours, with probability p. One draw a batch, as in both papers."""
    chance, seed = float(torch.rand((), generator=generator)), int(torch.randint(2**62, (), generator=generator))
    if chance >= p:
        return x, y
    with global_draws(seed, x.device):
        return mix(x, y)


@dataclass(frozen=True, kw_only=True)
class CutMix:
    """Paste a box of another picture; labels mix by area. The box covers 1 - lambda, lambda from Beta(alpha, alpha)."""

    alpha: float = 1.0
    p: float = 0.5

    slot: ClassVar[Literal["augment"]] = "augment"
    facts: ClassVar[Facts] = Facts(name="cutmix", year=2019, reference="Yun et al., ICCV 2019, arXiv 1905.04899")

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and 0 < self.p <= 1):
            raise UserError(f"cutmix: alpha={self.alpha:g}, p={self.p:g}: alpha above 0, p above 0 and at most 1")

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        from torchvision.transforms import v2  # here: it takes a second to import

        return _mixed(v2.CutMix(alpha=self.alpha), self.p, x, y, generator)


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """lambda x_i + (1 - lambda) x_j, labels too, lambda from Beta(alpha, alpha)."""

    alpha: float = 1.0
    p: float = 1.0

    slot: ClassVar[Literal["augment"]] = "augment"
    facts: ClassVar[Facts] = Facts(name="mixup", year=2018, reference="Zhang et al., ICLR 2018, arXiv 1710.09412")

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and 0 < self.p <= 1):
            raise UserError(f"mixup: alpha={self.alpha:g}, p={self.p:g}: alpha above 0, p above 0 and at most 1")

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        from torchvision.transforms import v2  # here: it takes a second to import

        return _mixed(v2.MixUp(alpha=self.alpha), self.p, x, y, generator)
