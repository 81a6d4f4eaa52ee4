"""The record of a protection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from miue import data
from miue.core.errors import UserError
from miue.core.files import Record, read_record


class RunRecord(Record):
    """What was done to which data with which settings: everything needed to repeat it."""

    version: Literal[1] = 1
    fingerprint: str
    status: Literal["running", "finished"]
    miue: str
    settings: dict[str, Any]
    source: dict[str, Any]
    machine: dict[str, str]
    seconds: Mapping[str, float] = Field(default_factory=dict)
    written: Mapping[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, out: Path) -> RunRecord:
        """The record beside an output. Raises UserError where there is none."""
        path = data.private_of(out) / "run.json"
        if not path.exists():
            raise UserError(f"{out}: no {path.parent.name}/run.json beside it; only an output of miue has one")
        return read_record(cls, path, "bring it back from a copy, or protect again to another output folder")

    @property
    def rules(self) -> dict[str, Any]:
        """By which the run that made the output looked at pictures."""
        return self.source.get("rules", {})

    def originals(self, clean: str, split: str | None) -> data.Source:
        """Look at the clean pictures by the same rules."""
        return data.scan(clean, split=split, **self.rules)
