"""The canvas: pictures at one size, as networks see them, and those that a scan holds for `read`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from miue.data.picture import Picture

OWN, USUAL = 96, 64  # pixels: the largest side that a set of equal squares keeps, and the canvas of all other sets
LARGEST = 2 * 2**30  # bytes of a canvas in memory


def fitted(pixels: UInt8[np.ndarray, "h w c"], side: int) -> UInt8[np.ndarray, "s s c"]:
    """Pixels stretched to a square; the pixels themselves if they have its size."""
    if pixels.shape[:2] == (side, side):
        return pixels
    im = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    small = np.asarray(im.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0))
    return small if small.ndim == 3 else small[..., None]


class Held:
    """Pictures of a scan on a canvas, so that `read` need not decode them again. `read` takes them once.

    count: the largest number of pictures. side: that of the canvas; None: the default one, so that small squares keep
    their size until a picture of another size comes. Nothing is held of a canvas above LARGEST.
    """

    def __init__(self, count: int, side: int | None) -> None:
        self.count, self.side = count, side
        self.rows: list[int] = []
        self.pixels: UInt8[np.ndarray, "n c s s"] | None = None

    def fitted(self, picture: Picture) -> UInt8[np.ndarray, "s s c"]:
        """The pixels of a picture that `add` takes, no larger than the canvas. Safe in several threads."""
        width, height = picture.size
        own = self.side is None and width == height <= OWN
        return picture.pixels if own else fitted(picture.pixels, self.side or USUAL)

    def add(self, row: int, pixels: UInt8[np.ndarray, "s s c"]) -> None:
        """Hold the next picture, that of entry `row`."""
        if self.count == 0:
            return
        channels, side = pixels.shape[2], len(pixels)
        if self.pixels is not None:
            channels, held = max(channels, self.pixels.shape[1]), self.pixels.shape[2]
            side = held if held == side else USUAL
        if self.pixels is None or self.pixels.shape[1:] != (channels, side, side):
            if self.count * channels * side**2 > LARGEST:
                return self.drop()
            self.pixels = self._moved(channels, side)
        self.pixels[len(self.rows)] = fitted(pixels, side).transpose(2, 0, 1)
        self.rows.append(row)

    def _moved(self, channels: int, side: int) -> UInt8[np.ndarray, "n c s s"]:
        """The pictures so far with other channels or of another size. Memory is taken only as it is filled."""
        moved = np.empty((self.count, channels, side, side), np.uint8)
        for at, own in enumerate(() if self.pixels is None else self.pixels[: len(self.rows)]):
            moved[at] = fitted(np.ascontiguousarray(own.transpose(1, 2, 0)), side).transpose(2, 0, 1)
        return moved

    def drop(self) -> None:
        """Hold nothing, now and later."""
        self.count, self.pixels = 0, None

    def take(self, rows: Sequence[int], shape: tuple[int, int, int]) -> UInt8[np.ndarray, "n c s s"] | None:
        """The pictures of these entries, c x s x s; None if other ones are held. Nothing is held afterwards."""
        pixels = self.pixels
        self.drop()
        if pixels is None or list(rows) != self.rows or pixels.shape[2:] != shape[1:]:
            return None
        pixels.resize((len(rows), *pixels.shape[1:]), refcheck=False)
        return pixels if pixels.shape[1] == shape[0] else np.repeat(pixels, shape[0], 1)
