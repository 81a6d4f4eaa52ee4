"""JPEG as a differentiable function: the real quantisation tables, with rounding that gradients pass unchanged."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# full-range YCbCr of JFIF
YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
# the tables of ITU-T T.81, annex K, which libjpeg scales by quality
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)


def table(base: tuple[tuple[int, ...], ...], quality: int) -> Float[Tensor, "8 8"]:
    """Quantisation steps for a quality from 1 to 100, as libjpeg scales them."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(base) * scale + 50) // 100).clamp(1, 255).float()


def cosines(n: int) -> Float[Tensor, "n n"]:
    """Matrix of the orthonormal DCT-II in float64: row k holds the k-th cosine."""
    k = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi * k[:, None] * (2 * k[None, :] + 1) / (2 * n)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


def jpeg(x: Float[Tensor, "b c h w"], quality: int, rounded: bool = True) -> Float[Tensor, "b c h w"]:
    """Pictures in [0,1] as they come back from a JPEG of this quality, colour halved in size (4:2:0).

    Coefficients are rounded, but gradients pass as if they were not; rounded=False leaves the rounding out.
    """
    c, h, w = x.shape[1:]
    x = F.pad(x, (0, -w % 16, 0, -h % 16), mode="replicate") * 255
    if c == 1:
        return (_coded(x - 128, LUMA, quality, rounded) + 128)[..., :h, :w].div(255).clamp(0, 1)
    matrix = YCC.to(x)
    planes = torch.einsum("ij,bjhw->bihw", matrix, x)
    luma = _coded(planes[:, :1] - 128, LUMA, quality, rounded) + 128
    small = _coded(F.avg_pool2d(planes[:, 1:], 2), CHROMA, quality, rounded)
    colour = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    back = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(YCC).to(x), torch.cat([luma, colour], 1))
    return back[..., :h, :w].div(255).clamp(0, 1)


def _coded(plane: Tensor, base: tuple[tuple[int, ...], ...], quality: int, rounded: bool) -> Tensor:
    """Planes after quantisation of the coefficients of their blocks of 8 x 8. Sides are multiples of 8."""
    b, c, h, w = plane.shape
    dct, steps = cosines(8).to(plane), table(base, quality).to(plane)
    blocks = plane.reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    level = dct @ blocks @ dct.T / steps
    if rounded:
        level = level + (level.round() - level).detach()
    return (dct.T @ (level * steps) @ dct).transpose(3, 4).reshape(b, c, h, w)
