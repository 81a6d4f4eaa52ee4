"""The record of a protection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from miue import data
from miue.core.errors import UserError
from miue.core.files import Record
from miue.core.types import Budget
from miue.publish import Written


class Settings(Record):
    """Settings of a protection, with everything resolved."""

    attack: str
    """Spelling: the name, and every field that differs from its default."""
    code: str = ""
    """Digest of the code of an attack or surrogate from a user's file; mostly empty."""
    budget: str
    canvas: int
    """Side of the pictures that the attack saw."""
    seed: int
    split: str | None = None
    format: Literal["png", "webp"] = "png"
    processes: int = 1
    cells: int = 0
    """Side of the noise grid; 0: as fine as the canvas."""

    @property
    def limit(self) -> Budget:
        """The budget, parsed."""
        return Budget.parse(self.budget)


class Looked(Record):
    """Facts about the source, as scanned before anything was computed."""

    location: str
    kind: str
    digest: str
    classes: Sequence[str]
    counts: Mapping[str, int]
    """Inputs by status and reason."""
    examples: Mapping[str, Sequence[str]]
    """The first paths for every reason."""
    rules: Mapping[str, Any]
    """Rules of the scan, as arguments of `data.scan`."""
    notes: Sequence[str]


class RunRecord(Record):
    """The record of a protection: data, settings and results; everything that is needed to repeat it."""

    version: Literal[1] = 1
    fingerprint: str
    status: Literal["running", "finished"]
    miue: str
    settings: Settings
    source: Looked
    machine: dict[str, str]
    seconds: Mapping[str, float] = Field(default_factory=dict)
    written: Written | None = None
    """None until the protection is finished."""

    @classmethod
    def of(cls, out: Path) -> RunRecord:
        """Return the record beside an output. Raises UserError if there is none."""
        path = data.private_of(out) / "run.json"
        if not path.exists():
            raise UserError(f"{out}: no {path.parent.name}/run.json beside it; only an output of miue has one")
        return cls.load(path, "bring it back from a copy, or protect again to another output folder")

    @property
    def unprotected(self) -> int:
        """Number of inputs that are not in the output."""
        return (
            sum(count for status, count in self.written.counts.items() if status != "protected") if self.written else 0
        )

    def originals(self, clean: str, split: str | None) -> data.Source:
        """Scan the clean pictures by the same rules."""
        return data.scan(clean, split=split, **self.source.rules)
