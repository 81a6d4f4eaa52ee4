"""File formats, told by content: what a file is, how many bits it has, whether it is lossless."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

READABLE = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are opened. PSD, EPS and the like are not: they hold more than one picture."""

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "gif", "heic", "heif", "jfif", "jpe", "jpeg", "jpg", "jp2", "j2k"),
        *("pbm", "pgm", "png", "pnm", "ppm", "svg", "tif", "tiff", "webp"),
    )
)
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_RAW = frozenset(
    (
        *("3fr", "arw", "cr2", "cr3", "dng", "erf", "iiq", "kdc", "mef", "mos", "mrw", "nef", "nrw", "orf"),
        *("pef", "raf", "rw2", "rwl", "sr2", "srf", "srw", "x3f"),
    )
)
_SIGNATURES = (
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (4, b"ftypcrx", "camera RAW"),
    (0, b"FUJIFILMCCD-RAW", "camera RAW"),
    (4, b"ftyp", "a video or picture container"),
    (4, b"moov", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska, WebM)"),
    (128, b"DICM", "DICOM"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"%PDF", "PDF"),
    (0, b"PAR1", "a parquet table"),
    (0, b"PK", "a ZIP archive (also .npz, .pt, .docx)"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"SQLite format 3", "a database (SQLite)"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"RIFF", "a RIFF file (video or sound)"),
    (0, b"gimp xcf", "a GIMP document"),
)


def foreign(data: bytes) -> tuple[str, str] | None:
    """(status, reason) for content that is recognised but is not a picture that can be opened; None for the rest."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return "failed", "empty file (0 bytes)"
    brands = [data[at : at + 4] for at in range(8, min(int.from_bytes(data[:4], "big"), 512), 4)]
    heic = data[4:8] == b"ftyp" and any(brand in _HEIC for brand in brands) and b"avif" not in brands
    if heic and not register_heif():
        return "skipped", 'HEIC needs one more package: pip install "miue[heif]"'
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in data[:4096].lower()):
        return "skipped", "vector graphics (SVG): export it as PNG"
    if start.startswith((b"<!doctype", b"<html")):
        return "failed", "a web page (HTML), not a picture, whatever its name says"
    if data.startswith(b"8BPS"):
        return "skipped", "a Photoshop document: export it as PNG"
    return None


def raw(name: str) -> bool:
    """Whether the extension is one of a camera's RAW format; its content may pass for a TIFF picture."""
    return name.rpartition(".")[2].lower() in _RAW


def unopened(data: bytes, name: str) -> str:
    """Why a file that no reader here takes is left out: what it is, and that it may show the clean pictures.

    The signature decides, then the extension. Only text without a NUL passes for text, and text can hold pictures too.
    """
    extension = name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name else ""
    if raw(name):
        return f"camera RAW (.{extension}): {_MAY_SHOW}"
    for at, mark, what in _SIGNATURES:
        if data[at : at + len(mark)] == mark:
            return f"{what}: {_MAY_SHOW}"
    if b"\0" not in data[:65536]:
        try:
            data[:65536].decode("utf-8-sig")
        except UnicodeDecodeError as error:
            if error.start < 65532:  # else a letter is cut in two
                return _binary(extension)
        return "text: not published; look into it first, because text can name clean pictures or hold them"
    return _binary(extension)


_MAY_SHOW = "not opened, not published; it may show the clean pictures"


def _binary(extension: str) -> str:
    return f"{f'.{extension} file' if extension else 'binary file'} of a format that is not read: {_MAY_SHOW}"


def may_be_picture(start: bytes) -> bool:
    """Whether content that begins so may be a picture that is opened, as far as Pillow's readers tell by it."""
    Image.init()
    readers = [Image.OPEN[name][1] for name in (*READABLE, "HEIF") if name in Image.OPEN]
    heif = start[4:8] == b"ftyp" and start[8:12] in (*_HEIC, b"mif1", b"msf1")
    return heif or any(accepts is None or accepts(start[:16]) for accepts in readers)


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
        header = re.match(rb"P[2356]\s(?:\s*#[^\n]*\n|\s*\d+\s){2}\s*(?:#[^\n]*\n\s*)*(\d+)", data)
        return 16 if header and int(header[1]) > 255 else 8
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


def tiff_reason(tags: Mapping[int, Any], data: bytes, bands: int) -> str:
    """Why a TIFF file is not taken, or nothing. bands: how many Pillow makes of it: it drops those it does not know."""
    if 50706 in tags or tags.get(254, 0) & 1 or data[8:10] == b"CR":  # DNG, a reduced first picture, Canon
        return "camera RAW: what opens as a picture is its preview; develop it and export it as PNG"
    stored = tags.get(277, 1)  # samples per pixel
    if stored != bands:
        return f"TIFF with {stored} bands of which {bands} would be read: convert it to grey, RGB or RGBA first"
    if set(tags.get(339, (1,))) - {1}:
        return "TIFF with signed or floating-point values: convert it to 8 bits first"
    return ""


def bare(data: bytes) -> bool:
    """Whether a file is a PNG with pixels and a colour profile alone, so that no other picture can be in it."""
    at, names = 8, set()
    while data.startswith(b"\x89PNG") and at + 8 <= len(data):
        names.add(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return b"IDAT" in names and names <= {b"IHDR", b"iCCP", b"IDAT", b"IEND"}


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
