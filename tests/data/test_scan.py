"""What a scan finds, refuses and remarks."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from making import encoded, folder, pixels, put
from miue.core.errors import UserError
from miue.data import default_canvas, read, scan


def reasons(source) -> dict[str, tuple[str, str]]:
    return {e.path: (e.status, e.reason) for e in source.entries if e.status != "ok"}


def test_class_folders_nested_and_sorted(tmp_path: Path):
    source = scan(folder(tmp_path / "set", "cat/2019/june/9.png"))
    assert source.classes == ("cat", "dog")
    assert [e.path for e in source.usable] == [
        "cat/0.png",
        "cat/1.png",
        "cat/2019/june/9.png",
        "dog/0.png",
        "dog/1.png",
    ]
    assert [e.label for e in source.usable] == [0, 0, 0, 1, 1]
    assert source.summary() == {"ok": 5}
    assert (source.kind, source.name) == ("folder", "set")
    assert scan(str(tmp_path / "set")).digest == source.digest


def test_digest_depends_on_bytes_labels_and_classes(tmp_path: Path):
    digest = scan(folder(tmp_path)).digest
    put(tmp_path, "cat/0.png", pixels(99))
    assert scan(tmp_path).digest != digest


def test_every_file_is_accounted_for(tmp_path: Path):
    folder(tmp_path, "top.png", ".hidden/x.png", "cat/.secret.png", ".DS_Store", "__MACOSX/cat/._0.png", ".git/a.png")
    put(tmp_path, "cat/empty.jpg", b"")
    put(tmp_path, "cat/cut.png", encoded(pixels(width=60, height=60))[:-900])
    put(tmp_path, "cat/cut.jpg", encoded(pixels(width=60, height=60), "JPEG")[:-900])
    put(tmp_path, "cat/page.jpg", b"\n<!DOCTYPE html><title>404</title>")
    put(tmp_path, "cat/noise.png", b"\x00\x01\x02" * 50)
    put(tmp_path, "cat/drawing.svg", b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>")
    put(tmp_path, "cat/phone.heic", b"\0\0\0\x18ftypheic" + b"\0" * 40)
    put(tmp_path, "cat/notes.txt", b"a caption")
    put(tmp_path, "metadata.csv", b"file_name,label\n")
    put(tmp_path, "cat/layers.psd", b"8BPS" + b"\0" * 40)
    source = scan(tmp_path)
    found = reasons(source)
    sidecar = ("skipped", "text: not published; look into it first, because text can name clean pictures or hold them")
    assert found["cat/notes.txt"] == found["metadata.csv"] == sidecar
    assert found["top.png"] == ("skipped", "lies in no class folder")
    assert found[".hidden/x.png"] == found["cat/.secret.png"] == ("skipped", "hidden file or folder")
    assert found["cat/empty.jpg"] == ("failed", "empty file (0 bytes)")
    assert found["cat/cut.png"][0] == found["cat/cut.jpg"][0] == "failed"
    assert "truncated" in found["cat/cut.jpg"][1]
    assert found["cat/page.jpg"][0] == "failed" and "web page" in found["cat/page.jpg"][1]
    assert found["cat/noise.png"] == ("failed", "its content is no known picture format")
    assert found["cat/drawing.svg"][0] == "skipped" and "SVG" in found["cat/drawing.svg"][1]
    assert found["cat/layers.psd"][0] == "skipped"
    assert ('pip install "miue[heif]"' in found["cat/phone.heic"][1]) == (find_spec("pillow_heif") is None)
    assert len(source.entries) == 4 + 13
    assert sum(source.summary().values()) == 17


def test_content_counts_and_not_the_extension(tmp_path: Path):
    folder(tmp_path)
    put(tmp_path, "cat/really_jpeg.png", encoded(pixels(5), "JPEG"))
    put(tmp_path, "cat/no_extension", encoded(pixels(6), "WEBP"))
    assert scan(tmp_path).summary() == {"ok": 6}


def _sixteen_bit_rgb_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(6 * 4) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _frames(form: str, **options) -> bytes:
    return encoded(pixels(1), form, save_all=True, append_images=[pixels(2), pixels(3)], **options)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("bits.png", pixels(mode="1"), "1 bit"),
        ("grey16.png", Image.fromarray(np.full((9, 9), 4096, np.uint16)), "clipped"),
        ("rgb16.png", _sixteen_bit_rgb_png(), "clipped"),
        ("grey16.tif", encoded(Image.fromarray(np.full((9, 9), 4096, np.uint16)), "TIFF"), "clipped"),
        ("grey16.pgm", b"P5\n# a remark\n2 2\n65535\n" + bytes(8), "clipped"),
        ("rgb16.ppm", b"P6 2 2 65535\n" + bytes(24), "clipped"),
        ("float.tif", encoded(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF"), "clipped"),
        ("int.tif", encoded(Image.fromarray(np.zeros((9, 9), np.int32)), "TIFF"), "clipped"),
        ("lab.tif", encoded(Image.new("LAB", (9, 9)), "TIFF"), "colour mode LAB"),
        ("moving.gif", _frames("GIF"), "more than one picture"),
        ("moving.webp", _frames("WEBP"), "more than one picture"),
        ("moving.png", _frames("PNG"), "more than one picture"),
        ("pages.tif", _frames("TIFF"), "more than one picture"),
        ("stereo.jpg", _frames("MPO"), "more than one picture"),
    ],
)
def test_what_cannot_be_written_is_skipped_with_a_reason(tmp_path: Path, name, content, why):
    put(folder(tmp_path), f"cat/{name}", content)
    (status, reason), *rest = reasons(scan(tmp_path)).values()
    assert not rest and status == "skipped" and why in reason


def test_first_frame_on_request(tmp_path: Path):
    put(folder(tmp_path), "cat/moving.gif", _frames("GIF"))
    source = scan(tmp_path, frames="first")
    assert source.summary() == {"ok": 5}
    assert "only the first of several frames is published (1 pictures, such as cat/moving.gif)" in source.notes


def test_too_many_pixels(tmp_path: Path):
    put(folder(tmp_path), "cat/huge.png", pixels(width=40, height=40))
    assert reasons(scan(tmp_path, max_pixels=1000)) == {
        "cat/huge.png": ("skipped", "more than 1000 pixels (max_pixels)")
    }


def test_a_decompression_bomb_is_not_opened(tmp_path: Path):
    data = bytearray(encoded(pixels()))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    put(folder(tmp_path), "cat/bomb.png", bytes(data))
    assert reasons(scan(tmp_path)) == {"cat/bomb.png": ("skipped", "far more pixels than Pillow opens")}


def test_pipes_and_locked_folders_are_accounted_for(tmp_path: Path, monkeypatch):
    folder(tmp_path, "cat/locked/1.png")
    os.mkfifo(tmp_path / "cat/pipe.png")
    whole = os.scandir

    def scandir(path: str | Path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert reasons(scan(tmp_path)) == {
        "cat/locked": ("skipped", "a folder that may not be read"),
        "cat/pipe.png": ("skipped", "not a regular file"),
    }


def test_links_are_not_followed(tmp_path: Path):
    root = folder(tmp_path / "set")
    outside = put(tmp_path, "elsewhere/x.png")
    (root / "cat/loop").symlink_to(root, target_is_directory=True)
    (root / "cat/out.png").symlink_to(outside)
    (root / "cat/twice.png").symlink_to(root / "dog/0.png")
    (root / "cat/gone.png").symlink_to(root / "nothing.png")
    (root / "linked_class").symlink_to(outside.parent, target_is_directory=True)
    source = scan(root)
    assert source.classes == ("cat", "dog") and len(source.usable) == 4
    assert {path: reason for path, (_, reason) in reasons(source).items()} == {
        "cat/loop": "a link to a folder: links are not followed",
        "cat/out.png": "a link out of this folder",
        "cat/twice.png": "a link to another file of this folder",
        "cat/gone.png": "a link that leads nowhere",
        "linked_class": "a link to a folder: links are not followed",
    }


def test_the_same_file_twice_by_hard_link(tmp_path: Path):
    folder(tmp_path)
    os.link(tmp_path / "cat/0.png", tmp_path / "dog/same.png")
    source = scan(tmp_path)
    assert any("different labels" in note and "cat/0.png = dog/same.png" in note for note in source.notes)


def test_unreadable_file_fails_alone(tmp_path: Path, monkeypatch):
    locked, real = folder(tmp_path) / "cat/0.png", Path.open

    def opened(path: Path, *mode: str) -> IO:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return real(path, *mode)

    monkeypatch.setattr(Path, "open", opened)
    assert reasons(scan(tmp_path)) == {"cat/0.png": ("failed", "cannot be read: Permission denied")}


# --- refusals ---


def refusal(source, **options) -> str:
    with pytest.raises(UserError) as error:
        scan(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_nothing_there(tmp_path: Path):
    assert "named sets: shapes, digits" in refusal(tmp_path / "missing")
    assert "no class folders" in refusal(tmp_path)
    (tmp_path / "cat").mkdir()
    assert "no pictures that can be protected" in refusal(tmp_path)
    put(tmp_path, "cat/a.txt", b"text")
    assert "text: not published" in refusal(tmp_path)


def test_files_at_the_root_only(tmp_path: Path):
    put(tmp_path, "1.png")
    assert "one folder per class" in refusal(tmp_path)


def test_one_class(tmp_path: Path):
    put(put(tmp_path, "cat/1.png").parents[1], "cat/2.png")
    assert "at least two classes" in refusal(tmp_path)
    (tmp_path / "dog").mkdir()
    assert "at least two classes" in refusal(tmp_path)


def test_splits_are_not_classes(tmp_path: Path):
    folder(tmp_path / "train")
    folder(tmp_path / "test", count=3)
    text = refusal(tmp_path)
    assert "split='train'" in text and "test, train" in text
    assert len(scan(tmp_path, split="train").usable) == 4
    assert len(scan(tmp_path, split="test").usable) == 6
    assert scan(tmp_path / "test").digest == scan(tmp_path, split="test").digest
    assert "folders there: test, train" in refusal(tmp_path, split="val")


def test_empty_and_unbalanced_classes_are_noted(tmp_path: Path):
    folder(tmp_path, *(f"cat/more{i}.png" for i in range(20)), "one/1.png")
    (tmp_path / "bird").mkdir()
    source = scan(tmp_path)
    assert source.classes == ("bird", "cat", "dog", "one")
    notes = " | ".join(source.notes)
    assert (
        "without pictures, kept: bird" in notes and "one picture: one" in notes and "severe imbalance: 1 to 22" in notes
    )


def test_duplicates_sizes_and_earlier_protection_are_noted(tmp_path: Path):
    root = folder(tmp_path / "set")
    put(root, "cat/copy.png", (root / "cat/0.png").read_bytes())
    put(root, "cat/tiny.png", pixels(width=3, height=3))
    put(root, "PROTECTED.md", b"notice")
    notes = " | ".join(scan(root).notes)
    assert "1 pictures repeat another" in notes and "side below 8" in notes and "2 different sizes" in notes
    assert "looks protected already" in notes


# --- names ---


def test_stems_that_collide_get_the_whole_name(tmp_path: Path):
    for name, form in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("b.c.jpg", "JPEG"), ("b.webp", "WEBP"), ("b.bmp", "BMP")):
        put(tmp_path, f"cat/{name}", encoded(pixels(len(name)), form))
    put(tmp_path, "dog/X.png")
    put(tmp_path, "dog/x.jpg", encoded(pixels(), "JPEG"))
    put(tmp_path, "dog/x.PNG")
    out = {e.path: e.out for e in scan(tmp_path).usable}
    assert out["cat/a.png"] == "cat/a.png" and out["cat/a.jpg"] == "cat/a.jpg.png"
    assert out["cat/b.c.jpg"] == "cat/b.c.png"
    assert out["cat/b.webp"] == "cat/b.webp.png" and out["cat/b.bmp"] == "cat/b.bmp.png"
    assert len({name.casefold() for name in out.values()}) == 8


def test_a_folder_that_is_named_like_an_output_file(tmp_path: Path):
    put(folder(tmp_path, "cat/x.png/1.png"), "cat/x.jpg", encoded(pixels(), "JPEG"))
    assert {"cat/x.jpg": "cat/x.jpg.png", "cat/x.png/1.png": "cat/x.png/1.png"}.items() <= {
        e.path: e.out for e in scan(tmp_path).usable
    }.items()


def test_names_that_some_file_systems_take_for_one(tmp_path: Path):
    for name in ("\u00e9.png", "e\u0301.png", "A.png", "a.png"):
        put(folder(tmp_path), f"cat/{name}")
    outs = [e.out for e in scan(tmp_path).usable]
    assert len(outs) == 8 == len({o.casefold().replace("e\u0301", "\u00e9") for o in outs})


def test_odd_names(tmp_path: Path):
    names = [
        "pièce 1.png",
        "🐈‍⬛.png",
        "quo'te\"d & <b>.png",
        "n" * 251 + ".png",
        ".png.png",
        "no.dots.here",
        "CON.png",
    ]
    for name in names:
        put(folder(tmp_path), f"cat/{name}", encoded(pixels(len(name))))
    (tmp_path / os.fsdecode(b"dog/caf\xe9.png")).write_bytes(encoded(pixels(7)))
    source = scan(tmp_path)
    found = {e.path: e.out for e in source.usable}
    assert found["dog/caf%xe9.png"] == "dog/caf%xe9.png"
    assert found["cat/🐈‍⬛.png"] == "cat/🐈‍⬛.png"
    assert all(len(out.split("/")[-1].encode()) < 250 for out in found.values())
    assert len(read(source)) == len(source.usable) == 4 + len(names) - 1 + 1  # ".png.png" is hidden


# --- reading ---


def test_canvas_and_grey(tmp_path: Path):
    root = folder(tmp_path)
    assert default_canvas(scan(root)) == 64
    square = tmp_path / "square"
    for name in ("a/1.png", "b/2.png"):
        put(square, name, pixels(len(name), 20, 20, "L"))
    source = scan(square)
    images = read(source)
    assert images.shape == (1, 20, 20) and images.name == "square" and images.sources == ("a/1.png", "b/2.png")
    assert (images.images[0, 0].numpy() == np.asarray(Image.open(square / "a/1.png"))).all()
    assert read(source, grey=False).shape == (3, 20, 20)
    assert read(source, 7).shape == (1, 7, 7)
    with pytest.raises(UserError, match="has colour"):
        read(scan(root), grey=True)


def test_grey_is_repeated_among_colours_and_alpha_is_dropped(tmp_path: Path):
    put(tmp_path, "a/grey.png", pixels(1, 9, 9, "L"))
    clear = put(tmp_path, "b/clear.png", pixels(2, 9, 9, "RGBA"))
    images = read(scan(tmp_path)).images
    assert (images[0, 0] == images[0, 2]).all()
    assert (images[1].permute(1, 2, 0).numpy() == np.asarray(Image.open(clear))[..., :3]).all()


def test_large_sets_are_memory_mapped(tmp_path: Path, monkeypatch):
    source = scan(folder(tmp_path / "set"))
    expected = read(source, 8).images
    monkeypatch.setattr(sys.modules["miue.data.read"], "_IN_MEMORY", 10)
    images = read(source, 8, cache=tmp_path / "cache").images
    assert (images == expected).all()
    assert [p.stat().st_size for p in (tmp_path / "cache").iterdir()] == [4 * 3 * 64]
    other = read(scan(folder(tmp_path / "other", "cat/new.png")), 8, cache=tmp_path / "cache")
    again = read(source, 8, cache=tmp_path / "cache").images
    assert (images == expected).all() and (again == expected).all() and len(other) == 5


def test_changed_since_the_scan(tmp_path: Path):
    source = scan(folder(tmp_path))
    put(tmp_path, "cat/0.png", pixels(77))
    with pytest.raises(UserError, match=r"cat/0\.png: has changed since it was scanned"):
        read(source)
    (tmp_path / "cat/0.png").unlink()
    with pytest.raises(UserError, match="cannot be read any more"):
        read(source)
