"""Augmentations of torchvision and kornia, drawn from our generator, for each picture by itself where that is cheap.

torchvision draws once a call, so a batch goes through it in groups. Groups of a picture are exact and slow; 16 groups
cost little, and over an epoch a picture meets the same distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import global_draws

GROUPS = 16


def in_groups(change: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator, groups: int) -> Tensor:
    """A transform that draws once a call, with its own draw for every group of neighbours.

    Clipped before it, too: what lies outside [0,1], as after `op`, would wrap around where grey levels are counted.
    """
    with global_draws(int(torch.randint(2**62, (), generator=generator)), x.device):
        return torch.cat([change(part) for part in x.clamp(0, 1).tensor_split(min(groups, len(x)))]).clamp_(0, 1)


def _check(method: Any) -> None:
    for name in ("groups", "ops"):
        if getattr(method, name, 1) < 1:
            raise UserError(f"{method.facts.name}: {name}={getattr(method, name)} is too small; at least 1")


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """`ops` random operations of 14, one after the other, at strength `magnitude` (0 to 30). groups: draws a batch."""

    ops: int = 2
    magnitude: int = 9
    groups: int = GROUPS

    slot: ClassVar[Literal["augment"]] = "augment"
    facts: ClassVar[Facts] = Facts(
        name="randaugment", year=2020, reference="Cubuk et al., CVPRW 2020, arXiv 1909.13719"
    )

    def __post_init__(self) -> None:
        _check(self)
        if not 0 <= self.magnitude <= 30:
            raise UserError(f"randaugment: magnitude={self.magnitude} is not between 0 and 30")

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        from torchvision.transforms import v2  # here: it takes a second to import

        return in_groups(v2.RandAugment(self.ops, self.magnitude), x, generator, self.groups), y


@dataclass(frozen=True, kw_only=True)
class TrivialAugment:
    """One random operation at a random strength. groups: draws a batch."""

    groups: int = GROUPS

    slot: ClassVar[Literal["augment"]] = "augment"
    facts: ClassVar[Facts] = Facts(
        name="trivial", year=2021, reference="Müller and Hutter, ICCV 2021, arXiv 2103.10158"
    )

    def __post_init__(self) -> None:
        _check(self)

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        from torchvision.transforms import v2  # here: it takes a second to import

        return in_groups(v2.TrivialAugmentWide(), x, generator, self.groups), y


@dataclass(frozen=True, kw_only=True)
class Strong:
    """Turn by 10 degrees, shear by 10, scale by 0.8 to 1.2, change brightness, contrast and saturation by 0.2."""

    groups: int = GROUPS

    slot: ClassVar[Literal["augment"]] = "augment"
    facts: ClassVar[Facts] = Facts(
        name="strong",
        year=2023,
        reference="the augmentation of OP's victims: Sandoval-Segura et al., NeurIPS 2023, arXiv 2305.19254",
    )

    def __post_init__(self) -> None:
        _check(self)

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        from torchvision.transforms import v2  # here: it takes a second to import

        moved = v2.RandomAffine((-10, 10), scale=(0.8, 1.2), shear=10, interpolation=v2.InterpolationMode.BILINEAR)
        return in_groups(v2.Compose([moved, v2.ColorJitter(0.2, 0.2, 0.2)]), x, generator, self.groups), y


@dataclass(frozen=True, kw_only=True)
class Plasma:
    """Fractal brightness, fractal contrast, shuffled channels, each with its probability, for each picture by itself.

    kornia's: roughness 0.3 to 0.7, intensity of the brightness 0.5 to 1. p, shuffle: the probabilities.
    """

    p: float = 0.5
    shuffle: float = 0.5

    slot: ClassVar[Literal["augment"]] = "augment"
    facts: ClassVar[Facts] = Facts(
        name="plasma", year=2023, reference="UEraser: Qin et al., ICCVW 2023, arXiv 2303.15127"
    )

    def __post_init__(self) -> None:
        if not (0 <= self.p <= 1 and 0 <= self.shuffle <= 1):
            raise UserError(f"{self.facts.name}: p={self.p:g}, shuffle={self.shuffle:g}: probabilities lie in 0 to 1")
        if find_spec("kornia") is None:
            raise UserError(f'{self.facts.name} needs kornia; pip install "miue[defenses]" adds it')

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        from kornia import augmentation  # here: an extra, and it takes a second to import

        rough = (0.3, 0.7)
        with global_draws(int(torch.randint(2**62, (), generator=generator)), x.device):
            x = augmentation.RandomPlasmaBrightness(rough, intensity=(0.5, 1.0), p=self.p)(x)
            x = augmentation.RandomPlasmaContrast(rough, p=self.p)(x)
            return augmentation.RandomChannelShuffle(p=self.shuffle)(x), y
