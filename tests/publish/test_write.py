"""What is written: the budget on the file, names, metadata, and what survives an interruption."""

from __future__ import annotations

import errno
import io
import json
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps

from making import encoded, folder, noise, pixels, put, tree
from miue.core.errors import UserError
from miue.core.types import Budget, Perturbation
from miue.data import private_of, read, scan
from miue.data.picture import Picture, Rules, decode, encode
from miue.publish import align, check_output, clear_output, export, verify, write
from miue.publish.sinks import TreeSink
from miue.publish.write import Written
from miue.testing import tiny


def protect(root: Path, out: Path, **options) -> Written:
    source = scan(root)
    return write(source, noise(len(source.usable)), out, private_of(out), **options)


def lines(out: Path) -> list[dict]:
    return [json.loads(text) for text in (private_of(out) / "manifest.jsonl").read_text().splitlines()]


def array(path: Path) -> np.ndarray:
    with Image.open(path) as im:
        return np.asarray(im).astype(int)


def test_a_folder_in_a_folder_out(tmp_path: Path):
    root, out = folder(tmp_path / "in", "cat/deep/er/1.png"), tmp_path / "out"
    put(root, "cat/photo.jpg", encoded(pixels(3, 40, 30), "JPEG"))
    put(root, "cat/notes.txt", b"text")
    (root / "bird").mkdir()
    ticks = []
    written = protect(root, out, tick=lambda: ticks.append(1))
    assert written.counts == {"protected": 6, "skipped": 1} and written.worst == 8 and len(ticks) == 6
    assert written.psnr is not None and 30 < written.psnr.least < 40
    assert set(tree(out)) == {
        *("cat/0.png", "cat/1.png", "cat/deep/er/1.png", "cat/photo.png", "dog/0.png", "dog/1.png", "PROTECTED.md")
    }
    assert (out / "bird").is_dir()
    clean, protected = scan(root), scan(out)
    assert clean.classes == protected.classes
    assert align(clean, protected).tolist() == list(range(6))
    delta = read(protected, 30).images.int() - read(clean, 30).images.int()
    assert delta.abs().max() > 0
    change = array(out / "cat/photo.png") - array(root / "cat/photo.jpg")
    assert change.shape == (30, 40, 3) and np.abs(change).max() <= 8
    assert all(finding.ok for finding in verify(out, clean))


def test_manifest_has_a_line_for_every_input_in_order(tmp_path: Path):
    root, out = folder(tmp_path / "in"), tmp_path / "out"
    put(root, "cat/broken.png", b"")
    put(root, "dog/readme.txt", b"text")
    protect(root, out)
    found = lines(out)
    assert [line["path"] for line in found] == [e.path for e in scan(root).entries]
    assert {line["status"] for line in found} == {"protected", "skipped", "failed"}
    assert not (private_of(out) / "manifest.part.jsonl").exists()
    one = found[0]
    assert one["class_name"] == "cat" and one["max_change"] <= 8 and one["out_sha256"] == tree(out)["cat/0.png"]
    assert one["sha256"] == tree(root)["cat/0.png"] and 0 < one["ssim"] < 1 and one["psnr"] > 30
    assert "in" not in (out / "PROTECTED.md").read_text().split("/") and "miue" in (out / "PROTECTED.md").read_text()


# --- modes and sizes ---


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(["L", "LA", "RGB", "RGBA"]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    eps=st.integers(1, 40),
    grid=st.integers(1, 40),
    form=st.sampled_from(["png", "webp"]),
    seed=st.integers(0, 99),
)
def test_every_mode_and_size_keeps_budget_alpha_and_mode(mode, width, height, eps, grid, form, seed):
    clean = decode(encoded(pixels(seed, width, height, mode)), Rules())
    assert clean.mode == mode
    delta = noise(1, grid, eps, seed=seed).at(0, height, width).to(torch.int16).numpy()
    stored = decode(encode(clean.plus(delta), form), Rules())
    assert stored.size == (width, height) and stored.same_alpha(clean)
    assert np.abs(stored.minus(clean)).max() <= eps
    if form == "png":
        assert stored.mode == mode


def test_grey_stays_grey_and_gets_the_integer_mean():
    clean = Picture(np.full((1, 4, 1), 100, np.uint8))
    delta = np.array([[[8, -8, 5, 8]], [[8, -8, 5, -8]], [[7, -7, 6, -1]]], np.int16)
    assert clean.plus(delta).pixels[0, :, 0].tolist() == [107, 93, 105, 100]
    colour = Picture(np.full((1, 4, 3), 100, np.uint8)).plus(delta[:1])
    assert colour.pixels[0, :, 2].tolist() == [108, 92, 105, 108]


def test_values_are_clamped_and_not_wrapped():
    clean = Picture(np.array([[[0], [255]]], np.uint8))
    assert clean.plus(np.array([[[-8, 8]]], np.int16)).pixels.flatten().tolist() == [0, 255]


def test_palette_with_transparency(tmp_path: Path):
    palette = pixels(mode="P")
    put(folder(tmp_path / "in"), "cat/clear.png", encoded(palette, transparency=3))
    put(tmp_path / "in", "cat/plain.gif", encoded(palette, "GIF"))
    put(tmp_path / "in", "cat/key.png", encoded(pixels(4), transparency=(1, 2, 3)))
    protect(tmp_path / "in", tmp_path / "out")
    with Image.open(tmp_path / "in/cat/clear.png") as old, Image.open(tmp_path / "out/cat/clear.png") as new:
        assert new.mode == "RGBA"
        before, after = np.asarray(old.convert("RGBA")).astype(int), np.asarray(new).astype(int)
    assert (before[..., 3] == after[..., 3]).all() and (before[..., 3] == 0).any()
    assert np.abs(before - after).max() <= 8 and (before != after)[before[..., 3] == 0].any()
    assert {e.path: e.mode for e in scan(tmp_path / "out").usable} == {
        **dict.fromkeys(("cat/0.png", "cat/1.png", "cat/plain.png", "dog/0.png", "dog/1.png"), "RGB"),
        **dict.fromkeys(("cat/clear.png", "cat/key.png"), "RGBA"),
    }


@pytest.mark.parametrize("profile", [True, False])
def test_cmyk_is_converted_with_a_note(tmp_path: Path, profile):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()  # the wrong kind: must not stop anything
    options = {"icc_profile": icc} if profile else {}
    put(folder(tmp_path / "in"), "cat/print.jpg", encoded(pixels(mode="CMYK"), "JPEG", **options))
    assert any("CMYK converted" in note for note in scan(tmp_path / "in").notes)
    protect(tmp_path / "in", tmp_path / "out")
    with Image.open(tmp_path / "out/cat/print.png") as im:
        assert im.mode == "RGB" and "icc_profile" not in im.info


def test_lossless_webp(tmp_path: Path):
    put(folder(tmp_path / "in"), "cat/clear.png", pixels(5, mode="RGBA"))
    put(tmp_path / "in", "cat/grey.png", pixels(6, mode="L"))
    protect(tmp_path / "in", tmp_path / "out", format="webp")
    assert {name.split(".")[-1] for name in tree(tmp_path / "out")} == {"webp", "md"}
    clean, protected = scan(tmp_path / "in"), scan(tmp_path / "out")
    assert align(clean, protected).tolist() == list(range(6))
    assert all(finding.ok for finding in verify(tmp_path / "out", clean))


def test_one_row_per_class(tmp_path: Path):
    source = scan(folder(tmp_path / "in"))
    rows = noise(2)
    delta = Perturbation(rows.delta, rows.budget, "class-wise", torch.tensor([e.label for e in source.usable]))
    assert write(source, delta, tmp_path / "out", private_of(tmp_path / "out")).counts == {"protected": 4}


def test_a_budget_that_depends_on_size_is_refused_at_another_size(tmp_path: Path):
    source = scan(folder(tmp_path / "in"))
    delta = Perturbation.rounded(torch.full((4, 3, 8, 8), 0.01), Budget(1.0, "l2"), "l2")
    with pytest.raises(UserError, match="holds only at the size of the noise grid"):
        write(source, delta, tmp_path / "out", private_of(tmp_path / "out"))


# --- metadata ---


def photograph(orientation: int = 1) -> bytes:
    """A JPEG with everything that a camera and an editor put in, previews of the picture included."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "Ana"
    exif[ExifTags.Base.Copyright] = "© 2024 Ana".encode()
    exif[ExifTags.Base.Software] = "Editor 3"
    exif[ExifTags.Base.MakerNoteSafety] = 1
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:01 10:00:00"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"THUMBNAIL" * 20
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 8.0, 0.0)
    thumbnail = encoded(pixels(8, 8, 8), "JPEG")
    block = exif.tobytes()
    head = bytearray(block[6:])
    # a second directory with a preview, as cameras write it; Pillow itself only reads these
    order = "little" if head[:2] == b"II" else "big"
    first = int.from_bytes(head[4:8], order)
    link = first + 2 + 12 * int.from_bytes(head[first : first + 2], order)
    at = len(head) + len(head) % 2
    entries = ((0x0103, 3, 6), (0x0201, 4, at + 2 + 36 + 4), (0x0202, 4, len(thumbnail)))
    head[link : link + 4] = at.to_bytes(4, order)
    head += b"\0" * (at - len(head)) + len(entries).to_bytes(2, order)
    for tag, kind, value in entries:
        head += tag.to_bytes(2, order) + kind.to_bytes(2, order) + (1).to_bytes(4, order)
        head += value.to_bytes(2, order) + b"\0\0" if kind == 3 and order == "little" else value.to_bytes(4, order)
    head += b"\0\0\0\0" + thumbnail
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><xapGImg:image>THUMBNAIL</xapGImg:image></x:xmpmeta>'
    return encoded(
        pixels(1, 24, 16), "JPEG", exif=block[:6] + bytes(head), icc_profile=icc, xmp=xmp, comment=b"THUMBNAIL"
    )


def test_previews_and_places_stay_behind_profile_and_rights_go_along(tmp_path: Path):
    source = put(folder(tmp_path / "in"), "cat/photo.jpg", photograph())
    with Image.open(source) as im:  # the control: all of it is there to begin with
        assert im.getexif().get_ifd(ExifTags.IFD.IFD1) and im.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        assert im.info["icc_profile"] and im.info["xmp"]
        profile = im.info["icc_profile"]
    notes = " | ".join(scan(tmp_path / "in").notes)
    assert "GPS position removed (1 pictures, " in notes and "embedded preview removed" in notes
    protect(tmp_path / "in", tmp_path / "out")
    data = (tmp_path / "out/cat/photo.png").read_bytes()
    for trace in (b"THUMBNAIL", b"Editor", b"\xff\xd8\xff", b"GPS", b"xmp"):
        assert trace not in data
    with Image.open(tmp_path / "out/cat/photo.png") as im:
        exif = im.getexif()
        assert set(exif) == {ExifTags.Base.Artist, ExifTags.Base.Copyright, ExifTags.Base.ExifOffset}
        assert exif[ExifTags.Base.Copyright].encode("latin-1").decode() == "© 2024 Ana"
        assert exif.get_ifd(ExifTags.IFD.Exif) == {ExifTags.Base.DateTimeOriginal: "2024:05:01 10:00:00"}
        assert not exif.get_ifd(ExifTags.IFD.IFD1) and im.info["icc_profile"] == profile


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_baked_in_once(orientation, form):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(pixels(2, 14, 9), form, exif=exif.tobytes(), **options)
    picture = decode(data, Rules())
    with Image.open(io.BytesIO(data)) as im:
        upright = np.asarray(ImageOps.exif_transpose(im))
    assert picture.size == ((14, 9) if orientation < 5 else (9, 14))
    assert (picture.pixels == upright).all()
    again = decode(encode(picture, "png"), Rules())
    assert again.digest == picture.digest and again.meta.orientation == 1


def test_damaged_exif_does_not_lose_the_picture():
    picture = decode(encoded(pixels(1), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), Rules())
    assert picture.meta.exif is None


def test_content_credentials_are_removed_and_named(tmp_path: Path):
    data = encoded(pixels(1), "JPEG")
    segment = b"\0\0\0\0jumbjumdc2pa\0\x11\0\x10"
    data = data[:2] + b"\xff\xeb" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]
    put(folder(tmp_path), "cat/signed.jpg", data)
    assert any("C2PA" in note for note in scan(tmp_path).notes)


# --- interruption ---


def test_resuming_gives_the_same_tree(tmp_path: Path):
    root, out, whole = folder(tmp_path / "in", count=4), tmp_path / "out", tmp_path / "whole"
    put(root, "cat/text.txt", b"text")
    protect(root, whole)
    protect(root, out)
    before = (out / "dog/3.png").stat().st_mtime_ns
    (out / "cat/2.png").unlink()
    (out / "cat/1.png").write_bytes(b"damaged")
    (out / "dog/0.png").write_bytes(encoded(pixels(3)))
    protect(root, out)
    assert tree(out) == tree(whole) and lines(out) == lines(whole)
    assert (out / "dog/3.png").stat().st_mtime_ns == before  # what was there was kept


def test_files_are_listed_once_and_not_for_every_file(tmp_path: Path, monkeypatch):
    """Else the time to write a set grows with the square of its number of pictures."""
    root, out, listed, groups = folder(tmp_path / "in", count=8), tmp_path / "out", [], TreeSink.groups.func
    counted = cached_property(lambda sink: listed.append(sink) or groups(sink))
    counted.__set_name__(TreeSink, "groups")
    monkeypatch.setattr(TreeSink, "groups", counted)
    protect(root, out)
    assert 1 <= len(listed) < 4


def test_all_pictures_are_on_disk_before_the_manifest_says_so(tmp_path: Path, monkeypatch):
    root, out, flushed = folder(tmp_path / "in", count=4), tmp_path / "out", []
    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk is gone"):

        def fails(path):
            if path.suffix == ".png":
                raise OSError("the disk is gone")

        patch.setattr(sys.modules["miue.core.files"], "_flush", fails)
        protect(root, out)
    assert not (private_of(out) / "manifest.jsonl").exists()
    (out / "cat/2.png").write_bytes(b"")  # what a power cut may leave
    monkeypatch.setattr(sys.modules["miue.core.files"], "_flush", flushed.append)
    protect(root, out)
    pictures = [out / name for name in tree(out) if name.endswith(".png")]
    assert set(pictures) <= set(flushed) and len(pictures) == 8
    assert all(finding.ok for finding in verify(out, scan(root)))


def test_stop_finishes_a_file_and_resumes(tmp_path: Path):
    root, out, whole = folder(tmp_path / "in", count=4), tmp_path / "out", tmp_path / "whole"
    protect(root, whole)
    asked = iter([False, False, False, True])
    with pytest.raises(KeyboardInterrupt):
        protect(root, out, stop=lambda: next(asked))
    assert set(tree(out)) == {"PROTECTED.md", "cat/0.png", "cat/1.png", "cat/2.png"}
    with pytest.raises(UserError, match="no finished manifest"):
        verify(out)
    with (private_of(out) / "manifest.part.jsonl").open("a") as part:
        part.write('{"path": "cat/3.png", "out": "ca')  # a crash in the middle of a line
    ticks = []
    protect(root, out, tick=lambda: ticks.append(1))
    assert tree(out) == tree(whole) and lines(out) == lines(whole) and len(ticks) == 8


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch):
    root, out, whole = folder(tmp_path / "in", count=3), tmp_path / "out", tmp_path / "whole"
    protect(root, whole)

    honest = Path.write_bytes

    def fails(path, payload):
        if path.name == ".1.png.part" and path.parent.name == "dog":
            honest(path, payload[: len(payload) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(path, payload)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Path, "write_bytes", fails)
        protect(root, out)
    assert set(tree(out)) == {"PROTECTED.md", "cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png"}
    protect(root, out)
    assert tree(out) == tree(whole)


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match="10 are free"):
        protect(folder(tmp_path / "in"), tmp_path / "out")
    assert not tree(tmp_path / "out")


def test_a_source_that_changes_stops_the_run(tmp_path: Path):
    source = scan(folder(tmp_path / "in"))
    put(tmp_path / "in", "dog/1.png", pixels(55))
    with pytest.raises(UserError, match=r"dog/1\.png: has changed since it was scanned"):
        write(source, noise(4), tmp_path / "out", private_of(tmp_path / "out"))
    assert "dog/1.png" not in tree(tmp_path / "out")


def test_two_runs_at_once_are_refused(tmp_path: Path):
    root, out = folder(tmp_path / "in"), tmp_path / "out"

    def second() -> None:
        with pytest.raises(UserError, match="another run"):
            protect(root, out)

    protect(root, out, tick=second)


def test_the_wrong_number_of_rows(tmp_path: Path):
    source = scan(folder(tmp_path / "in"))
    with pytest.raises(ValueError, match="3 rows for 4"):
        write(source, noise(3), tmp_path / "out", private_of(tmp_path / "out"))


def test_nothing_is_written_through_a_link(tmp_path: Path):
    root, out = folder(tmp_path / "in"), tmp_path / "out"
    (tmp_path / "elsewhere").mkdir()
    out.mkdir()
    (out / "cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(UserError, match="link"):
        protect(root, out)
    assert not tree(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="nothing is written through links"):
        check_output(root, out, private_of(out), False, "f")


# --- what may be touched ---


def owned(out: Path, fingerprint: str) -> None:
    (private_of(out) / "run.json").write_text(json.dumps({"fingerprint": fingerprint}))


def check(root: Path, out: Path, overwrite: bool = False, fingerprint: str = "one") -> str:
    """The refusal, or nothing."""
    try:
        check_output(str(root), out, private_of(out), overwrite, fingerprint)
    except UserError as error:
        return str(error)
    return ""


def test_input_and_output_must_not_overlap(tmp_path: Path):
    root = folder(tmp_path / "a" / "in")
    assert "is the input" in check(root, root)
    assert "lies in the input" in check(root, root / "cat" / "out")
    assert "around the input" in check(root, tmp_path / "a")
    (tmp_path / "link").symlink_to(root)
    assert "is the input" in check(root, tmp_path / "link")
    assert not check(root, tmp_path / "a" / "out")
    with pytest.raises(UserError, match="private folder lies in the published one"):
        check_output("digits", tmp_path / "out", tmp_path / "out" / "private", False, "f")


def test_an_output_lies_in_no_other_one(tmp_path: Path):
    root, other = folder(tmp_path / "in"), tmp_path / "other"
    private_of(other).mkdir()
    owned(other, "two")
    for out in (other / "sub", other / "deep" / "sub", private_of(other) / "sub"):
        assert "another output or its private folder; choose a folder beside it" in check(root, out)
    assert not check(root, tmp_path / "beside")


def test_resume_refuse_and_overwrite(tmp_path: Path):
    root, out = folder(tmp_path / "in"), tmp_path / "out"
    assert not check(root, out)
    put(out, "mine.txt", b"x")
    assert "not written by miue" in check(root, out)
    (out / "mine.txt").unlink()
    protect(root, out)
    assert "not written by miue" in check(root, out)
    owned(out, "one")
    assert not check(root, out)
    assert "--overwrite" in check(root, out, fingerprint="two")
    put(out, "cat/mine.png")
    assert "cat/mine.png: was not written by miue" in check(root, out, overwrite=True, fingerprint="two")
    assert "cat/0.png" in tree(out)  # nothing was deleted
    (out / "cat/mine.png").unlink()
    put(out, "cat/.0.png.part", b"left by a power cut")
    assert not check(root, out, overwrite=True, fingerprint="two")
    assert "cat/0.png" in tree(out)  # a check changes nothing
    clear_output(out, private_of(out))
    assert not out.exists()
    assert not (private_of(out) / "manifest.jsonl").exists()
    assert len(tree(root)) == 4


def test_records_of_a_set_that_was_moved_away_are_kept(tmp_path: Path):
    root, out = folder(tmp_path / "in"), tmp_path / "out"
    protect(root, out)
    owned(out, "one")
    out.rename(tmp_path / "published")
    assert "records of another set" in check(root, out, fingerprint="two")
    assert not check(root, out, fingerprint="one")
    assert not check(root, out, overwrite=True, fingerprint="two")


@pytest.mark.parametrize("text", ["precious", "[1]", '{"a": 1}'])
def test_a_private_folder_that_is_not_ours(tmp_path: Path, text: str):
    root, out = folder(tmp_path / "in"), tmp_path / "out"
    put(tmp_path, "out.private/run.json", text.encode())
    for overwrite in (False, True):
        assert "is no record of miue" in check(root, out, overwrite)
    assert (private_of(out) / "run.json").read_text() == text


def test_output_that_is_a_file(tmp_path: Path):
    assert "is a file" in check(folder(tmp_path / "in"), put(tmp_path, "file.txt", b""))


@pytest.mark.parametrize("called", ["row {}", "class/{}.jpg"])
def test_an_exported_set_has_the_same_pixels_whatever_its_pictures_are_called(tmp_path: Path, called: str):
    """Rows of a table have no name of a file, and JPEG would change what it saves."""
    given = tiny(per_class=4, size=16)
    export(replace(given, sources=tuple(called.format(i) for i in range(len(given)))), tmp_path / "written")
    again = read(scan(tmp_path / "written"))
    assert torch.equal(again.images, given.images[given.labels.argsort(stable=True)])
    assert again.classes == given.classes and again.labels.bincount().tolist() == [4, 4, 4]
