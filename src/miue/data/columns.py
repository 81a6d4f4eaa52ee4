"""The columns of a table that are published beside the pictures: an allow-list, since others may show clean ones."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from miue.core.errors import UserError

pc: Any = importlib.import_module("pyarrow.compute")  # created at run time, unknown to type checkers

LONGEST = 255
"""Largest number of characters in a text. In base64 that is 191 bytes: less than the header of a JPEG file."""
MOST = 64
"""Largest number of columns beside pictures and label. An 8 x 8 picture has as many pixels."""
_ADDRESS = r"[a-zA-Z][a-zA-Z0-9+.-]*://|^\s*(data:|//|www[.])|^[\w-]+([.][\w-]+)*[.][a-zA-Z]{2,}/"
_AT = "the column {} has addresses: what lies there may be the clean pictures"
_FACTS = ("_type", "dtype", "id", "mode", "decode", "num_classes", "names")  # published entries of a feature


def features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Hugging Face's metadata for every column; empty if they are missing or damaged."""
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        values = json.loads(text)["info"]["features"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: feature for name, feature in values if isinstance(feature, dict)}


def is_image(column: pa.Field) -> bool:
    """True if a column can hold encoded pictures: binary, or a struct with binary `bytes`."""
    kind = column.type
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_bytes(kind.field(at).type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def published(schema: pa.Schema, image: str, dropped: Sequence[str], paths: bool) -> tuple[pa.Schema, list[str]]:
    """The schema of the output, and the names of columns, fields and metadata that are left out.

    The image column keeps `bytes`, and `path` if `paths`. Metadata are rebuilt, because they can hold anything.
    """
    fields = ("bytes", "path") if paths else ("bytes",)
    columns, lost = [], [name for name in schema.names if name in dropped]
    for column in schema:
        if column.name in dropped:
            continue
        kind = column.type
        if column.name == image and pa.types.is_struct(kind):
            parts = [kind.field(i) for i in range(kind.num_fields)]
            lost += [f"{image}.{part.name}" for part in parts if part.name not in fields]
            kind = pa.struct([pa.field(p.name, _plain(p.type)) for p in parts if p.name in fields])
        columns.append(pa.field(column.name, _plain(kind), column.nullable))
    own = features(schema)
    own = {column.name: facts for column in columns if (facts := _facts(own.get(column.name, {})))}
    others = sorted(key.decode("utf-8", "replace") for key in schema.metadata or {} if key != b"huggingface")
    lost += [f"metadata {key!r}" for key in others]
    text = {"huggingface": json.dumps({"info": {"features": own}})} if own else None
    return pa.schema(columns, text), lost


def _facts(feature: dict[str, Any]) -> dict[str, Any]:
    """The published entries of a feature: the known ones with short values."""
    return {key: value for key, value in feature.items() if key in _FACTS and _is_short(value)}


def _is_short(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str) and len(each) <= LONGEST for each in value)
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= LONGEST)


def check_paths(shards: Sequence[Path], image: pa.Field) -> tuple[bool, list[str]]:
    """(True if the paths beside the pictures are published, as only short texts are; notes on them)."""
    kind, name = image.type, f"{image.name}.path"
    at = kind.get_field_index("path") if pa.types.is_struct(kind) else -1
    if at < 0 or not (_is_text(kind.field(at).type) or pa.types.is_string_view(kind.field(at).type)):
        return False, []
    try:
        longest, address = _texts(shards, name)
    except UserError:  # not UTF-8
        return False, []
    return longest <= LONGEST, [_AT.format(name)] if address and longest <= LONGEST else []


def check(path: Path, shards: Sequence[Path], schema: pa.Schema, own: Sequence[str]) -> list[str]:
    """Notes on the columns beside `own`, pictures and label. Raises UserError if one may show clean pictures."""
    others = [column for column in schema if column.name not in own]
    allowed = f"allowed beside the pictures: numbers, dates and texts of at most {LONGEST} characters"
    for column in others:
        if not _allowed(column.type):
            raise UserError(
                f"{path}: the column {column.name} ({column.type}) would be published as it is, and could hold clean "
                f"pictures; leave it out with --drop-columns {column.name} ({allowed})"
            )
    if len(others) > MOST:
        names = ",".join(column.name for column in others[: len(others) - MOST][:3])
        raise UserError(
            f"{path}: {len(others)} columns beside the pictures could be their pixels; at most {MOST} are published: "
            f"leave some out with --drop-columns {names},... , or all with --drop-columns '*'"
        )
    addresses = []
    for column in others:
        if _is_text(column.type):
            longest, address = _texts(shards, column.name)
            if longest > LONGEST:
                raise UserError(
                    f"{path}: the column {column.name} has a text of {longest} characters, which could hold a clean "
                    f"picture; leave it out with --drop-columns {column.name} ({allowed})"
                )
            addresses += [column.name] if address else []
    return [_AT.format(name) for name in addresses]


def check_label(path: Path, shards: Sequence[Path], column: pa.Field) -> None:
    """Raise UserError if a column holds no class labels, or labels so long that they could be pictures."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (_is_text(kind) or pa.types.is_integer(kind)):
        raise UserError(
            f"{path}: the column {column.name!r} ({column.type}) holds no class labels; allowed: integers or names"
        )
    if _is_text(kind) and (longest := _texts(shards, column.name)[0]) > LONGEST:
        raise UserError(
            f"{path}: the column {column.name!r} has a class name of {longest} characters, which could hold a clean "
            f"picture; shorten it (allowed: at most {LONGEST})"
        )


def _allowed(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type) or pa.types.is_integer(kind.value_type)
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_temporal)
    return _is_text(kind) or pa.types.is_null(kind) or any(allows(kind) for allows in numbers)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _texts(shards: Sequence[Path], name: str) -> tuple[int, bool]:
    """The length of the longest text in a column, and whether any text is an address."""
    longest, address = 0, False
    for shard in shards:
        for values in column_of(shard, name):
            if pa.types.is_struct(values.type):  # only `path` was read, but it comes as a struct
                values = values.field(0)
            try:
                values.validate(full=True)
            except pa.ArrowInvalid:
                raise UserError(
                    f"{shard}: the column {name} has texts that are not UTF-8; mend it, or leave it out with "
                    f"--drop-columns {name}"
                ) from None
            texts = values.dictionary if pa.types.is_dictionary(values.type) else values.cast(_plain(values.type))
            longest = max(longest, pc.max(pc.utf8_length(texts)).as_py() or 0)
            address = address or bool(pc.any(pc.match_substring_regex(texts, _ADDRESS)).as_py())
    return longest, address


def column_of(shard: Path, name: str) -> list[pa.Array]:
    """A column as a list of batches. Raises UserError, with the file, if it is damaged."""
    try:
        with pq.ParquetFile(shard) as file:
            return [batch.column(0) for batch in file.iter_batches(columns=[name])]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{shard}: the column {name!r} is damaged: {line_of(error)}; fetch the file again") from None


def line_of(error: Exception) -> str:
    """The text of an error on one line."""
    return re.sub(r"\s+", " ", str(error))[:200]
