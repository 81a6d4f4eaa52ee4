"""How much a protected picture differs from its original, measured on the file that was written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, UInt8
from skimage.metrics import structural_similarity

from miue.records import BALL, Size
from miue.types import ImageSet

_STRIP = 512  # rows at a time: SSIM in float64 needs about a hundred times the memory of the picture


@dataclass(frozen=True)
class Spread:
    """Least value, 5th percentile and mean over pictures."""

    least: float
    low: float
    mean: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread | None:
        """None where no picture has a value."""
        if not values:
            return None
        return cls(min(values), float(np.percentile(values, 5)), float(np.mean(values)))


@dataclass(frozen=True)
class Change:
    """What happened to one picture. linf in grey levels; l2 in [0,1] units; changed: share of its pixels; psnr in dB,
    None for equal pictures, where it is infinite."""

    linf: int
    l2: float
    changed: float
    psnr: float | None

    @classmethod
    def of(cls, delta: Integer[np.ndarray, "c h w"]) -> Change:
        """From grey levels, protected minus clean."""
        square = float(np.square(delta.astype(np.int64)).sum())
        psnr = 10 * math.log10(255**2 * delta.size / square) if square else None
        return cls(int(np.abs(delta).max()), square**0.5 / 255, float((delta != 0).any(0).mean()), psnr)


def size(changes: Sequence[Change]) -> Size | None:
    """What the changes of several pictures come to; None where there is no picture."""
    return Size.over([Size(pictures=1, outside=int(c.linf > BALL), **vars(c)) for c in changes])


def measure(clean: ImageSet, protected: ImageSet) -> Size | None:
    """How far a protected set is from its clean one, row by row. Raises ValueError where they do not correspond."""
    if clean.images.shape != protected.images.shape:
        raise ValueError(f"{protected!r} does not belong to {clean!r}")
    pairs = zip(clean.images, protected.images, strict=True)
    return size([Change.of(after.numpy().astype(np.int16) - before.numpy()) for before, after in pairs])


def ssim(a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "h w c"]) -> float | None:
    """Mean structural similarity, window 7 or the largest odd one that fits; None for a side below 3 pixels."""
    height, width = a.shape[:2]
    window = min(7, height, width)
    window -= window % 2 == 0
    if window < 3:
        return None
    starts = range(0, max(height - window + 1, 1), _STRIP)
    parts = [slice(at, height if at == starts[-1] else at + _STRIP) for at in starts]
    values = [structural_similarity(a[s], b[s], win_size=window, channel_axis=2, data_range=255) for s in parts]
    return float(np.average(values, weights=[len(a[s]) for s in parts]))
