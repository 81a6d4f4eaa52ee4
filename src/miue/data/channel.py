"""Channels, the changes of published pictures on their way to a trainer: re-encoding and resizing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from miue.core.errors import UserError
from miue.core.spelling import split
from miue.core.types import ImageSet

CHANNELS: Mapping[str, tuple[str, float]] = {"jpeg": ("quality", 100), "webp": ("quality", 100), "resize": ("share", 1)}
"""Names of channels, each with its only field and the largest value; spelt like the defenses of the same names."""


def through(data: ImageSet, channel: str) -> ImageSet:
    """The set after the channel. Raises UserError if the channel is unknown or the number out of range.

    "jpeg:quality=75" and "webp:quality=80" re-encode every picture, "resize:share=0.75" scales it down to that share of
    its side and back up. Several are joined by "+", first to last.
    """
    return data.with_images(recoded(data.images, channel), f"{data.name} through {channel}")


def recoded(images: UInt8[Tensor, "n c h w"], channel: str) -> UInt8[Tensor, "n c h w"]:
    """The pictures after the channel."""
    for how, number in check_channel(channel):
        images = _through(images, how, number)
    return images


def _through(images: UInt8[Tensor, "n c h w"], how: str, number: float) -> UInt8[Tensor, "n c h w"]:
    side = max(int(number * images.shape[2]), 1)
    outputs = torch.empty_like(images)
    for row, image in enumerate(images):
        array = image.permute(1, 2, 0).squeeze(-1).numpy()
        changed = np.asarray(_resized(array, side) if how == "resize" else _encoded(array, how, int(number)))
        outputs[row] = torch.from_numpy(changed.reshape(*image.shape[1:], -1).copy()).permute(2, 0, 1)
    return outputs


def check_channel(channel: str) -> list[tuple[str, float]]:
    """Return the name and the number of every part of a channel. Raises UserError if one is not understood."""
    return [_checked(part, channel) for part in channel.split("+")]


def _checked(part: str, channel: str) -> tuple[str, float]:
    how, words, given = split(part)
    field, most = CHANNELS.get(how, ("", 0))
    if not words and list(given) == [field]:
        with suppress(ValueError):
            number = float(given[field])
            if 0 < number <= most and (number.is_integer() or how == "resize"):
                return how, number
    allowed = "jpeg:quality=75 and webp:quality=80 (1 to 100), resize:share=0.75 (of the side, up to 1)"
    raise UserError(f"channel {channel!r} is not understood; allowed: {allowed}, or several joined by +")


def _encoded(array: np.ndarray, form: str, quality: int) -> Image.Image:
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, form, quality=quality)
    return Image.open(buffer).convert("L" if array.ndim == 2 else "RGB")


def _resized(array: np.ndarray, side: int) -> Image.Image:
    image = Image.fromarray(array)
    return image.resize((side, side), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)
