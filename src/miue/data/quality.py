"""How much a protected picture differs from its original, measured on the file that was written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from skimage.metrics import structural_similarity

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


def psnr(a: UInt8[np.ndarray, "h w _"], b: UInt8[np.ndarray, "h w _"]) -> float | None:
    """Peak signal-to-noise ratio in dB; None for equal pictures, where it is infinite."""
    error = float(np.square(a.astype(np.int32) - b).mean())
    return 10 * math.log10(255**2 / error) if error else None


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
