"""File formats, recognised by content: format, bits per channel, and whether a file is lossless or signed."""

from __future__ import annotations

import re
from functools import cache

from PIL import Image

READABLE = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are opened. PSD, EPS and similar ones can hold several pictures."""

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "gif", "heic", "heif", "jfif", "jpe", "jpeg", "jpg", "jp2", "j2k"),
        *("pbm", "pgm", "png", "pnm", "ppm", "svg", "tif", "tiff", "webp"),
    )
)
_HEIC = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"))
_HEIF = frozenset((*_HEIC, b"mif1", b"msf1", b"miaf", b"MiHB", b"MiHE", b"avif", b"avis", b"avci", b"avcs", b"vvic"))
_CODECS = ((b"av1C", "AVIF"), (b"hvcC", "HEIC"), (b"avcC", "HEIF with H.264"), (b"vvcC", "HEIF with VVC"))

_BITS = (b"P1", b"P4")  # PPM with 1 bit, whose header has no largest value
_HEADER = 2**16  # bytes that contain the boxes which describe a picture

# second bytes of the markers of JPEG: Huffman tables and restarts, quantisation tables, and so on
_TABLES, _QUANTA, _JFIF, _FRAME, _SCAN = (0xC4, 0xDD), 0xDB, 0xE0, 0xC0, 0xDA
_LAYERS = {1: "L", 3: "RGB"}
_SMALL = 2**20  # pixels


def readers(data: bytes) -> tuple[str, ...]:
    """Pillow's names of the formats to try for this content."""
    return (*READABLE, "HEIF") if heif(data) not in ("", "AVIF") and register_heif() else READABLE


def may_be_picture(start: bytes) -> bool:
    """True if content with this start may be a picture that can be opened."""
    return bool(heif(start) or reader(start))


def reader(start: bytes) -> str:
    """The format in READABLE whose reader in Pillow accepts this start; empty if there is none."""
    Image.init()
    accepts = {name: Image.OPEN[name][1] for name in READABLE if name in Image.OPEN}
    return next((name for name, accept in accepts.items() if accept is None or accept(start[:16]) is True), "")


def heif(data: bytes) -> str:
    """The format of a HEIF file (HEIC, AVIF ...), by its codec, else its brands; empty for other files."""
    if data[4:8] != b"ftyp":
        return ""
    brands = {data[at : at + 4] for at in range(8, min(int.from_bytes(data[:4], "big"), 512), 4)}
    if not brands & _HEIF:
        return ""
    by_brand = "AVIF" if brands & {b"avif", b"avis"} else "HEIC" if brands & _HEIC else "HEIF"
    return next((name for mark, name in _CODECS if mark in data[:_HEADER]), by_brand)


@cache
def register_heif() -> bool:
    """Register HEIC with Pillow. Returns whether the extra package is installed."""
    try:
        import pillow_heif  # type: ignore[import-not-found]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def bits(data: bytes, form: str) -> int:
    """Bits per channel, from the header, because Pillow opens several deeper formats as if they had 8."""
    if form == "PNG":
        return data[24]
    if form == "PPM":
        words = re.sub(rb"#[^\r\n]*[\r\n]", b"", data[:_HEADER]).split(maxsplit=4)  # kind, width, height, largest value
        return 16 if len(words) > 3 and words[3].isdigit() and words[0] not in _BITS and int(words[3]) > 255 else 8
    if form == "AVIF":
        at = data.find(b"av1C")
        return 10 if at >= 0 and data[at + 6] & 0x40 else 8
    if form == "HEIF":
        at = data.find(b"hvcC")
        return 8 + max(data[at + 21] & 7, data[at + 22] & 7) if at >= 0 else 8
    if form == "JPEG2000":
        at = data.find(b"\xff\x51")
        return (data[at + 40] & 0x7F) + 1 if at >= 0 else 8
    return 8


def plain_jpeg(data: bytes) -> tuple[str, tuple[int, int]] | None:
    """Mode and size of a small baseline JPEG of nothing but tables and pixels; None for all other content.

    It has no metadata, so that it can be decoded without Pillow's reader, which takes longer than a small picture.
    """
    if not data.startswith(b"\xff\xd8\xff") or len(data) > _HEADER:
        return None
    at, shape = 2, None
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        part = data[at + 4 : end]
        if kind == _SCAN:
            return shape
        if kind == _FRAME and shape is None and len(part) > 5 and part[0] == 8 and part[5] in _LAYERS:
            height, width = int.from_bytes(part[1:3], "big"), int.from_bytes(part[3:5], "big")
            if len(part) != 6 + 3 * part[5] or not 0 < width * height <= _SMALL:
                return None
            shape = _LAYERS[part[5]], (width, height)
        elif not (
            kind in _TABLES
            or (kind == _JFIF and part.startswith(b"JFIF\0") and len(part) > 13)
            or (kind == _QUANTA and len(part) % 65 == 0 and max(part[::65], default=9) < 4)
        ):
            return None
        at = end
    return None


def chunks(data: bytes) -> set[bytes]:
    """The kinds of chunks of a PNG file; none if it is no PNG."""
    at, names = 8, set[bytes]()
    while data.startswith(b"\x89PNG") and at + 8 <= len(data):
        names.add(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return names


def bare(data: bytes) -> bool:
    """True if a file is a PNG with only pixels and a colour profile, so that it cannot contain another picture."""
    names = chunks(data)
    return b"IDAT" in names and names <= {b"IHDR", b"iCCP", b"IDAT", b"IEND"}


def followed(data: bytes) -> bool:
    """True if a PNG or WebP file has data after its end."""
    if data.startswith(b"\x89PNG"):
        return not data.endswith(b"\x00\x00\x00\x00IEND\xaeB`\x82")
    return len(data) > 8 + (int.from_bytes(data[4:8], "little") + 1) // 2 * 2


def lossless(data: bytes) -> bool:
    """True if a file is lossless as the writer makes it: PNG, or WebP without a lossy frame."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return True
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    at, chunks = 12, set()
    while at + 8 <= len(data):
        chunks.add(data[at : at + 4])
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    return b"VP8L" in chunks and not chunks & {b"VP8 ", b"ANMF"}


def signed(data: bytes) -> bool:
    """Return True if a file has content credentials (C2PA) in it: a JUMBF box of that type, valid or not."""
    return b"jumdc2pa" in data
