"""Parquet tables in the Hugging Face layout: an Image column (bytes, path) and a label column."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from miue.data.arrays import numbered
from miue.data.source import Item, Store
from miue.types import UserError

_LABELS = ("label", "labels", "fine_label", "class", "y", "target")


@dataclass(frozen=True, kw_only=True)
class ParquetStore(Store):
    """One or several shards, read by row group. Rows are counted over all shards."""

    root: Path
    shards: tuple[Path, ...] = field(repr=False)
    column: str
    _lock: Any = field(default_factory=Lock, repr=False, compare=False)

    @cached_property
    def groups(self) -> tuple[tuple[Path, int], ...]:
        """(shard, row group) in order."""
        return tuple((s, g) for s in self.shards for g in range(pq.read_metadata(s).num_row_groups))

    @cached_property
    def ends(self) -> list[int]:
        """The number of rows up to and including each row group."""
        files = {s: pq.read_metadata(s) for s in self.shards}
        return list(accumulate(files[s].row_group(g).num_rows for s, g in self.groups))

    @cached_property
    def _images(self) -> Any:
        return lru_cache(maxsize=2)(lambda at: _read(self.groups[at][0], self.groups[at][1], self.column))

    def get(self, index: int) -> bytes:
        with self._lock:
            at = bisect_right(self.ends, index)
            cell = self._images(at)[index - (self.ends[at - 1] if at else 0)].as_py()
        data = cell["bytes"] if isinstance(cell, dict) else cell
        if data is None:
            raise OSError("the row holds no picture, only a path or nothing")
        return data

    def span(self, shard: Path) -> range:
        """The rows of one shard."""
        at = [i for i, (s, _) in enumerate(self.groups) if s == shard]
        return range(self.ends[at[0] - 1] if at and at[0] else 0, self.ends[at[-1]]) if at else range(0)


def _read(shard: Path, group: int, column: str) -> pa.ChunkedArray:
    with pq.ParquetFile(shard) as file:
        return file.read_row_group(group, [column]).column(column)


def shard_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, of whatever split."""
    return sorted((*folder.glob("*.parquet"), *folder.glob("data/*.parquet")))


def shards_of(path: Path, split: str | None) -> tuple[Path, ...]:
    """The parquet files of a file or folder, of one split; empty where there are none."""
    if path.is_file():
        return (path,) if path.suffix == ".parquet" else ()
    found = shard_files(path)
    splits = sorted({p.stem.split("-")[0] for p in found})
    if split is not None and found:
        chosen = tuple(p for p in found if p.stem.split("-")[0] == split)
        if not chosen:
            raise UserError(f"{path}: there is no split {split!r}; splits there: {', '.join(splits)}")
        return chosen
    if len(splits) > 1 and "train" in splits:
        raise UserError(
            f"{path}: the files belong to several splits ({', '.join(splits)}); choose one with "
            "split='train' (--split train)"
        )
    return tuple(found)


def open_parquet(path: Path, shards: tuple[Path, ...]) -> ParquetStore:
    """Read schema and labels, no pictures."""
    try:
        schemas = [pq.read_schema(s) for s in shards]
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not readable as parquet: {error}") from None
    if any(not schemas[0].equals(schema) for schema in schemas):
        raise UserError(f"{path}: the files have different columns; point at files of one table")
    features = _features(schemas[0])
    column = _image_column(path, schemas[0], features)
    name = _label_column(path, schemas[0], features)
    _refuse_others(path, shards, schemas[0], column)
    cells = [cell for shard in shards for cell in pq.read_table(shard, columns=[name]).column(name).to_pylist()]
    classes, labels = _classes(path, name, cells, features.get(name, {}).get("names"))
    items = tuple(
        Item(f"row {i}", label, "" if label >= 0 else "the row has no label") for i, label in enumerate(labels)
    )
    return ParquetStore(
        kind="parquet", location=str(path), name=path.stem if path.is_file() else path.resolve().name, classes=classes,
        items=items, root=path.parent if path.is_file() else path, shards=shards, column=column,
    )  # fmt: skip


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    text = (schema.metadata or {}).get(b"huggingface")
    found = json.loads(text).get("info", {}).get("features", {}) if text else {}
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)}


def _image_column(path: Path, schema: pa.Schema, features: dict[str, dict[str, Any]]) -> str:
    def is_image(column: pa.Field) -> bool:
        struct = pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0
        plain = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
        return features.get(column.name, {}).get("_type") == "Image" or struct or plain

    found = [column.name for column in schema if is_image(column)]
    if len(found) != 1:
        what = "no image column" if not found else f"several image columns ({', '.join(found)})"
        raise UserError(
            f"{path}: {what}; exactly one is needed, because any other would be published unprotected "
            f"(columns: {', '.join(schema.names)})"
        )
    return found[0]


def _refuse_others(path: Path, shards: tuple[Path, ...], schema: pa.Schema, image: str) -> None:
    """All columns are written to the output: none but `image` may hold pictures."""
    nested = [c for c in schema if c.name != image and pa.types.is_nested(c.type)]
    texts = [c.name for c in schema if pa.types.is_string(c.type) or pa.types.is_large_string(c.type)]
    encoded = [name for name in texts if any(_holds_pictures(shard, name) for shard in shards)]
    if found := [f"{c.name} ({c.type})" for c in nested] + [f"{name} (pictures as text)" for name in encoded]:
        raise UserError(
            f"{path}: the column {found[0]} would be published as it is, and could hold clean pictures; "
            "write the table without it (allowed beside the pictures: numbers, dates and plain texts)"
        )


def _holds_pictures(shard: Path, column: str) -> bool:
    """Whether a text starts as PNG, JPEG, GIF or WebP do in base64, or as a picture in an address does."""
    signs = re.compile("iVBORw0KGgo|/9j/|R0lGOD|UklGR|data:image")
    with pq.ParquetFile(shard) as file:
        cells = (cell for batch in file.iter_batches(columns=[column]) for cell in batch.column(0).to_pylist())
        return any(cell is not None and signs.match(cell) for cell in cells)


def _label_column(path: Path, schema: pa.Schema, features: dict[str, dict[str, Any]]) -> str:
    typed = [k for k, v in features.items() if v.get("_type") == "ClassLabel"]
    for name in (*_LABELS, *typed):
        if name in schema.names and (not typed or name in typed):
            return name
    for name in _LABELS:
        if name in schema.names:
            return name
    raise UserError(f"{path}: no label column; name it 'label' (columns: {', '.join(schema.names)})")


def _classes(path: Path, column: str, cells: list[Any], names: list[str] | None) -> tuple[tuple[str, ...], list[int]]:
    kinds = {type(cell) for cell in cells} - {type(None)}
    if kinds == {str}:
        index = {name: i for i, name in enumerate(sorted({c for c in cells if c is not None}))}
        return tuple(index), [-1 if c is None else index[c] for c in cells]
    if not kinds or kinds != {int}:
        raise UserError(f"{path}: the column {column!r} holds no class labels; allowed: integers or names")
    count = max(c for c in cells if c is not None) + 1
    if names is not None and count > len(names):
        raise UserError(f"{path}: the column {column!r} holds label {count - 1}, but only {len(names)} names are given")
    classes = tuple(names) if names is not None else numbered(f"{path}: the column {column!r}", count, len(cells))
    return classes, [-1 if c is None or c < 0 else c for c in cells]
