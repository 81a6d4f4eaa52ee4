"""Which channel a picture went through: by its quantisation tables, its size, or by trying."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from miue.data.channel import recoded
from miue.data.source import Payload
from miue.publish.placing import FILTERS, Place

TRIED = tuple(f"{form}:quality={quality}" for form in ("jpeg", "webp") for quality in range(95, 25, -5))
CLOSE = 0.6  # share of the error that a channel must explain to count as the one


def channel_of(payload: Payload, place: Place) -> str:
    """The spelling of a channel that does about the same: "resize:share=0.5+jpeg:quality=75"; empty if none is known.

    By the place of a picture and the tables of a JPEG file. Other formats do not say it: `nearest` tries.
    """
    share = min(place.scale, 1) if place.whole else 1
    parts = [] if share > 0.99 else [f"resize:share={share:.2g}"]
    quality = jpeg_quality(payload)
    return "+".join([*parts, *([f"jpeg:quality={quality}"] if quality else [])])


def scaled(published: UInt8[np.ndarray, "h w c"], size: tuple[int, int]) -> list[UInt8[np.ndarray, "h2 w2 c"]]:
    """A picture at another size, (width, height), by the usual filters; itself if that is its own size."""
    height, width, channels = published.shape
    if size == (width, height):
        return [published]
    image = Image.fromarray(published if channels > 1 else published[..., 0])
    return [np.array(image.resize(size, each)).reshape(size[1], size[0], channels) for each in FILTERS]


def nearest(starts: Sequence[UInt8[np.ndarray, "h w c"]], back: UInt8[np.ndarray, "h w c"]) -> str:
    """The channel of TRIED whose result is nearest to a picture; empty if none explains most of the difference.

    starts: what the picture may have been before it was encoded.
    """
    target, tries = back.astype(np.float32), list[tuple[float, float, str]]()
    for start in starts:
        image = torch.from_numpy(start.copy()).permute(2, 0, 1)[None]
        own = float(np.square(start - target).mean())
        for channel in TRIED:
            result = recoded(image, channel)[0].permute(1, 2, 0).numpy()
            tries.append((float(np.square(result - target).mean()), own, channel))
    error, own, best = min(tries)
    return best if error**0.5 < CLOSE * own**0.5 else ""


def jpeg_quality(payload: Payload) -> int | None:
    """The quality of a JPEG file on the scale of libjpeg, by the nearest of its tables; None for another format."""
    if not isinstance(payload, bytes):
        return None
    try:
        with Image.open(BytesIO(payload), formats=("JPEG", "MPO")) as im:
            tables = getattr(im, "quantization", None)
    except Exception:  # no JPEG, or a damaged one: another reader has said so
        return None
    if not tables:
        return None
    mine = np.array(next(iter(tables.values())))
    distance = {quality: float(np.abs(table - mine).sum()) for quality, table in _tables().items()}
    return min(distance, key=lambda quality: distance[quality])


@cache
def _tables() -> dict[int, np.ndarray]:
    """The tables for brightness that libjpeg writes, by quality."""
    tables = {}
    for quality in range(1, 101):
        file = BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as im:
            tables[quality] = np.array(im.quantization[0])  # pyright: ignore[reportAttributeAccessIssue]
    return tables
