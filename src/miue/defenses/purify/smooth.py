"""Low-pass filters on the training set."""

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
from miue.training.views import blurred


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Gaussian blur. sigma: standard deviation in pixels; the kernel reaches 3 sigma.

    APBench blurs with sigma 0.1, which changes nothing: its column is no evidence about blurring.
    """

    sigma: float = 1.0

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(
        name="blur",
        year=2024,
        reference="APBench: Qin et al., TMLR 2024, arXiv 2308.03258, with a sigma that does something",
    )

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise UserError(f"blur: sigma={self.sigma:g} is not positive")

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        return blurred(x, self.sigma).clamp_(0, 1)


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Scale every training picture down, and back up (bicubic). share: of the side that is left between."""

    share: float = 0.5

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(name="resize", reference="ours: what thumbnails and uploads do")

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"resize: share={self.share:g} is not between 0 and 1")

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        return recoded(eight_bits(x), f"resize:share={self.share}").float().div_(255)
