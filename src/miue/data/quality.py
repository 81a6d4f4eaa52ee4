"""Differences between protected pictures and their originals, measured on the written files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jaxtyping import Integer, UInt8
from scipy.ndimage import uniform_filter

from miue.core.files import Record
from miue.core.types import ImageSet

_TILE, _ACROSS = 128, 8  # SSIM takes at most 8 x 8 tiles of a picture, because all of them would take seconds


BALL = 8  # grey levels: the budget of most papers, used for comparison


class Size(Record):
    """Sizes of the changes of a set, measured on 8-bit pictures."""

    pictures: int
    outside: int
    """Number of pictures with a value that changed by more than BALL grey levels."""
    linf: int
    """Largest change of any picture, grey levels."""
    l2: float
    """Mean over pictures, [0,1] units."""
    changed: float
    """Mean share of changed pixels."""
    psnr: float | None
    """Mean over pictures that changed, dB; None if none did."""

    @classmethod
    def over(cls, sizes: Sequence[Size]) -> Size | None:
        """The sizes of several sets together; None if there is no set."""
        if not sizes:
            return None
        n = [size.pictures for size in sizes]
        ratios = [size.psnr for size in sizes if size.psnr is not None]
        return Size(
            pictures=sum(n),
            outside=sum(size.outside for size in sizes),
            linf=max(size.linf for size in sizes),
            l2=fmean((size.l2 for size in sizes), n),
            changed=fmean((size.changed for size in sizes), n),
            psnr=fmean(ratios) if ratios else None,
        )

    def __str__(self) -> str:
        share = f"{self.changed:.1%}" if self.changed >= 0.01 else f"{self.changed:.2%}"
        ratio = "" if self.psnr is None else f", PSNR {self.psnr:.1f} dB"
        return f"largest change {self.linf} grey levels, L2 {self.l2:.3g}, {share} of the pixels{ratio} on average"

    @property
    def leaves(self) -> str:
        """A note on pictures outside the ball; empty if there are none."""
        if not self.outside:
            return ""
        return f"{self.outside} of {self.pictures} pictures leave the {BALL}/255 ball: {self}"


class Spread(Record):
    """Least value, 5th percentile and mean over pictures."""

    least: float
    low: float
    mean: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread | None:
        """The spread of these values; None if there are none."""
        if not values:
            return None
        return cls(least=min(values), low=float(np.percentile(values, 5)), mean=float(np.mean(values)))


@dataclass(frozen=True)
class Change:
    """Sizes of the change of one picture."""

    linf: int
    """Grey levels."""
    l2: float
    """[0,1] units."""
    changed: float
    """Share of changed pixels."""
    psnr: float | None
    """In dB; None for equal pictures, whose PSNR is infinite."""

    @classmethod
    def of(cls, delta: Integer[np.ndarray, "c h w"]) -> Change:
        """Measure a difference in grey levels, protected minus clean."""
        square = float(np.einsum("chw,chw->", delta, delta, dtype=np.int64))
        psnr = 10 * math.log10(255**2 * delta.size / square) if square else None
        return cls(max(int(delta.max()), -int(delta.min())), square**0.5 / 255, float((delta != 0).any(0).mean()), psnr)


def size(changes: Sequence[Change]) -> Size | None:
    """The sizes of the changes of several pictures together; None if there is no picture."""
    return Size.over([Size(pictures=1, outside=int(c.linf > BALL), **vars(c)) for c in changes])


def measure(clean: ImageSet, protected: ImageSet) -> Size | None:
    """Sizes of the changes from a clean set to its protected set. Raises ValueError if their shapes differ."""
    if clean.images.shape != protected.images.shape:
        raise ValueError(f"{protected!r} does not belong to {clean!r}")
    pairs = zip(clean.images, protected.images, strict=True)
    return size([Change.of(after.numpy().astype(np.int16) - before.numpy()) for before, after in pairs])


def ssim(a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "h w c"]) -> float | None:
    """Mean structural similarity, window 7 or the largest odd one that fits; None for a side below 3 pixels.

    For pictures of more than a megapixel it is the mean over 64 tiles of 128 x 128 on an even grid.
    """
    height, width = a.shape[:2]
    window = min(7, height, width)
    window -= window % 2 == 0
    if window < 3:
        return None
    large = height * width > (_TILE * _ACROSS) ** 2
    tiles = [(y, x) for y in _tiles(height) for x in _tiles(width)] if large else [(slice(None), slice(None))]
    return float(np.mean([_similarity(a[tile], b[tile], window) for tile in tiles]))


def _similarity(a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "h w c"], window: int) -> float:
    """Mean of (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2)) over whole windows.

    m: means, s: unbiased covariances in a window; C1 = (0.01 x 255)^2, C2 = (0.03 x 255)^2. Wang et al., IEEE TIP 2004.
    It equals scikit-image's, but computes all channels and moments at once, in a third of the time for small pictures.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    moments = uniform_filter(np.stack([x, y, x * x, y * y, x * y]), window, axes=(1, 2))
    edge = window // 2
    mx, my, xx, yy, xy = moments[:, edge : a.shape[0] - edge, edge : a.shape[1] - edge]
    unbiased, c1, c2 = window**2 / (window**2 - 1), 2.55**2, 7.65**2
    both = unbiased * (xy - mx * my)
    each = unbiased * (xx - mx * mx + yy - my * my)
    return float(((2 * mx * my + c1) * (2 * both + c2) / ((mx * mx + my * my + c1) * (each + c2))).mean())


def _tiles(side: int) -> list[slice]:
    """Slices along a side: the whole side in equal parts if it is short, else evenly spaced tiles."""
    if side <= _TILE * _ACROSS:
        count = max(side // _TILE, 1)
        return [slice(side * i // count, side * (i + 1) // count) for i in range(count)]
    return [slice(at, at + _TILE) for at in np.linspace(0, side - _TILE, _ACROSS).astype(int).tolist()]
