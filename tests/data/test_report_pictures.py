"""Picture formats that people reported: nothing is called harmless that may show a picture, nothing is cut silently."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from making import encoded, folder, pixels, put
from miue.data import formats, scan
from miue.data.metadata import Metadata
from miue.data.picture import Picture, encode

NUL = b"\0" * 300
UNREAD = {
    "a.jxl": (b"\xff\x0a" + NUL, "JPEG XL"),
    "a.tga": (b"\0\0\2" + NUL, ".tga"),
    "a.ico": (b"\0\0\1\0" + NUL, "ICO"),
    "a.pcx": (b"\n\5\1\x08" + NUL, "PCX"),
    "a.cr3": (b"\0\0\0\x18ftypcrx " + NUL, "RAW"),
    "a.raf": (b"FUJIFILMCCD-RAW " + NUL, "RAW"),
    "a.dcm": (b"\0" * 128 + b"DICM" + NUL, "DICOM"),
    "a.exr": (b"\x76\x2f\x31\x01" + NUL, "EXR"),
    "a.npy": (b"\x93NUMPY\1\0" + NUL, "NumPy"),
    "a.mp4": (b"\0\0\0\x18ftypisom" + NUL, "video"),
    "a.mov": (b"\0\0\0\x14ftypqt  " + NUL, "video"),
    "a.pdf": (b"%PDF-1.7\n" + NUL, "PDF"),
    "a.parquet": (b"PAR1" + NUL, "parquet"),
    "a.zip": (b"PK\3\4" + NUL, "ZIP"),
    "a.sqlite": (b"SQLite format 3\0" + NUL, "SQLite"),
    "a.webm": (b"\x1a\x45\xdf\xa3" + NUL, "video"),
    "a.h5": (b"\x89HDF\r\n\x1a\n" + NUL, "HDF5"),
    "a.safetensors": (b"\x80\0\0\0\0\0\0\0{}" + NUL, ".safetensors"),
    "a.pkl": (b"\x80\4\x95\xff" + NUL, ".pkl"),
    "a.flv": (b"FLV\1" + NUL, "video"),
    "a.jpg": (b"OggS" + NUL, "video"),
    "a.mpg": (b"\0\0\1\xba" + NUL, "video"),
    "a.wmv": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + NUL, "video"),
    "a.png": (b"\x8aMNG\r\n\x1a\n" + NUL, "MNG"),
    "unknown": (b"\1\2\xff" + NUL, "binary"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_formats_that_are_not_read_are_named_and_nobody_is_told_to_copy_them(tmp_path: Path, name: str):
    content, kind = UNREAD[name]
    put(folder(tmp_path), f"cat/{name}", content)
    entry = next(e for e in scan(tmp_path).entries if e.path == f"cat/{name}")
    assert entry.status == "skipped" and kind in entry.reason
    assert "may show the clean pictures" in entry.reason and "copy" not in entry.reason


def tiff(tmp_path: Path, array: np.ndarray, **options) -> bytes:
    path = tmp_path / "made.tif"
    tifffile.imwrite(path, array, **options)
    content = path.read_bytes()
    path.unlink()
    return content


def eight(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


GREY, COLOUR = eight(16, 16), eight(16, 16, 3)
DNG = {"photometric": "rgb", "extratags": [(50706, 1, 4, b"\1\4\0\0", True)]}
RAW = {
    "dng": ("a.dng", COLOUR, DNG),
    "dng under another name": (
        "a.tif",
        COLOUR,
        DNG,
    ),
    "nef": ("a.nef", COLOUR, {"photometric": "rgb", "subfiletype": 1}),
    "a preview comes first": ("a.tiff", COLOUR, {"photometric": "rgb", "subfiletype": 1}),
    "by the extension": ("a.pef", COLOUR, {"photometric": "rgb"}),
    "fff": ("a.fff", COLOUR, {"photometric": "rgb"}),
    "gpr": ("a.GPR", COLOUR, {"photometric": "rgb"}),
    "crw": ("a.crw", COLOUR, {"photometric": "rgb"}),
    "arw": ("a.ARW", COLOUR, {"photometric": "rgb"}),
}


@pytest.mark.parametrize("case", RAW)
def test_the_preview_of_a_raw_file_is_not_taken_for_the_picture(tmp_path: Path, case: str):
    name, array, options = RAW[case]
    assert "RAW" in skipped(tmp_path, name, tiff(tmp_path, array, **options))


BANDS = {
    "2": (eight(16, 16, 2), {"photometric": "minisblack", "planarconfig": "contig"}),
    "4 without alpha": (eight(16, 16, 4), {"photometric": "rgb", "extrasamples": [0]}),
    "5": (eight(16, 16, 5), {"photometric": "rgb", "extrasamples": [0, 0]}),
    "5 with alpha": (eight(16, 16, 5), {"photometric": "rgb", "extrasamples": [2, 0]}),
    "signed": (GREY.astype(np.int8), {"photometric": "minisblack"}),
    "16 bits": (GREY.astype(np.uint16), {"photometric": "minisblack"}),
    "float": (GREY.astype(np.float32), {"photometric": "minisblack"}),
    "16-bit colour": (COLOUR.astype(np.uint16), {"photometric": "rgb"}),
}


@pytest.mark.parametrize("case", BANDS)
def test_a_tiff_of_which_something_would_be_dropped_is_skipped(tmp_path: Path, case: str):
    array, options = BANDS[case]
    assert skipped(tmp_path, "a.tif", tiff(tmp_path, array, **options))


@pytest.mark.parametrize("options", [{"photometric": "rgb"}, {"photometric": "rgb", "planarconfig": "separate"}])
def test_a_plain_tiff_is_taken(tmp_path: Path, options: dict):
    array = COLOUR.transpose(2, 0, 1) if "planarconfig" in options else COLOUR
    put(folder(tmp_path), "cat/a.tif", tiff(tmp_path, array, **options))
    assert scan(tmp_path).summary() == {"ok": 5}


PPM = [b"P3 # x\n1 # y\n1\n# z\n65535\n1 2 65535\n", b"P6 #x\n \t1\r1 #\r1023 " + bytes(6), b"P2 1 1 65#x\n535 9"]


@pytest.mark.parametrize(
    "text", [b"P3\n1 1\n65535\n1 2 65535\n", b"P2\n# x\n1 1\n1023\n9\n", b"P5 1 1 65535\n\0\1", *PPM]
)
def test_a_deep_ppm_is_skipped(tmp_path: Path, text: bytes):
    assert "more than 8 bits" in skipped(tmp_path, "a.ppm", text)


@pytest.mark.parametrize(("depth", "bits"), [(0, 8), (2, 10), (4, 12)])
def test_the_depth_of_a_heic_file_is_read(depth: int, bits: int):
    box = b"\0\0\0\x40hvcC" + bytes(17) + bytes([0xF8 | depth, 0xF8 | depth]) + bytes(20)
    assert formats.bits(b"\0\0\0\x18ftypheic" + box, "HEIF") == bits


def test_an_avif_of_brand_mif1_is_read_and_a_heic_of_that_brand_is_called_heic(tmp_path: Path):
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content = encoded(pixels(1), "AVIF")
    put(folder(tmp_path), "cat/a.avif", content[:8] + b"mif1" + content[12:])
    put(tmp_path, "cat/b.heic", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40))
    entries = {e.path: e for e in scan(tmp_path).entries}
    assert entries["cat/a.avif"].status == "ok"
    assert "HEIC" in entries["cat/b.heic"].reason or entries["cat/b.heic"].status == "failed"


def test_a_grey_profile_is_not_written_into_a_colour_file():
    grey = b"\0" * 12 + b"mntrGRAYXYZ " + bytes(120)
    picture = Picture(GREY[..., None], None, Metadata(icc=grey))
    kept = {form: Image.open(BytesIO(encode(picture, form))).info.get("icc_profile") for form in ("png", "webp")}
    assert kept == {"png": grey, "webp": None}


def skipped(root: Path, name: str, content: bytes) -> str:
    put(folder(root), f"cat/{name}", content)
    entry = next(e for e in scan(root).entries if e.path == f"cat/{name}")
    assert entry.status == "skipped", entry
    return entry.reason
