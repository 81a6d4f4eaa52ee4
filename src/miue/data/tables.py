"""Parquet tables in the Hugging Face layout: an Image column (bytes, path) and a label column."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from miue.core.errors import UserError
from miue.data import columns
from miue.data.arrays import class_names, numbered
from miue.data.source import Item, Store, some
from miue.data.splits import split_of

_LABELS = ("label", "labels", "fine_label", "class", "y", "target")
_LISTED = 20  # largest number of columns in a note


@dataclass(frozen=True, kw_only=True)
class ParquetStore(Store):
    """One or several parquet files (shards), read by row group. Rows are numbered over all shards."""

    root: Path
    shards: tuple[Path, ...] = field(repr=False)
    column: str
    schema: pa.Schema = field(repr=False)
    """Schema of the output: allowed columns only, and of the pictures `bytes` and `path`."""
    _lock: Any = field(default_factory=Lock, repr=False, compare=False)

    @cached_property
    def groups(self) -> tuple[tuple[Path, int], ...]:
        """Pairs (shard, row group) in order."""
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
            cell = self._images(at)[index - (self.ends[at - 1] if at else 0)]
        if cell.is_valid and pa.types.is_struct(cell.type):
            cell = cell["bytes"]  # without the path: only pictures are needed here
        data = cell.as_py()
        if data is None:
            raise OSError("the row holds no picture, only a path or nothing")
        return data

    def span(self, shard: Path) -> range:
        """The rows of one shard."""
        at = [i for i, (s, _) in enumerate(self.groups) if s == shard]
        return range(self.ends[at[0] - 1] if at and at[0] else 0, self.ends[at[-1]]) if at else range(0)


def _read(shard: Path, group: int, column: str) -> pa.ChunkedArray:
    try:
        with pq.ParquetFile(shard) as file:
            return file.read_row_group(group, [column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise OSError(f"{shard.name} is damaged there: {columns.line_of(error)}") from None


def _schema(shard: Path) -> pa.Schema:
    try:
        return pq.read_schema(shard)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{shard}: not readable as parquet: {columns.line_of(error)}; fetch the file again") from None


def shard_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, of all splits."""
    return sorted((*folder.glob("*.parquet"), *folder.glob("data/*.parquet")))


def shards_of(path: Path, split: str | None) -> tuple[Path, ...]:
    """The parquet files of one split in a file or folder; empty if there are none.

    Raises UserError if the split does not exist, or if there are several splits and none is chosen.
    """
    if path.is_file():
        return (path,) if path.suffix == ".parquet" else ()
    shards = shard_files(path)
    splits = sorted({_split(p) for p in shards})
    if split is not None and shards:
        chosen = tuple(p for p in shards if split in (_split(p), p.stem.split("-")[0]))
        if not chosen:
            raise UserError(f"{path}: there is no split {split!r}; splits there: {', '.join(splits)}")
        return chosen
    if len(splits) > 1 and any(map(split_of, splits)):
        first = "train" if "train" in splits else splits[0]
        raise UserError(
            f"{path}: the files belong to several splits ({', '.join(splits)}); choose one with "
            f"split={first!r} (--split {first})"
        )
    return tuple(shards)


def _split(shard: Path) -> str:
    """The split of a file: by a word of its name, else the name up to its number."""
    return split_of(shard.stem) or shard.stem.split("-")[0]


def has_images(shard: Path) -> bool:
    """True if a table may have a column of pictures, or cannot be read, so that the error is reported later."""
    try:
        return any(columns.is_image(column) for column in pq.read_schema(shard))
    except (pa.ArrowException, OSError):
        return True


def open_parquet(path: Path, shards: tuple[Path, ...], drop: Sequence[str] = ()) -> ParquetStore:
    """Open a table: read schema and labels, but no pictures.

    drop: columns that are not published; "*" means all except pictures and label. Raises UserError if the table cannot
    be used, or a column could show clean pictures.
    """
    schemas = [_schema(shard) for shard in shards]
    schema = schemas[0]
    if odd := [shard for shard, each in zip(shards, schemas, strict=True) if not each.equals(schema)]:
        raise UserError(
            f"{path}: the files {shards[0].name} and {odd[0].name} have different columns; point at files of one table"
        )
    if twice := [name for name in schema.names if schema.names.count(name) > 1]:
        raise UserError(f"{path}: two columns are called {twice[0]!r}; rename one")
    if unknown := [name for name in drop if name not in (*schema.names, "*")]:
        raise UserError(f"{path}: there is no column {unknown[0]!r} to drop; columns: {', '.join(schema.names)}")
    features = columns.features(schema)
    left = pa.schema([column for column in schema if column.name not in drop])
    column = _image_column(path, left, features, drop)
    name, others = _label_column(path, left, features)
    dropped = [each for each in schema.names if each not in (column, name)] if "*" in drop else list(drop)
    left = pa.schema([each for each in left if each.name not in dropped])
    columns.check_label(path, shards, left.field(name))
    paths, notes = columns.check_paths(shards, left.field(column))
    notes += columns.check(path, shards, left, (column, name))
    if len({re.sub(r"\d+", "", shard.stem) for shard in shards}) > 1:
        notes.append(f"files that are taken for one table: {some([shard.name for shard in shards])}")
    if others := [each for each in others if each not in dropped]:
        notes.append(f"labels are those of {name!r}; for those of {others[0]!r}: --drop-columns {name}")
    written, lost = columns.published(schema, column, dropped, paths)
    notes += [f"not in the output: {some(lost, _LISTED)}"] if lost else []
    classes, labels = _classes(path, name, _cells(shards, name), features.get(name, {}).get("names"))
    items = tuple(
        Item(f"row {i}", label, "" if label >= 0 else "the row has no label") for i, label in enumerate(labels)
    )
    return ParquetStore(
        kind="parquet", location=str(path), name=path.stem if path.is_file() else path.resolve().name, classes=classes,
        items=items, root=path.parent if path.is_file() else path, shards=shards, column=column,
        schema=written, notes=tuple(notes),
    )  # fmt: skip


def _cells(shards: tuple[Path, ...], name: str) -> list[Any]:
    """The values of a label column. Raises UserError, with the file, if it is damaged."""
    try:
        return [cell for shard in shards for part in columns.column_of(shard, name) for cell in part.to_pylist()]
    except UnicodeDecodeError:
        raise UserError(f"{shards[0]}: the labels in {name!r} are not UTF-8; mend them") from None


def _image_column(path: Path, schema: pa.Schema, features: dict[str, dict[str, Any]], drop: Sequence[str]) -> str:
    images = [column.name for column in schema if columns.is_image(column)]
    if "*" in drop and len(images) > 1:
        images = [name for name in images if features.get(name, {}).get("_type") == "Image"] or images
    if len(images) != 1:
        what = "no image column" if not images else f"several image columns ({', '.join(images)})"
        listed = ", ".join(f"{column.name} ({column.type})" for column in schema)
        raise UserError(
            f"{path}: {what}; exactly one is needed, of encoded pictures (binary, or a struct with binary `bytes`); "
            f"any other would be published unprotected: leave it out with --drop-columns NAME (columns: {listed})"
        )
    return images[0]


def _label_column(path: Path, schema: pa.Schema, features: dict[str, dict[str, Any]]) -> tuple[str, list[str]]:
    """The name of the label column, and the names of other candidates."""
    typed = [k for k, v in features.items() if v.get("_type") == "ClassLabel" and k in schema.names]
    usual = [name for name in _LABELS if name in schema.names]
    ranked = list(dict.fromkeys([*(name for name in usual if name in typed), *(() if typed else usual), *typed]))
    ranked = ranked or usual
    if not ranked:
        raise UserError(f"{path}: no label column; name it 'label' (columns: {', '.join(schema.names)})")
    if len(ranked) > 1 and not (set(ranked) & set(_LABELS)):
        raise UserError(
            f"{path}: several columns could be the label ({', '.join(ranked)}); name one of them 'label', or leave the "
            f"others out with --drop-columns {','.join(ranked[1:])}"
        )
    return ranked[0], ranked[1:]


def _classes(path: Path, column: str, cells: list[Any], names: Any) -> tuple[tuple[str, ...], list[int]]:
    kinds = {type(cell) for cell in cells} - {type(None)}
    if kinds == {str}:
        index = {name: i for i, name in enumerate(sorted({c for c in cells if c is not None}))}
        return tuple(index), [-1 if c is None else index[c] for c in cells]
    if not kinds or kinds != {int}:
        raise UserError(f"{path}: the column {column!r} holds no class labels; allowed: integers or names")
    count = max(c for c in cells if c is not None) + 1
    names = None if names is None else class_names(f"{path}: the column {column!r}", names)
    if names is not None and count > len(names):
        raise UserError(f"{path}: the column {column!r} holds label {count - 1}, but only {len(names)} names are given")
    classes = names if names is not None else numbered(f"{path}: the column {column!r}", count, len(cells))
    return classes, [-1 if c is None or c < 0 else c for c in cells]
