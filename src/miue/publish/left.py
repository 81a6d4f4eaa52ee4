"""The noise that is left in a picture that came back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, UInt8

from miue.core.files import Record
from miue.data.picture import mean_of_colours
from miue.publish.placing import Place

BAND = 0.8  # share of the noise's energy that its band holds at least


class Left(Record):
    """The rest of the noise of one picture, in the band where it lives."""

    share: float
    """Strength of the noise that is left, as a share of what was published: 1 is all of it, 0 none."""
    correlation: float
    """Correlation of what came back, less the original, with the noise."""


@dataclass(frozen=True)
class Pair:
    """A published picture and its noise: the original is `pixels` - `delta`."""

    pixels: UInt8[np.ndarray, "h w c"]
    delta: Integer[np.ndarray, "h w c"]

    @classmethod
    def of(cls, pixels: UInt8[np.ndarray, "h w c"], delta: Integer[np.ndarray, "h w c2"]) -> Pair:
        """A pair from the perturbation. The noise of clamped values (0 or 255) is not known: it counts as 0."""
        if pixels.shape[2] == 1 and delta.shape[2] == 3:
            delta = mean_of_colours(delta)
        inside = (pixels > 0) & (pixels < 255)
        return cls(pixels, np.where(inside, delta, 0).astype(np.int16))


def left(pair: Pair, back: UInt8[np.ndarray, "h2 w2 c2"], place: Place) -> Left | None:
    """Compare a picture that came back with what was published; None if it has no noise.

    e: the noise as it would come back, T(delta); r: what came back less the original, back - T(pixels - delta). In the
    band, the octaves that hold BAND of delta's energy: share = <r, e> / <e, e> x rms(e) / rms(delta). T is linear.
    """
    delta = pair.delta.astype(np.float32)
    expected = place(delta)
    original = place(pair.pixels.astype(np.float32) - delta)
    rest = _channels(back, original.shape[2]).astype(np.float32) - original
    strength, arrived = (float(np.sqrt(np.square(x).mean(dtype=np.float64))) for x in (delta, expected))
    if not strength or not arrived:
        return None
    band = _band(expected)
    e, r = (np.fft.fft2(x, axes=(0, 1))[band] for x in (expected, rest))
    both, own, theirs = (float((a * b.conj()).real.sum()) for a, b in ((r, e), (e, e), (r, r)))
    if not own:
        return None
    correlation = both / (own * theirs) ** 0.5 if theirs else 0.0
    return Left(share=both / own * arrived / strength, correlation=correlation)


def _band(noise: Float[np.ndarray, "h w c"]) -> np.ndarray:
    """The frequencies of the octaves with most of the energy, without the mean: booleans [h, w]."""
    height, width = noise.shape[:2]
    power = np.square(np.abs(np.fft.fft2(noise, axes=(0, 1)))).sum(2)
    y, x = np.fft.fftfreq(height, 1 / height), np.fft.fftfreq(width, 1 / width)
    radius = np.sqrt(y[:, None] ** 2 + x[None] ** 2)
    octave = np.floor_divide(np.log2(np.maximum(radius, 1)), 1).astype(int)
    octave[0, 0] = -1
    energy = np.array([power[octave == number].sum() for number in range(int(octave.max()) + 1)])
    order = np.argsort(-energy, kind="stable")
    needed = int(np.searchsorted(np.cumsum(energy[order]), BAND * energy.sum())) + 1
    return np.isin(octave, order[:needed])


def _channels(pixels: np.ndarray, count: int) -> np.ndarray:
    """The pixels with 1 or 3 channels: grey is repeated, colour is averaged."""
    if pixels.shape[2] == count:
        return pixels
    return pixels.repeat(3, 2) if count == 3 else pixels.astype(np.float32).mean(2, keepdims=True)
