"""Views of a picture for a surrogate: mirrored and cropped.

Each is drawn per picture from a generator and is differentiable, so that gradients reach the delta in its own frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Augment = Literal["none", "flip", "flip-crop"]


def augmented(how: Augment, x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """The pictures unchanged ("none"), mirrored at random ("flip"), or cropped and mirrored at random ("flip-crop")."""
    if how == "none":
        return x
    return flip(crop(x, generator) if how == "flip-crop" else x, generator)


def flip(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Mirror each picture left to right with probability 1/2. Differentiable."""
    return mirrored(x, torch.rand(len(x), generator=generator) < 0.5)


def mirrored(x: Float[Tensor, "b c h w"], which: Bool[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
    """The pictures, some of them mirrored left to right. Differentiable."""
    return torch.where(which.to(x.device)[:, None, None, None], x.flip(-1), x)


def blurred(x: Float[Tensor, "b c h w"], sigma: float) -> Float[Tensor, "b c h w"]:
    """The pictures through a Gaussian of `sigma` pixels that reaches 3 sigma. Differentiable."""
    from torchvision.transforms.v2 import functional  # here: it takes a second to import

    reach = min(math.ceil(3 * sigma), min(x.shape[2:]) - 1)  # what is mirrored is less than a side
    return functional.gaussian_blur(x, [2 * reach + 1] * 2, [sigma] * 2)


def crop(
    x: Float[Tensor, "b c h w"],
    generator: torch.Generator,
    share: float = 1 / 8,
    border: Literal["constant", "reflect"] = "constant",
) -> Float[Tensor, "b c h w"]:
    """Pad with zeros by `share` of the side (4 px of 32), then crop each picture at a random place. Differentiable.

    border: "reflect" pads with the mirrored picture instead of zeros.

    It uses two gathers, because their backward pass is a plain scatter. Indexing an unfolded view would cost
    (2 pad + 1)^2 times the memory.
    """
    b, c, h, w = x.shape
    py, px = int(h * share), int(w * share)
    dy, dx = (torch.randint(2 * p + 1, (b, 1), generator=generator) for p in (py, px))
    rows = (torch.arange(h) + dy).to(x.device)[:, None, :, None].expand(b, c, h, w + 2 * px)
    columns = (torch.arange(w) + dx).to(x.device)[:, None, None, :].expand(b, c, h, w)
    return F.pad(x, (px, px, py, py), border).gather(2, rows).gather(3, columns)


def six(x: Float[Tensor, "b c h w"]) -> Iterator[tuple[float, Float[Tensor, "b c h w"]]]:
    """Six views for a test, with their shares: the pictures, moved by one pixel up left and down right, and mirrored.

    Pictures in their place count as much as the moved ones together. Borders are mirrored. Source: airbench (Jordan,
    arXiv 2404.00498).
    """
    h, w = x.shape[2:]
    wide = F.pad(x, (1, 1, 1, 1), "reflect")
    for share, view in ((1 / 4, x), (1 / 8, wide[..., :h, :w]), (1 / 8, wide[..., 2:, 2:])):
        yield share, view
        yield share, view.flip(-1)
