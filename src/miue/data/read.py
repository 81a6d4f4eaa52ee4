"""Read the pictures of a scanned source into one tensor."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from miue.core.errors import UserError
from miue.core.files import named, reserve
from miue.core.types import ImageSet
from miue.data.canvas import LARGEST, OWN, USUAL, fitted
from miue.data.picture import Picture, decode, quiet
from miue.data.source import Payload, Source, ahead, sha256

_IN_MEMORY = LARGEST
LEAST, MOST = 8, 1024  # pixels a side


def default_canvas(source: Source) -> int:
    """The side of all pictures (at least 8) if they are square, equal and at most 96 pixels; else 64."""
    sides = {side for entry in source.usable for side in (entry.width, entry.height)}
    side = sides.pop()
    return max(side, LEAST) if not sides and side <= OWN else USUAL


def check_canvas(canvas: int | None) -> None:
    """Raise UserError if networks cannot take pictures with this side."""
    if canvas is not None and not LEAST <= canvas <= MOST:
        raise UserError(f"a canvas of {canvas} pixels: networks see squares of {LEAST} to {MOST} pixels a side")


def read(source: Source, canvas: int | None = None, *, grey: bool | None = None, cache: Path | None = None) -> ImageSet:
    """Every usable picture, stretched to canvas x canvas. Row i is source.usable[i]. Alpha is dropped.

    grey: None gives one channel if all pictures are grey, else three; False always gives three; True requires grey.
    cache: a folder for the pixels if they exceed 2 GiB. Pictures that the scan held at this size are not decoded again.
    Raises UserError if a file has changed since the scan.
    """
    side = default_canvas(source) if canvas is None else canvas
    if side < 1:
        raise UserError(f"a canvas of {side} pixels is too small; it is at least 1")
    single = source.channels == 1 if grey is None else grey
    if single and source.channels > 1:
        coloured = next(entry.path for entry in source.usable if not entry.grey)
        raise UserError(f"{source.location}: grey pictures are asked for, but {coloured} has colour")
    shape = (len(source.rows), 1 if single else 3, side, side)
    if cache is not None and np.prod(shape) > _IN_MEMORY:
        images = _decoded(source, _mapped(shape, cache / f"{source.digest}-{shape[1]}x{side}.u8"))
    elif (held := source.held and source.held.take(source.rows, shape[1:])) is not None:
        for _ in ahead(partial(_payload, source), source.rows):  # unchanged?
            pass
        images = torch.from_numpy(held)
    else:
        images = _decoded(source, torch.empty(shape, dtype=torch.uint8))
    labels = torch.tensor([entry.label for entry in source.usable])
    return ImageSet(images, labels, source.classes, source.name, tuple(entry.path for entry in source.usable))


def cached(source: Source, canvas: int) -> int:
    """Bytes that `read` writes into its cache; 0 if the pixels stay in memory."""
    size = len(source.rows) * source.channels * canvas**2
    return size if size > _IN_MEMORY else 0


def read_like(source: Source, model: ImageSet, name: str, of: str) -> ImageSet:
    """Every usable picture, read at the shape of the set `model`. Raises UserError if the classes differ."""
    data = read(source, model.shape[1], grey=model.shape[0] == 1)
    if data.classes != model.classes:
        ours, theirs = ", ".join(model.classes[:8]), ", ".join(data.classes[:8])
        raise UserError(f"{name}: its classes ({theirs}) are not those of {of} ({ours})")
    return data


def clean_picture(source: Source, row: int) -> Picture:
    """Decode entry `row` exactly as the scan did. Raises UserError if it has changed since the scan."""
    return decode(_payload(source, row), source.rules)


def _payload(source: Source, row: int) -> Payload:
    entry = source.entries[row]
    try:
        payload = source.store.get(row)
    except OSError as error:
        raise UserError(f"{entry.path}: cannot be read any more ({error}); run the command again") from None
    if sha256(payload) != entry.sha256:
        raise UserError(f"{entry.path}: has changed since it was scanned; run the command again")
    return payload


def _decoded(source: Source, images: UInt8[Tensor, "n c s s"]) -> UInt8[Tensor, "n c s s"]:
    """The tensor, filled with the pictures. Each is fitted in its thread, so that only its canvas waits."""
    side = images.shape[2]

    def small(row: int) -> UInt8[np.ndarray, "s s c"]:
        return fitted(clean_picture(source, row).pixels, side)

    with quiet():
        for i, pixels in enumerate(ahead(small, source.rows, lambda row: source.entries[row].size)):
            images[i] = torch.from_numpy(np.moveaxis(pixels, 2, 0).copy())
    return images


def _mapped(shape: tuple[int, int, int, int], file: Path) -> UInt8[Tensor, "n c h w"]:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)  # a new file, so that a set read earlier keeps its pixels
    try:
        with named(file), file.open("wb") as new:
            reserve(new, math.prod(shape))
    except OSError:
        file.unlink(missing_ok=True)
        raise
    return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=shape))
