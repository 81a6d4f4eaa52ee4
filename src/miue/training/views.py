"""What a surrogate sees of a picture: mirrored and cropped, or its worst neighbour.

Each is drawn per picture from a generator, and differentiable, so that a gradient goes through to an aligned delta.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Augment = Literal["none", "flip", "flip-crop"]


def augmented(how: Augment, x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """The picture itself, mirrored at random, or cropped and mirrored at random."""
    if how == "none":
        return x
    return flip(crop(x, generator) if how == "flip-crop" else x, generator)


def flip(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Mirror each picture left to right with probability 1/2. Differentiable."""
    mirrored = (torch.rand(len(x), generator=generator) < 0.5).to(x.device)
    return torch.where(mirrored[:, None, None, None], x.flip(-1), x)


def crop(x: Float[Tensor, "b c h w"], generator: torch.Generator, share: float = 1 / 8) -> Float[Tensor, "b c h w"]:
    """Pad with zeros by `share` of the side (4 px of 32), cut each picture out at its own place. Differentiable.

    Two gathers: their backward is a plain scatter, that of an indexed unfolded view costs (2 pad + 1)^2 as much memory.
    """
    b, c, h, w = x.shape
    py, px = int(h * share), int(w * share)
    dy, dx = (torch.randint(2 * p + 1, (b, 1), generator=generator) for p in (py, px))
    rows = (torch.arange(h) + dy).to(x.device)[:, None, :, None].expand(b, c, h, w + 2 * px)
    columns = (torch.arange(w) + dx).to(x.device)[:, None, None, :].expand(b, c, h, w)
    return F.pad(x, (px, px, py, py)).gather(2, rows).gather(3, columns)
