"""TIFF files: checks that Pillow reads the whole picture in 8 bits. RAW files of cameras are TIFF inside."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DEEP = "more than 8 bits per channel would be clipped to 8: convert it to 8 bits first"

_PALETTE, _INKS, _SENSOR, _LINEAR = 3, 5, 32803, 34892  # values of PhotometricInterpretation, the last two RAW
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "LAB", 9: "LAB"}
_OLD_JPEG = 6  # a value of Compression
_DEPTH = 32997  # tag: slices of a volume


def directories(data: bytes) -> list[ImageFileDirectory_v2]:
    """The tags of every picture in a file: the first one, and those in later and in nested directories.

    A circular chain, or one that leaves the file, ends at that point.
    """
    head = data[:16] if data[2] == 43 else data[:8]  # BigTIFF has longer offsets
    file, todo, seen, pictures = io.BytesIO(data), [ImageFileDirectory_v2(head).next], set[int](), []
    while todo:
        if (at := todo.pop(0)) in seen or not 0 < at < len(data):
            continue
        seen.add(at)
        file.seek(at)
        tags = ImageFileDirectory_v2(head)
        tags.load(file)
        pictures.append(tags)
        todo += [tags.next, *_values(tags, Tag.SubIFDs)]
    return pictures


def reason(data: bytes, bands: int) -> str:
    """The reason why a file is refused; empty if it is not. Sources: TIFF 6.0, DNG 1.7.

    bands: number of bands that Pillow reads (it drops unknown ones); 0 if it cannot open the file. Pillow reads
    only the first picture.
    """
    first, *others = directories(data)
    colours = first.get(Tag.PhotometricInterpretation, 0)
    if data[8:10] == b"CR" or any(_raw(tags) for tags in (first, *others)):  # CR: Canon
        return "camera RAW: what opens as a picture is its preview; develop it and export it as PNG"
    if any(_area(tags) > _area(first) for tags in others):
        return "TIFF (or camera RAW) with a larger picture behind the one that opens, a preview: export it as PNG"
    if first.get(Tag.NewSubfileType, 0) & 1:
        return "TIFF (or camera RAW) that has only a preview where its picture should be: export that as PNG"
    if max(_values(first, Tag.BitsPerSample), default=1) > 8:
        return DEEP
    if set(_values(first, Tag.SampleFormat)) - {1}:
        return "TIFF with signed or floating-point values: convert it to 8 bits first"
    if first.get(_DEPTH, 1) > 1:
        return f"TIFF with a volume of {first[_DEPTH]} slices, of which one would be read: save each as a PNG"
    if 0 in (*_values(first, Tag.StripOffsets), *_values(first, Tag.TileOffsets)):
        return "TIFF of which strips or tiles are missing (sparse): write it out in full, as PNG"
    if colours == _INKS and first.get(Tag.InkSet, 1) != 1:
        return "TIFF with inks that are not CMYK: convert it to RGB first"
    if colours == _PALETTE and (text := _palette(_values(first, Tag.ColorMap))):
        return text
    if not bands:
        kind = COMPRESSION_INFO.get(first.get(Tag.Compression, 1), f"number {first.get(Tag.Compression)}")
        what = _COLOURS.get(colours, f"number {colours}")
        bits = "/".join(map(str, _values(first, Tag.BitsPerSample) or (1,)))
        return f"TIFF of a kind that is not read (colours {what}, {bits} bits, compression {kind}): save it as PNG"
    default = 3 if first.get(Tag.Compression) == _OLD_JPEG else 1
    stored = first.get(Tag.SamplesPerPixel, default)
    if stored != bands:
        return f"TIFF with {stored} bands of which {bands} would be read: convert it to grey, RGB or RGBA first"
    return ""


def _values(tags: ImageFileDirectory_v2, tag: int) -> Sequence[Any]:
    value = tags.get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _raw(tags: ImageFileDirectory_v2) -> bool:
    """True if a directory belongs to a DNG file or holds sensor data."""
    return Tag.DNGVersion in tags or tags.get(Tag.PhotometricInterpretation) in (_SENSOR, _LINEAR)


def _area(tags: ImageFileDirectory_v2) -> int:
    return tags.get(Tag.ImageWidth, 0) * tags.get(Tag.ImageLength, 0)


def _palette(values: Sequence[int]) -> str:
    """The reason why a palette is refused; empty if it is not. Pillow divides its 16-bit values by 256."""
    if max(values, default=0) < 256 and any(values):
        return "TIFF with a palette of 8-bit values, which readers take for black: save it as PNG"
    if any(value % 257 and value % 256 for value in values):
        return "TIFF with a palette of more than 8 bits per colour: convert it to RGB of 8 bits first"
    return ""
