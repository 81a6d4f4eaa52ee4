"""The correspondence of clean and protected rows."""

from __future__ import annotations

from pathlib import PurePosixPath

import torch
from jaxtyping import Int64
from torch import Tensor

from miue.core.errors import UserError
from miue.data.source import Source


def align(clean: Source, protected: Source) -> Int64[Tensor, "n"]:
    """For each usable clean row, the row of the protected source made from it; -1 if it was not published.

    Raises UserError if classes or labels differ, or if a protected picture has no clean original.
    """
    if clean.classes != protected.classes:
        raise UserError(
            f"{protected.location}: its classes ({', '.join(protected.classes)}) are not those of {clean.location} "
            f"({', '.join(clean.classes)}); give the protected set that was made from it"
        )
    rows = {_key(entry.path): row for row, entry in enumerate(protected.usable)}
    matches = [rows.pop(_key(entry.out), -1) for entry in clean.usable]
    if rows:
        raise UserError(
            f"{protected.location}: what was not made from a picture of {clean.location}: {len(rows)}, as "
            f"{next(iter(rows))!r}; give the clean set that belongs to it, and move away what is not of miue"
        )
    for entry, row in zip(clean.usable, matches, strict=True):
        if row >= 0 and protected.usable[row].label != entry.label:
            raise UserError(
                f"{protected.location}: {protected.usable[row].path} has another class than {entry.path} of "
                f"{clean.location}; give the clean set that belongs to it"
            )
    return torch.tensor(matches, dtype=torch.int64)


def _key(path: str) -> str:
    """A path without its extension, which depends on the output format; "row 17" is unchanged."""
    return str(PurePosixPath(path).with_suffix("")) if path.endswith((".png", ".webp")) else path
