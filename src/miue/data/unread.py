"""Files that are not opened as pictures: their kind, by content first and by name last."""

from __future__ import annotations

from typing import Literal

from miue.data import tiff
from miue.data.formats import heif, reader, register_heif

Status = Literal["skipped", "failed"]

_RAW = frozenset(
    (
        *("3fr", "arw", "bay", "cap", "cr2", "cr3", "crw", "dcr", "dcs", "dng", "drf", "eip", "erf", "fff", "gpr"),
        *("iiq", "k25", "kdc", "mdc", "mef", "mos", "mrw", "nef", "nrw", "orf", "pef", "ptx", "r3d", "raf", "raw"),
        *("rw2", "rwl", "rwz", "sr2", "srf", "srw", "x3f"),
    )
)
_SIGNATURES = (
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (4, b"ftypcrx", "camera RAW (Canon CR3)"),
    (0, b"FUJIFILMCCD-RAW", "camera RAW (Fujifilm RAF)"),
    (0, b"IIRO", "camera RAW (Olympus ORF)"),
    (0, b"IIRS", "camera RAW (Olympus ORF)"),
    (0, b"MMOR", "camera RAW (Olympus ORF)"),
    (0, b"IIU\0", "camera RAW (Panasonic RW2)"),
    (0, b"FOVb", "camera RAW (Sigma X3F)"),
    (0, b"\0MRM", "camera RAW (Minolta MRW)"),
    (4, b"ftyp", "a video (MP4, MOV or a relative)"),
    (4, b"moov", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska, WebM)"),
    (0, b"FLV\1", "a video (Flash)"),
    (0, b"OggS", "a video or sound (Ogg)"),
    (0, b"\0\0\1\xba", "a video (MPEG)"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video or sound (WMV, WMA)"),
    (0, b"\x8aMNG", "an animation (MNG)"),
    (128, b"DICM", "DICOM"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"icns", "ICNS"),
    (0, b"\n\5\1", "PCX"),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster"),
    (0, b"\x01\xda", "SGI"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"FLIF", "FLIF"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"gimp xcf", "a GIMP document"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PAR1", "a parquet table"),
    (0, b"ARROW1", "an Arrow table"),
    (0, b"PK\3\4", "a ZIP archive (also .npz, .pt, .docx)"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"SQLite format 3", "a database (SQLite)"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"MATLAB 5.0", "a MATLAB file"),
    (8, b"AVI ", "a video (AVI)"),
    (8, b"WAVE", "sound (WAV)"),
)
_MAY_SHOW = "not opened, not published; it may show the clean pictures"


def raw_name(name: str) -> str:
    """The reason to refuse a name with an extension of camera RAW, whose content may look like TIFF; else empty."""
    extension = _extension(name)
    return f"camera RAW (.{extension}): {_MAY_SHOW}" if extension in _RAW else ""


def unread(data: bytes, name: str, expected: bool) -> tuple[Status, str]:
    """(status, reason) for content that cannot be read: its kind, and a warning that it may show clean pictures.

    expected: whether its name claims to be a picture. Only text without a NUL byte counts as text, and even text can
    hold pictures.
    """
    if what := heif(data):
        return _of_heif_family(what)
    if data.startswith(tiff.HEADS):
        return _tiff(data)
    if _is_targa(data):
        return "skipped", f"TGA: {_MAY_SHOW}"
    if what := next((what for at, mark, what in _SIGNATURES if data[at : at + len(mark)] == mark), ""):
        return "skipped", f"{what}: {_MAY_SHOW}"
    if _is_text(data[:65536]):
        return _text(data, expected)
    if what := reader(data):
        return "failed", f"cannot be opened as {what}: damaged, or of a kind that is not read"
    if reason := raw_name(name):
        return "skipped", reason
    if expected:
        return "failed", "its content is no known picture format"
    what = f".{extension} file" if (extension := _extension(name)) else "binary file"
    return "skipped", f"{what} of a format that is not read: {_MAY_SHOW}"


def _extension(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name else ""


def _of_heif_family(what: str) -> tuple[Status, str]:
    if what == "AVIF":
        return "failed", "cannot be opened as AVIF: damaged, or this Pillow is built without AVIF"
    if not register_heif():
        return "skipped", f'{what} needs one more package: pip install "miue[heif]"'
    return "failed", f"cannot be opened as {what}: damaged, or of a kind that is not read"


def _tiff(data: bytes) -> tuple[Status, str]:
    try:
        return "skipped", tiff.reason(data, 0)
    except Exception:  # damaged tags may raise any error
        return "failed", "cannot be opened as TIFF: damaged, or of a kind that is not read"


def _text(data: bytes, expected: bool) -> tuple[Status, str]:
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in start):
        return "skipped", "vector graphics (SVG): export it as PNG"
    if not expected:
        return "skipped", "text: not published; look into it first, because text can name clean pictures or hold them"
    if not data:
        return "failed", "empty file (0 bytes)"
    if start.startswith(b"version https://git-lfs"):
        return "failed", "a pointer of Git LFS in place of the picture: fetch it with git lfs pull"
    if start.startswith(b"/annex/objects/"):
        return "failed", "a pointer of git-annex in place of the picture: fetch it with git annex get"
    what = "a web page (HTML)" if start.startswith((b"<!doctype", b"<html")) else "text"
    return "failed", f"{what}, not a picture, whatever its name says"


def _is_text(start: bytes) -> bool:
    try:
        start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return error.start >= 65532 and b"\0" not in start  # a character cut in two at the end
    return b"\0" not in start


def _is_targa(data: bytes) -> bool:
    """True if content has a TGA header. TGA has no signature, so this checks palette kind, picture kind and depth."""
    kinds = {(0, 2, 24), (0, 2, 32), (0, 10, 24), (0, 10, 32), (0, 3, 8), (0, 11, 8), (1, 1, 8), (1, 9, 8)}
    return len(data) > 18 and (data[1], data[2], data[16]) in kinds and any(data[12:14]) and any(data[14:16])
