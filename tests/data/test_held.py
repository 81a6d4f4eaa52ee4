"""Pictures that a scan holds for reading: they are decoded once, and are the pixels that reading alone gives."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from making import folder, pixels, put
from miue.core.errors import UserError
from miue.data import read, scan

SETS = {
    "equal": [(12, 12, "RGB")] * 5,
    "grey": [(12, 12, "L")] * 5,
    "grey before colour": [(12, 12, "L"), (12, 12, "LA"), (12, 12, "RGB"), (12, 12, "L")],
    "colour before grey": [(12, 12, "RGB"), (12, 12, "L")],
    "two small sizes": [(12, 12, "RGB"), (12, 12, "L"), (16, 16, "RGB"), (12, 12, "RGB")],
    "large before the usual size": [(200, 200, "RGB"), (64, 64, "RGB"), (32, 32, "RGB")],
    "small before the usual size": [(32, 32, "L"), (64, 64, "RGB"), (97, 97, "RGB")],
    "no squares": [(30, 20, "RGB"), (20, 30, "L"), (20, 20, "RGBA")],
    "tiny": [(4, 4, "RGB")] * 3,
    "tiny of two sizes": [(4, 4, "RGB"), (8, 8, "RGB"), (5, 5, "RGB")],
}


def written(root: Path, sizes: list[tuple[int, int, str]]) -> Path:
    for number, (width, height, mode) in enumerate(sizes):
        put(root, f"{'ab'[number % 2]}/{number}.png", pixels(number, width, height, mode))
    put(root, "a/no picture.txt", b"words")
    put(root, "of no class.png", pixels(99))
    return root


def undecodable(patch: pytest.MonkeyPatch) -> None:
    """Let reading fail where it decodes a picture."""

    def never(*_: object) -> None:
        raise AssertionError("decoded again")

    patch.setattr(sys.modules["miue.data.read"], "decode", never)


@pytest.mark.parametrize("sizes", SETS.values(), ids=SETS)
@pytest.mark.parametrize("canvas", [None, 8, 64])
def test_held_pictures_are_those_that_are_read(tmp_path: Path, sizes, canvas):
    root = written(tmp_path, sizes)
    expected = read(scan(root, canvas=0), canvas)
    again = read(scan(root, canvas=canvas), canvas)
    assert again.digest == expected.digest and again.sources == expected.sources
    assert torch.equal(
        read(scan(root, canvas=canvas), canvas, grey=False).images, expected.images.expand(-1, 3, -1, -1)
    )


@pytest.mark.parametrize("name", ["equal", "grey before colour", "two small sizes", "no squares"])
def test_nothing_is_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    source, other = (scan(written(tmp_path, SETS[name]), canvas=canvas) for canvas in (None, 24))
    undecodable(monkeypatch)
    assert read(source).images.any() and read(other, 24).images.any()
    with pytest.raises(AssertionError, match="decoded again"):
        read(source)  # they were taken


def test_pictures_of_another_size_are_decoded_again(tmp_path: Path):
    root = written(tmp_path, SETS["equal"])
    assert read(scan(root, canvas=24), 16).digest == read(scan(root, canvas=0), 16).digest


def test_a_large_canvas_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["miue.data.canvas"], "LARGEST", 1000)
    source = scan(written(tmp_path, SETS["equal"]))
    assert source.held and source.held.pixels is None
    assert len(read(source)) == 5
    undecodable(monkeypatch)
    with pytest.raises(AssertionError, match="decoded again"):
        read(source)


def test_a_change_is_noticed_although_pictures_are_held(tmp_path: Path):
    source = scan(folder(tmp_path))
    put(tmp_path, "cat/0.png", pixels(77))
    with pytest.raises(UserError, match=r"cat/0\.png: has changed since it was scanned"):
        read(source)


def test_many_small_pictures_keep_their_order(tmp_path: Path):
    count = 600
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(count) % 2)
    source = scan(tmp_path / "set.npz")
    assert [entry.path for entry in source.entries] == [entry.path for entry in scan(tmp_path, canvas=0).entries]
    for data in (read(source), read(scan(tmp_path / "set.npz", canvas=0))):
        assert (data.images.numpy() == images.transpose(0, 3, 1, 2)).all()
