"""Chroma: what is left of a picture without its luminance. For noise that is the same in R, G and B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.defenses.purify.smooth import Blur
from miue.training.colour import chroma, luma, with_luma


@dataclass(frozen=True, kw_only=True)
class Chroma:
    """Throw luminance away: clamp(x - Y + 1/2, 0, 1), with the Y of `gray`; or blur it alone: x - Y + blur(Y).

    blur: standard deviation of that Gaussian in pixels; 0 leaves no luminance. Aimed at noise tied in luminance, which
    adds the same to R, G and B: then x - Y is that of the clean picture, except where values were clamped.
    Test pictures go through it, too, for a network that never saw luminance cannot use it. Raises UserError for
    greyscale sets, which have no chroma.
    """

    blur: float = 0.0

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(name="chroma", reference="ours: a trainer who knows that the noise has no colour")
    everywhere: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.blur < float("inf"):
            raise UserError(f"chroma: blur={self.blur:g} is not 0 (no luminance) or a positive number of pixels")

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        _check_colour(x.shape[1])
        return with_luma(x, Blur(sigma=self.blur)(luma(x), y, run)) if self.blur else chroma(x)

    def check(self, data: ImageSet) -> None:
        """Raise UserError if the set is greyscale."""
        _check_colour(data.shape[0])


def _check_colour(channels: int) -> None:
    if channels == 1:
        raise UserError("chroma: the pictures are greyscale and have no chroma; leave this defense out")
