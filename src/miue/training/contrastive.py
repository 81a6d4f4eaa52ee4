"""Contrastive learning: views of one picture should be alike, those of different pictures not (SimCLR, ICML 2020)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# luma and two chroma axes of a colour (YIQ): grey scales chroma by 0, saturation scales it by s, hue rotates it
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def contrast_loss(z: Float[Tensor, "n d"], tau: float) -> Float[Tensor, ""]:
    """SimCLR's loss (NT-Xent) in nats: rows i and i + b are two views of one picture, all other rows are negatives."""
    unit, n = F.normalize(z, dim=1), len(z)
    logits = (unit @ unit.T / tau).masked_fill(torch.eye(n, dtype=torch.bool, device=z.device), -torch.inf)
    return F.cross_entropy(logits, torch.arange(n, device=z.device).roll(n // 2))


def contrastive(x: Float[Tensor, "b c h w"], generator: torch.Generator, strength: float) -> Float[Tensor, "b c h w"]:
    """SimCLR's augmentation at strength s: random resized crop of an area from 1 - 0.9 s, mirror, colour, grey.

    Brightness, contrast and saturation by factors from 1 +- 0.4 s and hue by +- 0.1 s turns, together with probability
    0.8 s; grey with probability 0.2 s. The order is fixed and hue is a rotation of the chroma plane, both unlike
    torchvision's, whose functions draw once a batch. Source: Chen et al., ICML 2020; the strengths are AUE's.
    """
    return _coloured(_resized(x, generator, strength), generator, strength)


def _resized(x: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    b = len(x)
    area, ratio, right, down, mirrored = torch.rand(5, b, generator=generator)
    area = 1 - 0.9 * strength * area
    # a side of at most 1 leaves ratios from area to 1 / area
    ratio = ((2 * ratio - 1) * (-area.log()).clamp_max(math.log(4 / 3))).exp()
    width, height = (area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)
    place = torch.zeros(b, 2, 3)  # from the new picture's coordinates, in [-1, 1], to the old one's
    place[:, 0, 0] = torch.where(mirrored < 0.5, -width, width)
    place[:, 1, 1] = height
    place[:, 0, 2], place[:, 1, 2] = (2 * right - 1) * (1 - width), (2 * down - 1) * (1 - height)
    grid = F.affine_grid(place.to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _coloured(x: Tensor, generator: torch.Generator, strength: float) -> Tensor:
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
    luma = x.mean(1, keepdim=True) if c == 1 else torch.einsum("j,bjhw->bhw", YIQ[0].to(x), x)[:, None]
    middle = luma.mean((2, 3), keepdim=True)
    return (brightness * (middle + contrast * (x - middle))).clamp(0, 1)
