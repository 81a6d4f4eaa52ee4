"""File formats, told by content: what a file is, how many bits it has, whether it is lossless."""

from __future__ import annotations

import re

READABLE = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are opened. PSD, EPS and the like are not: they hold more than one picture."""

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "gif", "heic", "heif", "jfif", "jpe", "jpeg", "jpg", "jp2", "j2k"),
        *("pbm", "pgm", "png", "pnm", "ppm", "svg", "tif", "tiff", "webp"),
    )
)
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def foreign(data: bytes) -> tuple[str, str] | None:
    """(status, reason) for content that is recognised but is not a picture that can be opened; None for the rest."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return "failed", "empty file (0 bytes)"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC and not register_heif():
        return "skipped", 'HEIC needs one more package: pip install "miue[heif]"'
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in data[:4096].lower()):
        return "skipped", "vector graphics (SVG): export it as PNG"
    if start.startswith((b"<!doctype", b"<html")):
        return "failed", "a web page (HTML), not a picture, whatever its name says"
    if data.startswith(b"8BPS"):
        return "skipped", "a Photoshop document: export it as PNG"
    return None


def register_heif() -> bool:
    """Teach Pillow HEIC where the extra is installed."""
    try:
        import pillow_heif  # type: ignore[import-not-found]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def bits(data: bytes, form: str) -> int:
    """Bits per channel, read from the header: Pillow opens several deeper files as if they had 8."""
    if form == "PNG":
        return data[24]
    if form == "PPM":
        header = re.match(rb"P[56]\s(?:\s*#[^\n]*\n|\s*\d+\s){2}\s*(?:#[^\n]*\n\s*)*(\d+)", data)
        return 16 if header and int(header[1]) > 255 else 8
    if form == "AVIF":
        at = data.find(b"av1C")
        return 10 if at >= 0 and data[at + 6] & 0x40 else 8
    if form == "JPEG2000":
        at = data.find(b"\xff\x51")
        return (data[at + 40] & 0x7F) + 1 if at >= 0 else 8
    return 8


def followed(data: bytes) -> bool:
    """Whether a PNG or WebP file has something behind its end."""
    if data.startswith(b"\x89PNG"):
        return not data.endswith(b"\x00\x00\x00\x00IEND\xaeB`\x82")
    return len(data) > 8 + (int.from_bytes(data[4:8], "little") + 1) // 2 * 2


def lossless(data: bytes) -> bool:
    """Whether the file is one of those that the writer makes: PNG, or WebP without a lossy frame."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return True
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    at, found = 12, set()
    while at + 8 <= len(data):
        found.add(data[at : at + 4])
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    return b"VP8L" in found and not found & {b"VP8 ", b"ANMF"}
