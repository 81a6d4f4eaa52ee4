"""What verify and align find out about an output."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from making import encoded, folder, noise, pixels, put
from miue.core.errors import UserError
from miue.data import private_of, scan
from miue.publish import align, verify, write


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    source = scan(folder(tmp_path / "in"))
    write(source, noise(4), tmp_path / "out", private_of(tmp_path / "out"))
    return tmp_path / "in", tmp_path / "out"


def problems(out: Path, clean=None) -> dict[str, str]:
    return {finding.path: finding.problem for finding in verify(out, clean) if not finding.ok}


def test_all_is_well(pair):
    assert problems(pair[1]) == {} == problems(pair[1], scan(pair[0]))
    assert [f.path for f in verify(pair[1])] == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]


def test_what_can_be_wrong(pair):
    root, out = pair
    (out / "cat/0.png").unlink()
    (out / "cat/1.png").write_bytes((root / "cat/1.png").read_bytes())
    (out / "dog/0.png").write_bytes(encoded(Image.open(out / "dog/0.png"), "JPEG"))
    (out / "dog/1.png").write_bytes(b"<html>")
    shutil.copy(root / "dog/0.png", out / "dog/twin.dat")
    put(out, "foreign.txt", b"text")
    found = problems(out)
    assert "missing" in found["cat/0.png"]
    assert found["cat/1.png"] == "shows the unprotected cat/1.png"
    assert "not a lossless file" in found["dog/0.png"]
    assert "web page" in found["dog/1.png"]
    assert found["dog/twin.dat"] == "shows the unprotected dog/0.png"
    assert found["foreign.txt"] == "was not written by miue"


def test_other_pixels_and_the_budget(pair):
    root, out = pair
    with Image.open(out / "cat/0.png") as im:
        array = np.asarray(im).copy()
    array[0, 0] = array[0, 0] // 2 + 60
    put(out, "cat/0.png", Image.fromarray(array))
    assert "differs from the picture that was written" in problems(out)["cat/0.png"]
    assert "leaves the budget" in problems(out, scan(root))["cat/0.png"]


def test_another_picture_of_the_same_name_is_no_broken_budget(pair):
    root, _ = pair
    with Image.open(root / "cat/0.png") as im:
        put(root, "cat/0.png", Image.fromarray(255 - np.asarray(im)))
    assert problems(pair[1], scan(root)) == {
        "cat/0.png": "cat/0.png of the clean set is another picture than the one that was protected"
    }


def test_what_rides_behind_a_picture_and_a_missing_notice(pair):
    _, out = pair
    for name in ("cat/0.png", "cat/1.png"):
        (out / name).write_bytes((out / name).read_bytes() + b"x")
    (out / "PROTECTED.md").unlink()
    found = problems(out)
    assert set(found) == {"cat/0.png", "cat/1.png", "PROTECTED.md"}
    assert "behind the end" in found["cat/0.png"] and "missing" in found["PROTECTED.md"]


def test_nothing_follows_what_is_written(tmp_path: Path):
    source = scan(folder(tmp_path / "in"))
    for form in ("png", "webp"):
        out = tmp_path / form
        write(source, noise(4), out, private_of(out), format=form)
        assert problems(out) == {}
        webp = sorted(out.rglob("*.webp"))
        for path in webp:
            path.write_bytes(path.read_bytes() + b"12")
        assert len(problems(out)) == len(webp)


def test_a_preview_inside(pair):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "A"
    block = bytearray(exif.tobytes())
    link = 6 + 8 + 2 + 12
    block[link : link + 4] = (len(block) - 6).to_bytes(4, "big" if block[6:8] == b"MM" else "little")
    block += (1).to_bytes(2, "big" if block[6:8] == b"MM" else "little")
    block += b"".join(n.to_bytes(w, "big" if block[6:8] == b"MM" else "little") for n, w in ((0x202, 2), (4, 2), (1, 4), (5, 4)))  # fmt: skip  # noqa: E501
    with Image.open(pair[1] / "cat/0.png") as im:
        (pair[1] / "cat/0.png").write_bytes(encoded(im, exif=bytes(block) + b"\0\0\0\0"))
    assert "carries another picture inside" in problems(pair[1])["cat/0.png"]


def test_without_a_manifest(tmp_path: Path):
    with pytest.raises(UserError, match="no finished manifest"):
        verify(folder(tmp_path))


def test_align_says_what_is_missing_and_what_does_not_belong(pair, tmp_path: Path):
    root, out = pair
    clean = scan(root)
    (out / "cat/0.png").unlink()
    assert align(clean, scan(out)).tolist() == [-1, 0, 1, 2]
    put(out, "cat/new.png")
    with pytest.raises(UserError, match=r"was not made from .*: 1, as 'cat/new'"):
        align(clean, scan(out))
    with pytest.raises(UserError, match="classes"):
        align(clean, scan(folder(tmp_path / "other", "bird/1.png")))


def test_an_original_that_is_gone(pair):
    clean = scan(pair[0])
    (pair[0] / "cat/0.png").unlink()
    assert "not in the clean set" in problems(pair[1], scan(pair[0]))["cat/0.png"]
    with pytest.raises(UserError, match="cannot be read any more"):
        verify(pair[1], clean)


def test_a_stray_file_of_unknown_content_is_named(pair):
    put(pair[1], "cat/other.png", pixels(123))
    assert problems(pair[1]) == {"cat/other.png": "was not written by miue"}
