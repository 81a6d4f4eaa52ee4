"""Pictures for people: originals, protected pictures and amplified differences in one sheet; a set as a folder."""

from __future__ import annotations

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from miue.core.errors import UserError
from miue.core.files import named, write_atomically
from miue.core.types import ImageSet
from miue.data.read import clean_picture
from miue.data.scan import scan_output
from miue.data.source import Source
from miue.publish.align import align
from miue.publish.output import refuse_existing

AMPLIFIED = 10
TILE = 128


def preview(clean: Source, out: Path, to: Path, count: int = 8) -> Path:
    """Write a PNG with `count` columns from all over the set: original, protected, grey + 10 x difference.

    It shows clean pictures, so keep it private. Raises UserError if the sets do not belong together, or if `to` lies in
    one of them.
    """
    if count < 1:
        raise UserError(f"{count} pictures: at least 1")
    if to.suffix.lower() != ".png":
        raise UserError(f"{to}: a preview is a .png file")
    for folder in (out,) if clean.kind == "named" else (out, Path(clean.location)):
        if to.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{to}: lies in {folder}; it shows clean pictures beside protected ones: put it elsewhere")
    published = scan_output(out)
    rows = align(clean, published)
    shown = (rows >= 0).nonzero().flatten()
    shown = shown[:: max(len(shown) // count, 1)][:count]
    sheet = Image.new("RGB", (max(len(shown), 1) * TILE, 3 * TILE), "white")
    for at, row in enumerate(shown.tolist()):
        before = rgb(clean_picture(clean, clean.rows[row]).pixels)
        after = rgb(clean_picture(published, published.rows[int(rows[row])]).pixels)
        change = np.clip(127 + AMPLIFIED * (after.astype(int) - before), 0, 255).astype(np.uint8)
        for line, array in enumerate((before, after, change)):
            sheet.paste(_tile(array), (at * TILE, line * TILE))
    write_atomically(to, lambda part: sheet.save(part, "png"))
    return to


def export(data: ImageSet, folder: Path, fast: bool = False) -> Path:
    """Write a set as a folder of class folders with PNG files. The folder appears complete or not at all.

    PNG files keep their names; in a set with others, rows of a table or JPEG files, all are called by class and row.
    fast: saves a third of the time, for files that are hardly larger; the pixels are the same. Raises UserError if the
    folder exists.
    """
    refuse_existing(folder, "another folder")
    options: dict[str, Any] = {"compress_level": 1, "compress_type": zlib.Z_RLE} if fast else {}
    names = data.sources
    if not names or not all(name.endswith(".png") for name in names):
        names = [f"{data.classes[label]}/{row:05}.png" for row, label in enumerate(data.labels.tolist())]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        part = Path(temporary) / folder.name  # a subfolder, since the temporary folder has other permissions
        with named(folder):
            for name, image in zip(names, data.images, strict=True):
                path = part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy()).save(path, **options)
        part.rename(folder)
    return folder


def rgb(pixels: np.ndarray) -> np.ndarray:
    """Pixels with three channels; grey ones are repeated."""
    return pixels.repeat(3, -1) if pixels.shape[-1] == 1 else pixels


def _tile(array: np.ndarray) -> Image.Image:
    image = Image.fromarray(array)
    scale = TILE / max(image.size)
    size = (max(int(image.width * scale), 1), max(int(image.height * scale), 1))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
