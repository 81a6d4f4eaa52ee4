"""Tables as people have them: nothing beside the pictures shows them clean, and what cannot be read is one message."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from making import encoded, noise, pixels, put
from miue.core.errors import UserError
from miue.data import Source, private_of, scan
from miue.publish import sinks, verify, write

N = 8
PNG = [encoded(pixels(i, 32, 32), "PNG") for i in range(N)]
KIND = pa.struct({"bytes": pa.binary(), "path": pa.string()})
IMG = pa.array([{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(PNG)], KIND)
L = [i % 2 for i in range(N)]
HF = {"img": {"_type": "Image"}, "L": {"_type": "ClassLabel", "names": ["no", "yes"]}}


def written(folder: Path, metadata: Any = HF, name: str = "t.parquet", **columns: Any) -> Path:
    """A folder `in` with one table of eight pictures. metadata: Hugging Face's features, or a whole text."""
    text = metadata if isinstance(metadata, str) else json.dumps({"info": {"features": metadata}})
    table = pa.table({"img": IMG, "L": L} | columns).replace_schema_metadata({"huggingface": text})
    (folder / "in").mkdir(exist_ok=True)
    pq.write_table(table, folder / "in" / name)
    return folder / "in"


def protect(source: Source, out: Path) -> None:
    write(source, noise(len(source.usable), 32), out, private_of(out))


def holds_clean(out: Path) -> bool:
    """Whether a clean picture, encoded or as raw pixels, lies in some file of a folder, bit for bit."""
    raw = [pixels(i, 32, 32).tobytes() for i in range(N)]
    table = pq.read_table(out / "t.parquet")
    text = repr(table.to_pydict()).encode() + repr(table.schema.metadata).encode()
    files = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    needles = [*PNG, *raw, *(base64.b64encode(data) for data in PNG), *(repr(data)[2:-1].encode() for data in PNG)]
    return any(needle in content for needle in needles for content in (text, *files))


def tensors() -> pa.Array:
    kind = pa.fixed_shape_tensor(pa.uint8(), [3072])
    flat = np.concatenate([np.asarray(pixels(i, 32, 32)).reshape(-1) for i in range(N)])
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pa.array(flat), 3072))


RAW = [pixels(i, 32, 32).tobytes() for i in range(N)]
SHOWING: dict[str, Any] = {
    "raw pixels": pa.array(RAW, pa.binary(3072)),
    "tensor": tensors(),
    "uuid extension": pa.array([bytes(range(16))] * N, pa.uuid()),
    "base64": [base64.b64encode(data).decode() for data in PNG],
    "dictionary of base64": pa.array([base64.b64encode(data).decode() for data in PNG]).dictionary_encode(),
    "dictionary of bytes": pa.array(PNG).dictionary_encode(),
    "url-safe base64": [base64.urlsafe_b64encode(data).decode() for data in PNG],
    "base85": [base64.b85encode(data).decode() for data in PNG],
    "hex": [data.hex() for data in PNG],
    "base64 in JSON": [json.dumps({"thumb": base64.b64encode(data).decode()}) for data in PNG],
    "numbers as text": [" ".join(map(str, data)) for data in RAW],
    "only the last row": ["short"] * (N - 1) + [PNG[-1].hex()],
    "list": [list(data) for data in PNG],
    "map": pa.array([[("a", data)] for data in PNG], pa.map_(pa.string(), pa.binary())),
    "view": pa.array(["a"] * N, pa.string_view()),
}


@pytest.mark.parametrize("name", SHOWING)
def test_a_column_that_could_show_the_pictures_is_refused_or_dropped(tmp_path: Path, name: str):
    source, out = written(tmp_path, other=SHOWING[name]), tmp_path / "out"
    with pytest.raises(UserError, match=r"other|several image columns"):
        scan(source)
    for drop in (["other"], ["*"]):
        protected = scan(source, drop_columns=drop)
        assert "not in the output: other" in protected.notes
        protect(protected, out)
        assert pq.read_table(out / "t.parquet").column_names == ["img", "L"] and not holds_clean(out)
        assert all(finding.ok for finding in verify(out, protected))


def test_of_the_pictures_only_bytes_and_path_are_written(tmp_path: Path):
    parts = [{"bytes": data, "path": "a.png", "thumbnail": data, "exif": [1]} for data in PNG]
    source, out = written(tmp_path, img=pa.array(parts)), tmp_path / "out"
    protected = scan(source)
    assert any("img.thumbnail" in note and "img.exif" in note for note in protected.notes)
    protect(protected, out)
    assert pq.read_schema(out / "t.parquet").field("img").type == KIND and not holds_clean(out)
    assert all(finding.ok for finding in verify(out, protected))


def test_metadata_that_hold_a_picture_are_not_written(tmp_path: Path):
    source, out = written(tmp_path), tmp_path / "out"
    table = pq.read_table(source / "t.parquet")
    field = table.schema.field("img").with_metadata({b"preview": base64.b64encode(PNG[0])})
    schema = pa.schema([field, table.schema.field("L")], table.schema.metadata | {b"preview": base64.b64encode(PNG[1])})
    pq.write_table(table.cast(schema), source / "t.parquet")
    protect(scan(source), out)
    assert not holds_clean(out) and scan(out).classes == ("no", "yes")


@pytest.mark.parametrize(
    "paths",
    [
        pa.array(["data:image/png;base64," + base64.b64encode(data).decode() for data in PNG]),
        pa.array(PNG),
        pa.array([list(data) for data in PNG]),
        pa.array([{"thumb": data} for data in PNG]),
        pa.array(range(N)),
        pa.array([b"\xff\xfe"] * N).view(pa.string()),
    ],
    ids=["address that holds it", "bytes", "list", "struct", "numbers", "not UTF-8"],
)
def test_names_beside_the_pictures_that_are_no_short_texts_are_not_written(tmp_path: Path, paths: pa.Array):
    source, out = written(tmp_path, img=pa.StructArray.from_arrays([pa.array(PNG), paths], ["bytes", "path"])), tmp_path
    protected = scan(source)
    assert "not in the output: img.path" in protected.notes
    protect(protected, out / "out")
    assert pq.read_schema(out / "out/t.parquet").field("img").type == pa.struct({"bytes": pa.binary()})
    assert not holds_clean(out / "out") and all(finding.ok for finding in verify(out / "out", protected))


@pytest.mark.parametrize("address", ["https://a.org/{}.png", "//cdn.a.org/{}", "photos.a.org/{}.jpg", "see ftp://a/{}"])
def test_addresses_are_noted_also_beside_the_pictures(tmp_path: Path, address: str):
    texts = [address.format(i) for i in range(N)]
    images = pa.array([{"bytes": data, "path": text} for data, text in zip(PNG, texts, strict=True)], KIND)
    notes = scan(written(tmp_path, img=images, other=texts)).notes
    assert sum("has addresses" in note for note in notes) == 2
    assert not any("has addresses" in note for note in scan(written(tmp_path, other=["v1.2/a b.png"] * N)).notes)


def test_of_the_features_only_what_is_known_and_short_is_written(tmp_path: Path):
    hidden = {"preview": base64.b64encode(PNG[0]).decode(), "id": PNG[1].hex()}
    source, out = written(tmp_path, {k: v | hidden for k, v in HF.items()}), tmp_path / "out"
    protect(scan(source), out)
    kept = json.loads(pq.read_schema(out / "t.parquet").metadata[b"huggingface"])
    assert kept == {"info": {"features": HF}} and not holds_clean(out)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([1, 2], "class names are"),
        ("ab", "class names are"),
        ({"0": "a", "1": "b"}, "class names are"),
        (["x", "x"], "two classes are called 'x'"),
        (["x", "y" * 256], "too long"),
        (["x", "\ud800"], "no text"),
    ],
)
def test_class_names_that_are_none(tmp_path: Path, names: Any, why: str):
    with pytest.raises(UserError, match=why):
        scan(written(tmp_path, HF | {"L": {"_type": "ClassLabel", "names": names}}))


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([base64.b64encode(data).decode() for data in PNG], "class name of"),
        (pa.DictionaryArray.from_arrays(pa.array(L), pa.array(["a", "b", PNG[0].hex()])), "class name of"),
        (pa.array(["a", "b"] * 4, pa.string_view()), r"\(string_view\) holds no class labels"),
        ([0.0, 1.0] * 4, r"\(double\) holds no class labels"),
        ([True, False] * 4, r"\(bool\) holds no class labels"),
    ],
)
def test_labels_that_are_none_or_could_be_pictures(tmp_path: Path, labels: Any, why: str):
    with pytest.raises(UserError, match=why):
        scan(written(tmp_path, {}, label=labels))


def test_the_damaged_one_of_several_files_is_named(tmp_path: Path):
    source = written(tmp_path, name="b.parquet")
    written(tmp_path, name="a.parquet")
    assert "files that are taken for one table: a.parquet, b.parquet" in scan(source).notes
    path = source / "b.parquet"
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56
    path.write_bytes(data)
    reasons = {entry.reason for entry in scan(source).entries if entry.status == "failed"}
    assert len(reasons) == 1 and "b.parquet is damaged" in reasons.pop()
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.parquet: not readable as parquet"):
        scan(source)
    written(tmp_path, name="b.parquet", other=L)
    with pytest.raises(UserError, match=r"a\.parquet and b\.parquet have different columns"):
        scan(source)


def test_pixels_as_columns_are_refused(tmp_path: Path):
    grid = {f"p{i}": np.array([data[i] for data in RAW]) for i in range(784)}
    with pytest.raises(UserError, match="784 columns beside the pictures could be their pixels; at most 64"):
        scan(written(tmp_path, **grid))
    few = dict(list(grid.items())[:64])
    assert len(scan(written(tmp_path, **few)).usable) == N
    assert len(scan(written(tmp_path, **grid), drop_columns=["*"]).usable) == N


def test_harmless_columns_stay(tmp_path: Path):
    columns: dict[str, Any] = {
        "id": [f"picture {i}" for i in range(N)],
        "score": [0.5] * N,
        "seen": pa.array([0] * N, pa.timestamp("s")),
        "kind": pa.array(["a", "b"] * 4).dictionary_encode(),
        "good": [True] * N,
        "nothing": pa.nulls(N),
        "url": ["https://example.org/1.png"] * N,
    }
    source = scan(written(tmp_path, **columns))
    assert [note for note in source.notes if "addresses" in note] == [
        "the column url has addresses: what lies there may be the clean pictures"
    ]
    protect(source, tmp_path / "out")
    table = pq.read_table(tmp_path / "out/t.parquet")
    assert table.column_names == ["img", "L", *columns] and table["id"].to_pylist() == columns["id"]


@pytest.mark.parametrize(
    ("drop", "why"),
    [
        (["nothing"], "no column 'nothing' to drop; columns: img, L, id"),
        (["img"], "no image column"),
        (["L"], "no label column"),
    ],
)
def test_columns_that_cannot_be_dropped(tmp_path: Path, drop: list[str], why: str):
    with pytest.raises(UserError, match=why):
        scan(written(tmp_path, id=["a"] * N), drop_columns=drop)


def test_only_tables_have_columns(tmp_path: Path):
    for name in ("a", "b"):
        put(tmp_path, f"{name}/1.png", PNG[0])
    with pytest.raises(UserError, match=r"is no table and has no columns; leave --drop-columns id out"):
        scan(tmp_path, drop_columns=["id"])


@pytest.mark.parametrize("text", ['{"info": null}', "no JSON", "[]", '{"info": {"features": [1]}}', "\x00"])
def test_damaged_metadata_say_nothing(tmp_path: Path, text: str):
    assert len(scan(written(tmp_path, text, label=L)).usable) == N


def test_metadata_that_call_a_text_a_picture(tmp_path: Path):
    source = written(tmp_path, HF | {"caption": {"_type": "Image"}}, caption=["a"] * N)
    assert len(scan(source).usable) == N


@pytest.mark.parametrize(
    ("images", "why"),
    [
        ([{"bytes": list(data), "path": ""} for data in PNG], r"no image column.*binary.*img \(struct<bytes: list<"),
        ([{"path": "a.png"}] * N, "no image column"),
        (["a.png"] * N, "no image column"),
    ],
)
def test_columns_that_hold_no_encoded_pictures(tmp_path: Path, images: Any, why: str):
    with pytest.raises(UserError, match=why):
        scan(written(tmp_path, img=images))


def test_a_view_of_bytes_is_a_column_of_pictures(tmp_path: Path):
    source = scan(written(tmp_path, img=pa.array(PNG, pa.binary_view())))
    protect(source, tmp_path / "out")
    assert pq.read_schema(tmp_path / "out/t.parquet").field("img").type == pa.binary()
    assert all(finding.ok for finding in verify(tmp_path / "out", source))


def test_texts_that_are_not_utf8(tmp_path: Path):
    texts = pa.array([b"\xff\xfe"] * N).view(pa.string())
    with pytest.raises(UserError, match=r"t\.parquet: the column other has texts that are not UTF-8"):
        scan(written(tmp_path, other=texts))
    with pytest.raises(UserError, match="not UTF-8"):
        scan(written(tmp_path, {}, label=texts))


def test_a_damaged_label_column_names_its_file(tmp_path: Path):
    source = written(tmp_path)
    path = source / "t.parquet"
    meta = pq.read_metadata(path).row_group(0)
    column = next(meta.column(i) for i in range(meta.num_columns) if meta.column(i).path_in_schema == "L")
    at = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[at : at + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"t\.parquet: the column 'L' is damaged"):
        scan(source)


def test_two_columns_of_one_name(tmp_path: Path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table([IMG, pa.array(L), pa.array(L)], ["img", "label", "label"]), tmp_path / "in/t.parquet")
    with pytest.raises(UserError, match="two columns are called 'label'"):
        scan(tmp_path / "in")


def test_two_columns_of_labels(tmp_path: Path):
    both = HF | {"M": {"_type": "ClassLabel", "names": ["a", "b"]}}
    source = written(tmp_path, both, M=L)
    with pytest.raises(UserError, match=r"several columns could be the label \(L, M\)"):
        scan(source)
    assert scan(source, drop_columns=["L"]).classes == ("a", "b")
    source = written(tmp_path, both | {"label": HF["L"]}, M=L, label=L)
    assert any(note.startswith("labels are those of 'label'; for those of 'L'") for note in scan(source).notes)


@pytest.mark.parametrize(
    "names", [("mnist_train", "mnist_test"), ("Train2017", "Val2017"), ("data.training", "data.dev")]
)
def test_splits_in_names_of_files(tmp_path: Path, names: tuple[str, str]):
    for name in names:
        source = written(tmp_path, name=f"{name}.parquet")
    with pytest.raises(UserError, match=r"several splits \(.*train.*--split train"):
        scan(source)
    assert len(scan(source, split="train").usable) == N


def test_groups_are_cut_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sinks, "GROUP", 10_000_000)
    source = scan(written(tmp_path))
    sink = sinks.ParquetSink(source, tmp_path / "out", "png")
    payloads = [bytes([i]) * 4_000_000 for i in range(N)]
    sink.put(0, iter(payloads))
    with pq.ParquetFile(tmp_path / "out/t.parquet") as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [2, 2, 2, 2]
    table = pq.read_table(tmp_path / "out/t.parquet")
    assert [cell["bytes"] for cell in table["img"].to_pylist()] == payloads == list(sink.stored(0))
    assert table["L"].to_pylist() == L


@pytest.mark.parametrize("name", ["metadata.parquet", "metadata.csv", "metadata.jsonl", "index.parquet"])
def test_a_table_of_metadata_beside_class_folders(tmp_path: Path, name: str):
    for kind in ("cat", "dog"):
        for i in range(2):
            put(tmp_path, f"{kind}/{i}.png", PNG[i])
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"file_name": ["cat/0.png"], "text": ["a cat"]}), tmp_path / name)
    else:
        put(tmp_path, name, b"file_name,text\n")
    source = scan(tmp_path)
    assert (source.kind, source.classes, len(source.usable)) == ("folder", ("cat", "dog"), 4)
    (entry,) = (entry for entry in source.entries if entry.path == name)
    assert entry.status == "skipped" and entry.reason


def test_an_empty_table(tmp_path: Path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"img": IMG, "label": L}).slice(0, 0), tmp_path / "in/t.parquet")
    with pytest.raises(UserError):
        scan(tmp_path / "in")
    (tmp_path / "in/t.parquet").write_bytes(io.BytesIO().getvalue())
    with pytest.raises(UserError, match="not readable as parquet"):
        scan(tmp_path / "in")
