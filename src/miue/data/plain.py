"""Plain tables without pictures: CSV or parquet, as columns."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path
from typing import Any

from miue.core.errors import UserError


def read_columns(path: Path) -> dict[str, list[Any]]:
    """The columns of a CSV file in UTF-8 (values as text, the first line has the names) or of a parquet file.

    Raises UserError if there is no such file, or if it cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_table(path).to_pydict()
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path}: is no parquet file that can be read ({error})") from None
    try:
        rows = [row for row in csv.reader(StringIO(path.read_text("utf-8-sig"), newline="")) if row]
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{path}: is no CSV file in UTF-8") from None
    names = [name.strip() for name in rows[0]] if rows else []
    if not rows or any(len(row) != len(names) for row in rows):
        raise UserError(f"{path}: is empty, or its lines have different numbers of values")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path}: two columns are called {repeated[0]!r}")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(names)}
