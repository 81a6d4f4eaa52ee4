"""Odd files: each is published with all of its picture, or skipped with a reason that names what it is."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from making import encoded, folder, noise, pixels, put, tree
from miue.core.errors import UserError
from miue.data import scan
from miue.data.folder import folded
from miue.data.picture import Picture, Rules, Unfit, decode, quiet
from miue.publish import write
from miue.workflows.job import Job

NUL = b"\0" * 300
RNG = np.random.default_rng(0)
GREY, COLOUR = RNG.integers(0, 256, (16, 20), dtype=np.uint8), RNG.integers(0, 256, (16, 20, 3), dtype=np.uint8)
CLEAR = np.dstack([COLOUR, GREY])


def taken(content: bytes, name: str = "a.tif", frames: Any = "refuse") -> Picture:
    with quiet():
        return decode(content, Rules(frames=frames), True, name)


def refused(content: bytes, name: str = "a.tif", frames: Any = "refuse") -> str:
    with pytest.raises(Unfit) as error:
        taken(content, name, frames)
    assert "copy" not in error.value.reason
    return f"{error.value.status}: {error.value.reason}"


# --- TIFF and what cameras make of it ---


def tiff(*pictures: tuple[np.ndarray, dict], big: bool = False, order: Any = "<") -> bytes:
    """A TIFF file with these pictures, each with the options that tifffile knows."""
    file = BytesIO()
    with tifffile.TiffWriter(file, bigtiff=big, byteorder=order) as writer:
        for array, options in pictures:
            given: dict[str, Any] = {"photometric": "rgb" if array.ndim == 3 else "minisblack"} | options
            writer.write(array, **given)
    return file.getvalue()


def handmade(content: bytes, compression: int, colours: int, *bits: int) -> bytes:
    """A TIFF file of 20 x 16 pixels in one strip: what tifffile does not write."""
    short, long, at = 3, 4, 8 + 2 + 11 * 12 + 4 + 6
    tags = [
        *((256, short, 1, 20), (257, short, 1, 16)),
        (258, short, len(bits), bits[0] if len(bits) == 1 else at - 6),
        *((259, short, 1, compression), (262, short, 1, colours), (273, long, 1, at), (277, short, 1, len(bits))),
        *((278, short, 1, 16), (279, long, 1, len(content)), (513, long, 1, at), (514, long, 1, len(content))),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    bits = (*bits, *bits, *bits)[:3]
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + struct.pack("<3H", *bits) + content


SMALL = COLOUR[::4, ::4]


@pytest.mark.parametrize("name", ["a.tif", "a.jpg", "a", "a.nef"])
@pytest.mark.parametrize("frames", ["refuse", "first"])
@pytest.mark.parametrize("reduced", [0, 1])
@pytest.mark.parametrize("inside", [0, 1])
def test_a_preview_before_the_picture_is_not_published(name: str, frames: str, reduced: int, inside: int):
    content = tiff((SMALL, {"subfiletype": reduced, "subifds": inside}), (COLOUR, {}))
    reason = refused(content, name, frames)
    assert reason.startswith("skipped") and "RAW" in reason


def test_a_smaller_version_inside_is_left_out_with_a_note():
    content = tiff((COLOUR, {"subifds": 1}), (SMALL, {"subfiletype": 1}))
    picture = taken(content)
    assert (picture.pixels == COLOUR).all() and "embedded preview removed" in picture.meta.notes[0]


@pytest.mark.parametrize("photometric", ["cfa", "linear_raw"])
@pytest.mark.parametrize("inside", [0, 1])
def test_what_a_sensor_saw_is_called_raw(photometric: str, inside: int):
    seen = (GREY if photometric == "cfa" else COLOUR, {"photometric": photometric})
    pictures = [(COLOUR, {"subifds": 1}), seen] if inside else [seen]
    assert "camera RAW" in refused(tiff(*pictures), "photo.jpg", "first")


RAW = {
    "CR2": b"II*\0\x10\0\0\0CR\2\0" + NUL,
    "CR3": b"\0\0\0\x18ftypcrx " + NUL,
    "RAF": b"FUJIFILMCCD-RAW 0201" + NUL,
    "ORF": b"IIRO\x08\0\0\0" + NUL,
    "RW2": b"IIU\0\x18\0\0\0" + NUL,
    "MRW": b"\0MRM" + NUL,
    "X3F": b"FOVb" + NUL,
}


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a", "a.bin"])
def test_raw_files_are_known_under_any_name(tmp_path: Path, kind: str, name: str):
    put(folder(tmp_path), f"cat/{name}", RAW[kind])
    entry = next(e for e in scan(tmp_path).entries if e.path == f"cat/{name}")
    assert (entry.status, entry.reason[:10]) == ("skipped", "camera RAW")


def test_a_picture_with_the_name_of_a_raw_file_is_taken():
    assert (taken(encoded(Image.fromarray(COLOUR)), "a.nef").pixels == COLOUR).all()
    assert "RAW" in refused(tiff((COLOUR, {})), "a.nef")


WHOLE: dict[str, tuple[bytes, np.ndarray]] = {
    "grey": (tiff((GREY, {})), GREY),
    "white is 0": (tiff((GREY, {"photometric": "miniswhite"})), 255 - GREY),
    "4 bits": (handmade(bytes(range(160)), 1, 1, 4), np.array([n * 17 for b in range(160) for n in divmod(b, 16)])),
    "colour": (tiff((COLOUR, {})), COLOUR),
    "alpha": (tiff((CLEAR, {"extrasamples": [2]})), CLEAR),
    "planes": (tiff((COLOUR.transpose(2, 0, 1), {"planarconfig": "separate"})), COLOUR),
    "strips": (tiff((COLOUR, {"rowsperstrip": 3})), COLOUR),
    "tiles": (tiff((COLOUR, {"tile": (16, 16)})), COLOUR),
    "big-endian": (tiff((COLOUR, {}), order=">"), COLOUR),
    "BigTIFF": (tiff((COLOUR, {}), big=True), COLOUR),
    "LZW": (encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"), COLOUR),
    "deflate": (encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_adobe_deflate"), COLOUR),
    "packed": (encoded(Image.fromarray(GREY), "TIFF", compression="packbits"), GREY),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_tiff_of_8_bits_is_read_completely(kind: str):
    content, array = WHOLE[kind]
    assert np.array_equal(taken(content).array.squeeze(), array.reshape(16, 20, -1).squeeze())


def test_jpeg_in_a_tiff_of_either_style_is_read_completely():
    jpeg = encoded(Image.fromarray(COLOUR), "JPEG", quality=95, subsampling=0)
    array = np.asarray(Image.open(BytesIO(jpeg))).astype(int)
    assert np.abs(taken(handmade(jpeg, 6, 6, 8, 8, 8)).pixels - array).max() <= 2
    smooth = np.add.outer(np.arange(16), np.arange(20)).astype(np.uint8)[..., None].repeat(3, 2)
    strips = encoded(Image.fromarray(smooth), "TIFF", compression="jpeg", quality=95)
    assert np.abs(taken(strips).pixels.astype(int) - smooth).max() <= 4


SHADES = RNG.integers(0, 256, (3, 256)).astype(np.uint16)


@pytest.mark.parametrize("scale", [256, 257])
def test_a_palette_that_8_bits_hold_is_taken(scale: int):
    picture = taken(tiff((GREY, {"photometric": "palette", "colormap": SHADES * scale})))
    assert (picture.pixels == SHADES.T[GREY]).all()


PARTLY = {
    "a deep palette": ({"photometric": "palette", "colormap": SHADES * 200 + 7}, "palette of more than 8 bits"),
    "a palette of 8-bit values": ({"photometric": "palette", "colormap": SHADES}, "palette of 8-bit values"),
    "half floats": ({"array": COLOUR.astype(np.float16)}, "more than 8 bits"),
    "signed": ({"array": COLOUR.astype(np.int8)}, "signed"),
    "1 bit": ({"array": GREY > 99}, "1 bit"),
    "LAB": ({"array": COLOUR, "photometric": "icclab"}, "colours LAB"),
    "a mask": ({"photometric": "mask"}, "colours mask"),
    "a volume": ({"array": np.stack([COLOUR] * 16), "volumetric": True, "tile": (16, 16, 32)}, "volume of 16 slices"),
    "other inks": ({"array": CLEAR, "photometric": "separated", "extratags": [(332, 3, 1, 2, True)]}, "inks"),
}


@pytest.mark.parametrize("kind", PARTLY)
def test_a_tiff_of_which_8_bits_hold_a_part_is_skipped(kind: str):
    options, why = PARTLY[kind]
    reason = refused(tiff((options.get("array", GREY), {k: v for k, v in options.items() if k != "array"})))
    assert reason.startswith("skipped") and why in reason


@pytest.mark.parametrize(
    ("compression", "colours", "bits", "why"),
    [
        (1, 1, (12,), "more than 8 bits"),
        (1, 2, (10, 10, 10), "more than 8 bits"),
        (7, 1, (12,), "more than 8 bits"),
        (1, 1, (6,), "TIFF of a kind that is not read (colours grey, 6 bits, compression raw)"),
        (34712, 2, (8, 8, 8), "compression number 34712"),
    ],
)
def test_other_depths_and_compressions_of_tiff_are_skipped(compression: int, colours: int, bits: tuple, why: str):
    assert why in refused(handmade(bytes(4000), compression, colours, *bits))


def test_cmyk_becomes_rgb_with_a_note():
    picture = taken(tiff((CLEAR, {"photometric": "separated"})))
    assert picture.mode == "RGB" and "CMYK converted to RGB" in picture.meta.notes[0]


def test_a_tiff_without_some_of_its_strips_is_skipped():
    content = bytearray(tiff((GREY, {"rowsperstrip": 8})))
    with tifffile.TiffFile(BytesIO(bytes(content))) as file:
        tag = file.pages[0].tags["StripOffsets"]  # type: ignore[union-attr]
    content[tag.valueoffset : tag.valueoffset + 4] = bytes(4)
    assert "are missing" in refused(bytes(content))


def test_a_tiff_that_is_cut_or_damaged_fails_alone_and_is_called_tiff():
    whole = tiff((COLOUR, {}))
    assert refused(whole[:600]).startswith("failed: cannot be decoded as TIFF")
    assert refused(b"II*\0" + NUL).startswith("failed: cannot be opened as TIFF")
    circle = bytearray(whole)
    at = struct.unpack("<I", whole[4:8])[0]
    count = struct.unpack("<H", whole[at : at + 2])[0]
    circle[at + 2 + 12 * count :][:4] = whole[4:8]
    assert (taken(bytes(circle)).pixels == COLOUR).all()


# --- HEIC and AVIF ---


def family(brand: bytes, also: bytes, codec: bytes) -> bytes:
    """The start of a file of the HEIF family."""
    return b"\0\0\0\x18ftyp" + brand + bytes(4) + b"miaf" + also + b"\0\0\1\0meta" + bytes(30) + codec + NUL


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (family(b"heic", b"mif1", b"hvcC"), "HEIC"),
        (family(b"mif1", b"heic", b"hvcC"), "HEIC"),
        (family(b"mif1", b"miaf", b"hvcC"), "HEIC"),
        (family(b"mif1", b"avif", b"hvcC"), "HEIC"),
        (family(b"mif1", b"miaf", b"av1C"), "AVIF"),
        (family(b"heic", b"mif1", b"av1C"), "AVIF"),
        (family(b"avif", b"mif1", b"none"), "AVIF"),
        (family(b"msf1", b"hevc", b"none"), "HEIC"),
        (family(b"avci", b"mif1", b"avcC"), "HEIF with H.264"),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.heic", "a.avif", "a"])
def test_the_codec_tells_heic_from_avif(content: bytes, kind: str, name: str):
    reason = refused(content, name)
    assert kind in reason and ("AVIF" in reason) == (kind == "AVIF")
    assert ("miue[heif]" in reason) <= (kind != "AVIF")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("brand", [b"avif", b"mif1", b"msf1"])
def test_an_avif_is_read_whatever_brand_comes_first(brand: bytes):
    content = encoded(Image.fromarray(COLOUR), "AVIF")
    assert taken(content[:8] + brand + content[12:], "a.heic").size == (20, 16)


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_a_heic_is_read_where_the_extra_is_installed(brand: bytes):
    pytest.importorskip("pillow_heif").register_heif_opener()
    content = encoded(Image.fromarray(COLOUR), "HEIF")
    assert taken(content[:8] + brand + content[12:], "a.jpg").size == (20, 16)


# --- what has the name of a picture and is none ---

TARGA = encoded(Image.fromarray(COLOUR), "TGA")
OTHERS = {
    "PDF": b"%PDF-1.7\n1 0 obj\n",
    "a video": b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + NUL,
    "a ZIP archive": b"PK\3\4\x14\0" + NUL,
    "a gzip archive": b"\x1f\x8b\x08\0" + NUL,
    "a Photoshop document": b"8BPS\0\1" + NUL,
    "JPEG XL": b"\xff\x0a\xfa\x7f" + NUL,
    "OpenEXR": b"\x76\x2f\x31\x01\2\0\0\0" + NUL,
    "TGA": TARGA,
    "a NumPy array": b"\x93NUMPY\1\0v\0{'descr'" + NUL,
    "a parquet table": b"PAR1\x15\4" + NUL,
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "Radiance HDR": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
    "ICO": encoded(Image.fromarray(COLOUR), "ICO"),
    "PCX": encoded(Image.fromarray(COLOUR), "PCX"),
    "DDS": encoded(Image.fromarray(COLOUR), "DDS"),
    "vector graphics (SVG)": b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a", "a.dat"])
def test_the_reason_says_what_a_file_is_whatever_its_name(tmp_path: Path, kind: str, name: str):
    put(folder(tmp_path), f"cat/{name}", OTHERS[kind])
    entry = next(e for e in scan(tmp_path).entries if e.path == f"cat/{name}")
    assert entry.status == "skipped" and entry.reason.startswith(kind), entry
    assert "SVG" in kind or "may show the clean pictures" in entry.reason


TEXTS = {
    "a web page (HTML)": b"\n<!DOCTYPE html><title>404</title><svg/>",
    "text, not a picture": b'{"error": "not found"}',
    "a pointer of git-annex": b"/annex/objects/SHA256E-s123--00.png\n",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "empty file": b"",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_with_the_name_of_a_picture_fails_and_says_so(kind: str):
    assert refused(TEXTS[kind], "a.jpg").startswith(f"failed: {kind}")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_a_damaged_picture_is_called_by_its_format(form: str):
    start = encoded(Image.fromarray(COLOUR), form)[:20]
    assert refused(start + b"\xff" * 50, "a").startswith("failed") and form in refused(start + b"\xff" * 50, "a")


# --- colour profiles ---


def profile(colours: bytes) -> bytes:
    """The head of a colour profile for these colours: enough for a file that carries it."""
    return b"\0" * 12 + b"mntr" + colours + b"XYZ " + bytes(104)


RGB_PROFILE, GREY_PROFILE = profile(b"RGB "), profile(b"GRAY")
PROFILES = {
    "RGB": (pixels(mode="RGB"), "PNG", RGB_PROFILE, True),
    "alpha": (pixels(mode="RGBA"), "PNG", RGB_PROFILE, True),
    "palette": (pixels(mode="P"), "PNG", RGB_PROFILE, True),
    "grey": (pixels(mode="L"), "PNG", GREY_PROFILE, True),
    "grey of RGB": (pixels(mode="L"), "JPEG", RGB_PROFILE, False),
    "RGB of grey": (pixels(mode="RGB"), "TIFF", GREY_PROFILE, False),
    "palette of grey": (pixels(mode="P"), "PNG", GREY_PROFILE, False),
    "RGB of CMYK": (pixels(mode="RGB"), "JPEG", profile(b"CMYK"), False),
    "RGB, damaged": (pixels(mode="RGB"), "WEBP", b"profile", False),
    "CMYK, damaged": (pixels(mode="CMYK"), "JPEG", profile(b"CMYK"), False),
    "CMYK of RGB": (pixels(mode="CMYK"), "TIFF", RGB_PROFILE, False),
}


@pytest.mark.parametrize("kind", PROFILES)
def test_a_profile_is_written_or_its_loss_is_noted(tmp_path: Path, kind: str):
    image, form, icc, kept = PROFILES[kind]
    for name in ("a", "b"):
        put(folder(tmp_path / "in"), f"cat/{name}.jpg", encoded(image, form, icc_profile=icc))
    source = scan(tmp_path / "in")
    assert len(source.usable) == 6
    lost = [note for note in source.notes if note.startswith("colour profile left out")]
    assert [note.rpartition(" (")[2] for note in lost] == ([] if kept else ["2 pictures, such as cat/a.jpg)"])
    write(source, noise(6), tmp_path / "out", tmp_path / "out.private")
    with Image.open(tmp_path / "out/cat/a.png") as im:
        assert im.info.get("icc_profile") == (icc if kept else None)


def test_webp_says_that_it_cannot_keep_a_grey_profile(tmp_path: Path):
    put(folder(tmp_path / "in"), "cat/a.png", encoded(pixels(mode="L"), icc_profile=GREY_PROFILE))
    source = scan(tmp_path / "in")
    written = {
        form: write(source, noise(5), tmp_path / form, tmp_path / f"{form}.private", format=form)
        for form in ("png", "webp")
    }
    assert not any("profile" in note for note in (*source.notes, *written["png"].notes))
    assert [note for note in written["webp"].notes if "profile" in note] == [
        "colour profile of grey left out, because WebP has no grey (1 pictures, such as cat/a.png); png keeps it"
    ]


# --- folders that are one where they are written ---


@pytest.fixture
def merging(monkeypatch: pytest.MonkeyPatch):
    """A file system that knows neither case nor accents apart: a folder of the other spelling is there already."""
    real = Path.mkdir

    def mkdir(path: Path, *args, **options):
        alike = (
            [p for p in path.parent.iterdir() if folded(p.name) == folded(path.name)] if path.parent.is_dir() else []
        )
        if alike and not options.get("exist_ok"):
            raise FileExistsError(17, "File exists")
        real(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)


TWINS = [("A/1.png", "a/2.png"), ("\u00e9/1.png", "e\u0301/2.png"), ("cat/B/1.png", "cat/b/2.png")]


@pytest.mark.parametrize("names", TWINS)
def test_folders_that_become_one_are_refused_before_anything_is_written(tmp_path: Path, names, request):
    source = scan(folder(tmp_path / "in", *names))
    assert any("differ in case, accents or dots at the end only" in note for note in source.notes)
    request.getfixturevalue("merging")
    for _ in range(2):  # and the same when it is tried again
        with pytest.raises(UserError, match="for one, and their pictures would mix") as error:
            write(source, noise(6), tmp_path / "out", tmp_path / "out.private")
        assert all(repr(name.rpartition("/")[0]) in str(error.value) for name in names)
        assert not tree(tmp_path / "out")
    with pytest.raises(UserError, match="would mix"):  # and before a perturbation is made
        Job(source=str(tmp_path / "in"), out=tmp_path / "new", method="noise").checked(source)
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".miue-*"))


@pytest.mark.parametrize("names", TWINS)
def test_folders_that_differ_in_case_or_accents_are_written_where_they_stay_apart(tmp_path: Path, names):
    source = scan(folder(tmp_path / "in", *names))
    write(source, noise(6), tmp_path / "out", tmp_path / "out.private")
    assert all((tmp_path / "out" / name).exists() for name in names)
    assert not list((tmp_path / "out").glob(".*"))


def test_a_file_system_that_merges_is_no_obstacle_to_a_set_without_such_folders(tmp_path: Path, merging):
    source = scan(folder(tmp_path / "in"))
    write(source, noise(4), tmp_path / "out", tmp_path / "out.private")
    assert len(tree(tmp_path / "out")) == 5


# --- several pictures in one file ---


def frames(form: str, **options) -> bytes:
    later = [pixels(2), pixels(3)]
    return encoded(pixels(1), form, save_all=True, append_images=later, **options)


SEVERAL = {
    "GIF": (frames("GIF"), "animation"),
    "WebP": (frames("WEBP", lossless=True), "animation"),
    "APNG": (frames("PNG"), "animation"),
    "APNG with a picture for other readers": (frames("PNG", default_image=True), "animation"),
    "TIFF": (frames("TIFF"), "pages"),
    "MPO": (frames("MPO"), "a second view or a gain map"),
}


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("ending", ["jpg", "gif", "x"])
def test_several_pictures_in_one_file_are_refused_with_a_reason_or_cut_to_the_first_with_a_note(kind, ending):
    content, why = SEVERAL[kind]
    name = f"a.{ending}"
    reason = refused(content, name)
    assert reason.startswith("skipped: more than one picture") and why in reason and "--frames first" in reason
    first = taken(content, name, "first")
    assert first.meta.notes == ("only the first of several frames is published",)
    assert (first.pixels == taken(encoded(pixels(1), "JPEG" if kind == "MPO" else "PNG")).pixels).all()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_one_frame_alone_is_a_picture(form: str):
    picture = taken(encoded(pixels(1), form, save_all=True))
    assert picture.size == (12, 10) and not picture.meta.notes
