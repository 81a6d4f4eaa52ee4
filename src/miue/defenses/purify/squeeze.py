"""Image shortcut squeezing (Liu, Zhao, Larson, ICML 2023): JPEG, greyscale, few bits; on the training set only.

All of it at once is a list: `gray+jpeg:quality=10`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import Run
from miue.core.types import eight_bits
from miue.data import recoded
from miue.training.colour import luma


@dataclass(frozen=True, kw_only=True)
class JPEG:
    """Encode every training picture as JPEG, once, and decode it again. quality: 1 to 100."""

    quality: int = 10

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(name="jpeg", year=2023, reference="ISS: Liu et al., ICML 2023, arXiv 2301.13838")

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise UserError(f"jpeg: quality={self.quality} is not between 1 and 100")

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        return recoded(eight_bits(x), f"jpeg:quality={self.quality}").float().div_(255)


@dataclass(frozen=True, kw_only=True)
class Gray:
    """Replace every channel by the luma, 0.299 R + 0.587 G + 0.114 B; greyscale pictures stay as they are."""

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(name="gray", year=2023, reference="ISS: Liu et al., ICML 2023, arXiv 2301.13838")

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        return luma(x).expand_as(x).contiguous()


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Keep the top bits of every value and set the others to 0: 2 bits leave 0, 64, 128 and 192."""

    bits: int = 2

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(name="depth", year=2023, reference="ISS: Liu et al., ICML 2023, arXiv 2301.13838")

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise UserError(f"depth: bits={self.bits} is not between 1 and 8")

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        return (eight_bits(x) & (256 - 2 ** (8 - self.bits))).float().div_(255)
