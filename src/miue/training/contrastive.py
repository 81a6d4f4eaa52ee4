"""Contrastive learning: views of one picture should be alike, those of different pictures not (SimCLR, ICML 2020)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from miue.training.colour import coloured


def contrast_loss(z: Float[Tensor, "n d"], tau: float) -> Float[Tensor, ""]:
    """SimCLR's loss (NT-Xent) in nats: rows i and i + b are two views of one picture, all other rows are negatives."""
    unit, n = F.normalize(z, dim=1), len(z)
    logits = (unit @ unit.T / tau).masked_fill(torch.eye(n, dtype=torch.bool, device=z.device), -torch.inf)
    return F.cross_entropy(logits, torch.arange(n, device=z.device).roll(n // 2))


def contrastive(x: Float[Tensor, "b c h w"], generator: torch.Generator, strength: float) -> Float[Tensor, "b c h w"]:
    """SimCLR's augmentation at strength s: random resized crop of an area from 1 - 0.9 s, mirror, colour, grey.

    Colour and grey are those of `coloured`. Source: Chen et al., ICML 2020; the strengths are AUE's.
    """
    return coloured(_resized(x, generator, strength), generator, strength)


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
