"""Parquet, .npz and named sets."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from making import encoded, noise, pixels, put, tree
from miue.core.errors import UserError
from miue.data import private_of, read, scan
from miue.data.formats import bits, lossless
from miue.publish import align, verify, write

CIFAR = Path(__file__).resolve().parents[3] / "shared/data/cifar10-jpeg/test.parquet"
FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["no", "yes"], "_type": "ClassLabel"}}


def protect(source, out: Path, **options):
    return write(source, noise(len(source.usable)), out, private_of(out), **options)


def table(n: int = 7, *, bad: int | None = None, labels=None, start: int = 0) -> pa.Table:
    images = [{"bytes": encoded(pixels(start + i), "JPEG"), "path": f"p{i}.jpg"} for i in range(n)]
    if bad is not None:
        images[bad]["bytes"] = b""
    labels = [i % 2 for i in range(n)] if labels is None else labels
    columns = {"id": [f"id{i}" for i in range(n)], "image": images, "label": labels}
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}}), "other": "kept"}
    return pa.table(columns).replace_schema_metadata(metadata)


def test_parquet_there_and_back(tmp_path: Path):
    path = tmp_path / "train.parquet"
    pq.write_table(table(bad=3, labels=[0, 1, 0, 1, None, 1, 0]), path, row_group_size=3)
    source = scan(path)
    assert (source.kind, source.name, source.classes) == ("parquet", "train", ("no", "yes"))
    assert [e.path for e in source.usable] == ["row 0", "row 1", "row 2", "row 5", "row 6"]
    assert source.summary() == {"ok": 5, "failed: empty file (0 bytes)": 1, "skipped: the row has no label": 1}
    assert read(source).sources[3] == "row 5"
    out = tmp_path / "out"
    written = protect(source, out)
    assert written.counts == {"protected": 5, "failed": 1, "skipped": 1} and written.worst == 8
    new = pq.read_table(out / "train.parquet")
    before = pq.read_schema(path)
    assert new.schema.equals(
        before.with_metadata({b"huggingface": before.metadata[b"huggingface"]}), check_metadata=True
    )
    assert source.notes == ("not in the output: metadata 'other'",)
    assert new["id"].to_pylist() == ["id0", "id1", "id2", "id5", "id6"]
    assert new["label"].to_pylist() == [0, 1, 0, 1, 0]
    for cell, row in zip(new["image"].to_pylist(), (0, 1, 2, 5, 6), strict=True):
        assert cell["path"] == f"p{row}.png" and cell["bytes"].startswith(b"\x89PNG")
        old = Image.open(io.BytesIO(encoded(pixels(row), "JPEG")))
        change = np.asarray(Image.open(io.BytesIO(cell["bytes"]))).astype(int) - np.asarray(old)
        assert 0 < np.abs(change).max() <= 8
    protected = scan(out)
    assert protected.classes == source.classes and align(source, protected).tolist() == [0, 1, 2, 3, 4]
    assert all(f.ok for f in verify(out, source)) and len(verify(out)) == 5


def test_parquet_verify_finds_a_clean_row_and_a_lost_file(tmp_path: Path):
    path, out = tmp_path / "t.parquet", tmp_path / "out"
    pq.write_table(table(), path)
    protect(scan(path), out)
    new = pq.read_table(out / "t.parquet")
    cells = new["image"].to_pylist()
    cells[2] = table()["image"].to_pylist()[2]
    pq.write_table(new.set_column(1, "image", pa.array(cells, new["image"].type)), out / "t.parquet")
    assert {f.path for f in verify(out) if not f.ok} == {"row 2"}
    (out / "t.parquet").unlink()
    assert not any(f.ok for f in verify(out))


def test_shards_resume_and_splits(tmp_path: Path):
    root, out, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    (root / "data").mkdir(parents=True)
    for split, shard, start in (("train", 0, 0), ("train", 1, 100), ("test", 0, 200)):
        pq.write_table(table(start=start), root / f"data/{split}-0000{shard}-of-0000{2 - (split == 'test')}.parquet")
    with pytest.raises(UserError, match=r"several splits \(test, train\)"):
        scan(root)
    with pytest.raises(UserError, match="splits there: test, train"):
        scan(root, split="val")
    source = scan(root, split="train")
    assert len(source.usable) == 14 and len(scan(root, split="test").usable) == 7
    protect(source, whole)
    asked = iter(range(99))
    with pytest.raises(KeyboardInterrupt):
        protect(source, out, stop=lambda: next(asked) == 10)
    assert sorted(tree(out)) == ["PROTECTED.md", "data/train-00000-of-00002.parquet"]
    protect(source, out)
    assert tree(out) == tree(whole) and len(tree(out)) == 3
    assert align(source, scan(out, split="train")).tolist() == list(range(14))


def test_labels_without_names(tmp_path: Path):
    path = tmp_path / "t.parquet"
    images = table(4)["image"]
    pq.write_table(pa.table({"image": images, "label": [2, 0, 2, 0]}), path)
    assert scan(path).classes == ("0", "1", "2") and [e.label for e in scan(path).usable] == [2, 0, 2, 0]
    pq.write_table(pa.table({"image": images, "label": ["dog", "cat", "dog", "cat"]}), path)
    assert scan(path).classes == ("cat", "dog") and [e.label for e in scan(path).usable] == [1, 0, 1, 0]
    plain = pa.array([cell["bytes"] for cell in images.to_pylist()])
    pq.write_table(pa.table({"image": plain, "y": [0, 1, 0, 1]}), path)
    protect(scan(path), tmp_path / "out")
    assert pq.read_table(tmp_path / "out/t.parquet")["image"].to_pylist()[0].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"label": [0, 1]}, "no image column"),
        ({"image": [b"1", b"2"], "mask": [b"3", b"4"], "label": [0, 1]}, r"several image columns \(image, mask\)"),
        ({"image": [b"1", b"2"], "kind": [0, 1]}, "no label column"),
        ({"image": [b"1", b"2"], "label": [0.5, 1.5]}, "no class labels"),
        ({"image": [b"1", b"2"], "label": [0, 10**12]}, "from 0 upwards"),
        ({"image": [b"1", b"2"], "label": [0, 1], "small": [[1, 2], [3]]}, r"small \(list.* could hold clean pictures"),
        ({"image": [b"1", b"2"], "label": [0, 1], "at": [{"x": 1}, {"x": 2}]}, r"at \(struct"),
        (
            {"image": [b"1", b"2"], "label": [0, 1], "b64": [None, "iVBORw0KGgoAAA" * 19]},
            "column b64 has a text of 266",
        ),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, columns, why):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=why):
        scan(tmp_path / "t.parquet")


def test_a_split_of_a_single_file(tmp_path: Path):
    pq.write_table(table(), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="single file"):
        scan(tmp_path / "train.parquet", split="test")


def test_not_parquet_at_all(tmp_path: Path):
    (tmp_path / "t.parquet").write_bytes(b"text")
    with pytest.raises(UserError, match="not readable as parquet"):
        scan(tmp_path / "t.parquet")


def test_rows_that_hold_only_a_path(tmp_path: Path):
    images = [*table(4)["image"].to_pylist(), {"bytes": None, "path": "elsewhere.png"}]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array(images, kind), "label": [0, 1, 0, 1, 1]}), tmp_path / "t.parquet")
    assert scan(tmp_path / "t.parquet").entries[4].status == "failed"


def test_the_real_thing():
    if not CIFAR.is_file():
        pytest.skip(f"{CIFAR} is not there")
    source = scan(CIFAR)
    assert len(source.usable) == 10_000 and source.summary() == {"ok": 10_000}
    assert source.classes[0] == "airplane" and source.classes[9] == "truck" and len(source.classes) == 10
    assert Counter(e.label for e in source.usable) == dict.fromkeys(range(10), 1000)
    data = read(replace(source, entries=source.entries[:50]))
    assert data.shape == (3, 32, 32)
    first = pq.read_table(CIFAR)["image"][0].as_py()["bytes"]
    assert (data.images[0].permute(1, 2, 0).numpy() == np.asarray(Image.open(io.BytesIO(first)))).all()


# --- arrays ---


@pytest.mark.parametrize("shape", [(6, 9, 8), (6, 9, 8, 1), (6, 9, 8, 3), (6, 9, 8, 4)])
def test_npz_there_and_back(tmp_path: Path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path, out = tmp_path / "set.npz", tmp_path / "out"
    np.savez(path, x=images, y=np.arange(6) % 3, weights=np.ones(6), classes=np.array(["a", "b", "c"]))
    source = scan(path)
    assert (source.kind, source.classes, source.name) == ("npz", ("a", "b", "c"), "set")
    protect(source, out)
    with np.load(out / "set.npz") as new:
        assert set(new.files) == {"x", "y", "weights", "classes"} and new["x"].shape == shape
        change = new["x"].astype(int) - images
        assert 0 < np.abs(change).max() <= 8 and (new["y"] == np.arange(6) % 3).all()
        assert shape[3:] != (4,) or not change[..., 3].any()
    before = tree(out)
    protect(source, out)
    assert tree(out) == before
    assert all(f.ok for f in verify(out, source)) and align(source, scan(out)).tolist() == list(range(6))


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "needed: pictures"),
        ({"x": np.uint8(3), "y": [0, 1]}, r"uint8 of shape \(\)"),
        ({"x": np.zeros((2, 4, 4), np.float32), "y": [0, 1]}, "float32 of shape"),
        ({"x": np.zeros((2, 3, 4, 9), np.uint8), "y": [0, 1]}, "channels last"),
        ({"x": np.zeros((2, 4, 4), np.uint8), "y": [0, -1]}, "at least 0"),
        ({"x": np.zeros((2, 4, 4), np.uint8), "y": [0, 10**12]}, "from 0 upwards"),
        ({"x": np.zeros((2, 4, 4), np.uint8), "y": np.array([{}, None])}, "Python objects"),
        (
            {"x": np.zeros((2, 4, 4), np.uint8), "y": [0, 1], "data": np.zeros((2, 4, 4), np.uint8)},
            "array 'data' .uint8",
        ),
        (
            {"x": np.zeros((2, 4, 4), np.uint8), "y": [0, 1], "flat": np.zeros(32, np.uint8)},
            "could hold clean pictures",
        ),
        ({"x": np.zeros((2, 4, 4), np.uint8), "y": [0, 1], "b64": ["iVBOR", "iVBOR"]}, "array 'b64'"),
    ],
)
def test_arrays_that_are_refused(tmp_path: Path, arrays, why):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=why):
        scan(tmp_path / "a.npz")


def test_plain_columns_beside_the_pictures_are_kept(tmp_path: Path):
    path = tmp_path / "t.parquet"
    columns = {"image": table(2)["image"], "label": [0, 1], "text": ["a cat", None], "score": [0.5, 1.5]}
    pq.write_table(pa.table(columns), path)
    protect(scan(path), tmp_path / "out")
    assert pq.read_table(tmp_path / "out/t.parquet").drop_columns("image").to_pydict() == {
        "label": [0, 1], "text": ["a cat", None], "score": [0.5, 1.5]
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 8, 8), np.uint8), y=[0, 1], weight=[0.5, 1.5], version=3)
    protect(scan(tmp_path / "a.npz"), tmp_path / "arrays")
    with np.load(tmp_path / "arrays/a.npz") as new:
        assert new["weight"].tolist() == [0.5, 1.5] and int(new["version"]) == 3


@pytest.mark.parametrize("name", ["t.parquet", "a.npz"])
def test_a_table_among_pictures_is_refused_and_other_files_are_told(tmp_path: Path, name: str):
    if name == "a.npz":
        np.savez(tmp_path / name, x=np.zeros((2, 8, 8), np.uint8), y=[0, 1])
    else:
        pq.write_table(table(4), tmp_path / name)
    put(tmp_path, "readme.txt", b"text")
    assert "not part of the table, not in the output: readme.txt" in scan(tmp_path).notes
    put(tmp_path, "photo.JPG", encoded(pixels(), "JPEG"))
    with pytest.raises(UserError, match=rf"the table {name} and beside it 1 pictures.*photo\.JPG"):
        scan(tmp_path)
    assert scan(tmp_path / name).kind == name.partition(".")[2]


# --- named sets ---


def test_a_folder_with_the_name_of_a_set(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "digits/a/0.png")
    put(tmp_path, "digits/b/0.png")
    with pytest.raises(UserError, match=r"write \./digits for what lies here, or digits: "):
        scan("digits")
    assert scan("./digits").kind == "folder" and scan("digits:").kind == "named"


def test_digits(tmp_path: Path):
    source = scan("digits")
    data = read(source)
    assert data.shape == (1, 8, 8) and len(data) == 1797 and int(data.images.max()) == 255
    assert source.location == source.name == "digits" and len(source.classes) == 10


def test_shapes_become_a_folder(tmp_path: Path):
    pytest.importorskip("miue.data.shapes")
    source = scan("shapes:per_class=2,size=16,seed=3")
    assert len(source.usable) == 20 and read(source).shape == (3, 16, 16)
    assert scan("shapes:per_class=2,size=16", split="test").digest != source.digest
    out = tmp_path / "out"
    protect(source, out)
    protected = scan(out)
    assert protected.classes == source.classes
    rows = align(source, protected)
    assert sorted(rows.tolist()) == list(range(20))
    assert (read(protected).labels[rows] == read(source).labels).all()
    assert all(f.ok for f in verify(out, source))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("shapes:colour=red", "no option 'colour'; allowed: per_class, size, seed, split"),
        ("shapes:size=big", "whole numbers"),
        ("shapes:split=val", "splits there: train, test"),
        ("digits:split=test", "no splits"),
        ("cifar10", "cifar10:root=FOLDER"),
        ("cifar10:root=/nowhere/at/all", "--download"),
        ("imagenet", "named sets: shapes"),
        ("./shapes", "no such file or folder"),
    ],
)
def test_names_that_are_refused(text, why):
    with pytest.raises(UserError, match=why):
        scan(text)


def test_a_torchvision_set_as_it_lies_on_disk(tmp_path: Path):
    """SVHN's files are the simplest to imitate; its arrays come channels first."""
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), np.uint8)
    savemat(tmp_path / "train_32x32.mat", {"X": images, "y": (np.arange(20) % 10 + 1)[:, None].astype(np.uint8)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SVHN, "_check_integrity", lambda self: True)
        source = scan(f"svhn:root={tmp_path}")
    assert len(source.usable) == 20 and source.classes == tuple("0123456789")
    assert (read(source).images[4].permute(1, 2, 0).numpy() == images[..., 4]).all()


# --- formats ---


def test_lossless_is_told_by_content():
    image = pixels(1, mode="RGBA")
    assert lossless(encoded(image)) and lossless(encoded(image, "WEBP", lossless=True))
    assert not lossless(encoded(image, "WEBP")) and not lossless(encoded(image.convert("RGB"), "WEBP"))
    assert not lossless(encoded(image.convert("RGB"), "JPEG")) and not lossless(b"")
    both = encoded(pixels(1), "WEBP", save_all=True, append_images=[pixels(2)], lossless=True)
    assert not lossless(both)


def test_bits_of_formats_that_pillow_reduces():
    assert bits(encoded(pixels(1), "JPEG2000"), "JPEG2000") == 8
    assert bits(encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "JPEG2000"), "JPEG2000") == 16
    assert bits(encoded(pixels(1), "AVIF"), "AVIF") == 8
    assert bits(b"P5 # one\n# two\n2 2 255\n", "PPM") == 8
    assert bits(b"P6\n2 2\n# late\n1023\n", "PPM") == 16
