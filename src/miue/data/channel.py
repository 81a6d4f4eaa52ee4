"""What happens to published pictures on their way to a trainer: re-encoding and resizing."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from miue.core.errors import UserError
from miue.core.types import ImageSet

CHANNELS = ("jpeg:QUALITY", "webp:QUALITY", "resize:SIDE")


def through(data: ImageSet, channel: str) -> ImageSet:
    """The set as it arrives: "jpeg:75" and "webp:80" re-encode every picture, "resize:24" scales it down and back up.

    Raises UserError for another channel or a number out of range.
    """
    return data.with_images(recoded(data.images, channel), f"{data.name} through {channel}")


def recoded(images: UInt8[Tensor, "n c h w"], channel: str) -> UInt8[Tensor, "n c h w"]:
    """The pictures alone, on the same way."""
    how, _, text = channel.partition(":")
    number, side = int(text) if text.isdigit() else 0, images.shape[2]
    if how not in ("jpeg", "webp", "resize") or not 1 <= number <= (side if how == "resize" else 100):
        raise UserError(f"channel {channel!r} is not understood; allowed: {', '.join(CHANNELS)}, as in jpeg:75")
    arrived = torch.empty_like(images)
    for row, image in enumerate(images):
        array = image.permute(1, 2, 0).squeeze(-1).numpy()
        sent = np.asarray(_resized(array, number) if how == "resize" else _encoded(array, how, number))
        arrived[row] = torch.from_numpy(sent.reshape(*image.shape[1:], -1).copy()).permute(2, 0, 1)
    return arrived


def _encoded(array: np.ndarray, form: str, quality: int) -> Image.Image:
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, form, quality=quality)
    return Image.open(buffer).convert("L" if array.ndim == 2 else "RGB")


def _resized(array: np.ndarray, side: int) -> Image.Image:
    image = Image.fromarray(array)
    return image.resize((side, side), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)
