"""Colour: luma, and random changes of brightness, contrast, saturation and hue, drawn for each picture."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

# luma (ITU-R BT.601) and two chroma axes of a colour (YIQ): grey scales chroma by 0, saturation by s, hue rotates it
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def luma(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """Y = 0.299 R + 0.587 G + 0.114 B; of greyscale pictures the pictures themselves."""
    return x if x.shape[1] == 1 else torch.einsum("j,njhw->nhw", YIQ[0].to(x), x)[:, None]


def with_luma(x: Float[Tensor, "n c h w"], light: Tensor | float) -> Float[Tensor, "n c h w"]:
    """The pictures with another luma: clamp(x - Y + light, 0, 1)."""
    return (x - luma(x) + light).clamp(0, 1)


def chroma(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The pictures without their luminance: a mid-grey in its place."""
    return with_luma(x, 0.5)


def coloured(x: Float[Tensor, "b c h w"], generator: torch.Generator, strength: float) -> Float[Tensor, "b c h w"]:
    """The colour part of SimCLR's augmentation at strength s.

    Brightness, contrast and saturation by factors from 1 +- 0.4 s and hue by +- 0.1 s turns, together with probability
    0.8 s; grey with probability 0.2 s. The order is fixed and hue is a rotation of the chroma plane, both unlike
    torchvision's, whose functions draw once a batch. Source: Chen et al., ICML 2020; the strengths are AUE's.
    """
    b, c = x.shape[:2]
    brightness, contrast, saturation, turn, jitter, grey = torch.rand(6, b, generator=generator)
    on = (jitter < 0.8 * strength).float()
    brightness, contrast, saturation = (
        1 + on * 0.4 * strength * (2 * u - 1) for u in (brightness, contrast, saturation)
    )
    if c == 3:
        angle = on * 0.1 * strength * (2 * turn - 1) * 2 * math.pi
        chroma = torch.where(grey < 0.2 * strength, 0.0, saturation)
        mix = torch.eye(3).repeat(b, 1, 1)
        mix[:, 1, 1] = mix[:, 2, 2] = chroma * angle.cos()
        mix[:, 2, 1] = chroma * angle.sin()
        mix[:, 1, 2] = -mix[:, 2, 1]
        x = torch.einsum("bij,bjhw->bihw", (YIQ.inverse() @ mix @ YIQ).to(x), x)
    brightness, contrast = (u[:, None, None, None].to(x) for u in (brightness, contrast))
    middle = luma(x).mean((2, 3), keepdim=True)
    return (brightness * (middle + contrast * (x - middle))).clamp(0, 1)
