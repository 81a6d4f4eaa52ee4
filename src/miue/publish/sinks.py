"""Writers of protected pictures: a tree of files, parquet shards, or an .npz file. No file appears incomplete."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from miue.core.errors import UserError
from miue.core.files import flush_all, write_atomically
from miue.data.arrays import ArrayStore, load_npz
from miue.data.picture import Picture, encode
from miue.data.rights import Rights
from miue.data.source import FILES, Payload, Source
from miue.data.tables import ParquetStore

Form = Literal["png", "webp"]
NONE = Rights()
GROUP = 256 * 2**20
"""Largest number of bytes of pictures in one row group, since readers cannot take groups of more than 2 GiB."""


@dataclass(frozen=True)
class Sink(ABC):
    """Base class of writers. They write groups of rows; the rows of a group share one file."""

    source: Source = field(repr=False)
    out: Path
    form: Form
    rights: Rights = NONE

    @cached_property
    @abstractmethod
    def files(self) -> tuple[str, ...]:
        """Paths of the files that it writes, relative to `out`."""

    @cached_property
    @abstractmethod
    def groups(self) -> Sequence[range]:
        """Rows of `source.usable`: one range for each file, in order. Made once: it is asked at every file."""

    def encode(self, picture: Picture) -> Payload:
        meta = picture.meta
        return encode(picture, self.form, self.rights.packet(meta.reserved, meta.artist, meta.copyright))

    def key(self, picture: Picture) -> str:
        """The statement on data mining in the file of a picture, as a key."""
        return self.rights.key(picture.meta.reserved)

    @abstractmethod
    def put(self, at: int, payloads: Iterator[Payload]) -> None:
        """Write group number `at`, taking its payloads one after another."""

    @abstractmethod
    def stored(self, at: int) -> Iterator[Payload]:
        """Read group number `at` back from disk. Raises OSError, ValueError or UserError if it is damaged."""

    def flush(self, groups: Sequence[int]) -> None:  # noqa: B027 (sinks of large files flush each in `put`)
        """Flush files of groups to disk that `put` has not flushed."""


def sink_for(source: Source, out: Path, form: Form, rights: Rights = NONE) -> Sink:
    """A sink of the same kind as the source. A named set becomes a folder of class folders."""
    return {"parquet": ParquetSink, "npz": NpzSink}.get(source.kind, TreeSink)(source, out, form, rights)


def out_name(out: str, kind: str, form: Form) -> str:
    """Path of a picture in the output, from `out` of its entry."""
    return f"{out.removesuffix('.png')}.{form}" if kind in FILES else out


@dataclass(frozen=True)
class TreeSink(Sink):
    """One file for each picture. All are flushed together; a resumed run detects files damaged by a power cut."""

    _folders: set[Path] = field(default_factory=set, repr=False)
    """Folders that are known to contain no link in their path."""

    @cached_property
    def files(self) -> tuple[str, ...]:
        return tuple(out_name(entry.out, self.source.kind, self.form) for entry in self.source.usable)

    @cached_property
    def groups(self) -> Sequence[range]:
        return [range(i, i + 1) for i in range(len(self.source.rows))]

    def _path(self, at: int) -> Path:
        return self.out / out_name(self.source.usable[at].out, self.source.kind, self.form)

    def put(self, at: int, payloads: Iterator[Payload]) -> None:
        path, payload = self._path(at), next(payloads)
        if path.parent not in self._folders:
            if path.parent.resolve() != self.out.resolve() / path.parent.relative_to(self.out):
                raise UserError(f"{path.parent}: leads through a link; nothing is written through links")
            self._folders.add(path.parent)
        write_atomically(path, bytes(payload), flush=False)

    def flush(self, groups: Sequence[int]) -> None:
        flush_all(map(self._path, groups))

    def stored(self, at: int) -> Iterator[Payload]:
        yield self._path(at).read_bytes()


class ParquetSink(Sink):
    """Shards with the names, columns and schema of the source's. Rows that are not protected are left out."""

    @property
    def store(self) -> ParquetStore:
        assert isinstance(self.source.store, ParquetStore)
        return self.source.store

    @cached_property
    def files(self) -> tuple[str, ...]:
        return tuple(shard.relative_to(self.store.root).as_posix() for shard in self.store.shards)

    @cached_property
    def groups(self) -> Sequence[range]:
        rows = np.array(self.source.rows)
        spans = [self.store.span(shard) for shard in self.store.shards]
        return [range(*np.searchsorted(rows, [span.start, span.stop]).tolist()) for span in spans]

    def put(self, at: int, payloads: Iterator[Payload]) -> None:
        shard = self.store.shards[at]
        write_atomically(self.out / self.files[at], lambda part: self._copy(shard, part, payloads))

    def _copy(self, shard: Path, part: Path, payloads: Iterator[Payload]) -> None:
        keep, column, row = set(self.source.rows), self.store.column, self.store.span(shard).start
        names = self.store.schema.names
        with pq.ParquetFile(shard) as file, pq.ParquetWriter(part, self.store.schema) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, names)
                rows, row = [i for i in range(len(table)) if row + i in keep], row + len(table)
                images, table = table.column(column), table.drop_columns([column]).take(rows)
                start, cells, size = 0, list[Any](), 0
                for at, data in zip(rows, islice(payloads, len(rows)), strict=True):
                    if cells and size + len(data) > GROUP:
                        writer.write_table(self._group(table.slice(start, len(cells)), cells))
                        start, cells, size = start + len(cells), [], 0
                    cells.append(_cell(images[at], data, self.form, self.store.schema.field(column).type))
                    size += len(data)
                if cells:
                    writer.write_table(self._group(table.slice(start), cells))

    def _group(self, table: pa.Table, cells: list[Any]) -> pa.Table:
        """A table of rows of the source in the published schema, with new pictures."""
        schema, image = self.store.schema, self.store.column
        arrays = [pa.array(cells, f.type) if f.name == image else table.column(f.name) for f in schema]
        return pa.table(arrays, schema)

    def stored(self, at: int) -> Iterator[Payload]:
        with pq.ParquetFile(self.out / self.files[at]) as file:
            for batch in file.iter_batches(64, columns=[self.store.column]):
                for cell in batch.column(0).to_pylist():
                    yield cell["bytes"] if isinstance(cell, dict) else cell


def _cell(old: Any, data: Payload, form: Form, kind: pa.DataType) -> dict | Payload:
    """The new value of an image column of this type. The path in it gets the extension of the new format."""
    if not pa.types.is_struct(kind):
        return data
    path = old["path"].as_py() if kind.get_field_index("path") >= 0 else None
    return {"bytes": data} | ({"path": f"{path.rpartition('.')[0] or path}.{form}"} if path else {})


class NpzSink(Sink):
    """One .npz file with the arrays of the source; only the pictures differ."""

    @property
    def store(self) -> ArrayStore:
        assert isinstance(self.source.store, ArrayStore)
        return self.source.store

    @cached_property
    def files(self) -> tuple[str, ...]:
        return (Path(self.store.location).name,)

    @cached_property
    def groups(self) -> Sequence[range]:
        return [range(len(self.source.rows))]

    def encode(self, picture: Picture) -> Payload:
        return picture.array.reshape(self.store.images.shape[1:])

    def key(self, picture: Picture) -> str:
        return ""  # an array has no place for it

    def put(self, at: int, payloads: Iterator[Payload]) -> None:
        images = np.empty_like(self.store.images)
        for i, payload in enumerate(payloads):
            images[i] = payload
        arrays = load_npz(Path(self.store.location)) | {self.store.key: images}

        def save(part: Path) -> None:
            with part.open("wb") as file:  # a file object, because numpy adds its extension to a path
                np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

        write_atomically(self.out / self.files[0], save)

    def stored(self, at: int) -> Iterator[Payload]:
        yield from load_npz(self.out / self.files[0]).get(self.store.key, ())
