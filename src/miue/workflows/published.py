"""Outputs and their clean source, read back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from miue import data, publish
from miue.core.errors import UserError
from miue.core.files import Record, write_atomically
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.data.split import read_test
from miue.workflows.originals import originals
from miue.workflows.record import DATED, RunRecord, located


@dataclass(frozen=True)
class Inputs:
    """Places of the clean pictures: source of the outputs, and test set (None: a part of the source is held out)."""

    clean: str
    test: str | None
    split: str | None
    test_split: str | None
    canvas: int | None

    @classmethod
    def of(
        cls,
        clean: str | Path,
        test: str | Path | None,
        split: str | None,
        test_split: str | None,
        canvas: int | None,
    ) -> Inputs:
        """Return inputs with all paths as text. Raises UserError if the canvas is not allowed."""
        data.check_canvas(canvas)
        return cls(str(clean), None if test is None else str(test), split, test_split, canvas)

    @property
    def given(self) -> dict[str, str | int]:
        """The inputs that were given, for a record: absolute paths, and names as they are."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        places = {name: located(given[name]) for name in ("clean", "test") if name in given}
        return {name: data.readable(v) if isinstance(v, str) else v for name, v in (given | places).items()}


@dataclass(frozen=True)
class Sets:
    """The pictures that the clean source and all outputs have in common. Rows of all sets correspond."""

    clean: ImageSet
    protected: Mapping[str, ImageSet]
    records: Mapping[str, RunRecord]
    resized: bool
    """True if some published pictures have another size than the sets."""

    @property
    def budgets(self) -> dict[str, Budget]:
        return {name: record.settings.limit for name, record in self.records.items()}


def read_back(inputs: Inputs, outs: Mapping[str, Path], run: Run) -> Sets:
    """Read the clean source and the published pictures, at one size.

    Raises UserError if an output is not finished, or was not made from these pictures.
    """
    records = {name: RunRecord.of(out) for name, out in outs.items()}
    for out, record in zip(outs.values(), records.values(), strict=True):
        record.check_finished(out)
    canvas = inputs.canvas or max(record.settings.canvas for record in records.values())
    source = originals(next(iter(outs.values())), inputs.clean, inputs.split, canvas)
    aligned = {name: _published(out, records[name], inputs.clean, source, canvas) for name, out in outs.items()}
    used = torch.stack([rows >= 0 for _, rows in aligned.values()]).all(0)
    if not used.any():
        raise UserError("no clean picture is in all outputs; analyse them one by one")
    if missing := int((~used).sum()):
        where = "every output" if len(outs) > 1 else next(iter(outs.values()))
        run.say(f"{missing} clean pictures are not in {where}; no victim trains on them")
    grey = all(entry.grey for part in (source, *(p for p, _ in aligned.values())) for entry in part.usable)
    clean = data.read(source, canvas, grey=grey).select(used)
    protected = {
        name: data.read(published, canvas, grey=grey).select(rows[used], name=name)
        for name, (published, rows) in aligned.items()
    }
    sizes = {(entry.width, entry.height) for published, _ in aligned.values() for entry in published.usable}
    return Sets(clean, protected, records, resized=sizes != {(canvas, canvas)})


def cells_of(record: RunRecord, protected: ImageSet) -> int:
    """Side of an attack's noise grid for a noise control on this set; 0 if the grid is as fine as the pixels."""
    cells = record.settings.cells or record.settings.canvas
    return cells if cells < protected.shape[1] else 0


def _published(
    out: Path, record: RunRecord, clean: str, source: data.Source, canvas: int
) -> tuple[data.Source, Int64[Tensor, "n"]]:
    """Return the published pictures, and for every clean row the published row made from it (-1: none)."""
    published = data.scan_output(out, canvas)
    if source.digest != record.digest:
        raise UserError(f"{clean}: these are not the pictures that {out} was made from, or some have changed")
    rows = publish.align(source, published)
    if not bool((rows >= 0).any()):
        raise UserError(f"{out}: none of its pictures comes from {clean}")
    return published, rows


def tested(inputs: Inputs, sets: Sets, run: Run) -> tuple[Sets, ImageSet]:
    """Return the training sets of victims, and their test set."""
    rules = next(iter(sets.records.values())).source.rules
    test, rows = read_test(sets.clean, inputs.clean, inputs.test, inputs.test_split, run, rules)
    if rows is None:
        return sets, test
    run.say(
        f"no --test: {len(test)} of {len(sets.clean)} clean pictures are held out, no victim trains on them in any form"
    )
    protected = {name: part.select(rows) for name, part in sets.protected.items()}
    return replace(sets, clean=sets.clean.select(rows), protected=protected), test


def write_dated(folder: Path, record: Record) -> None:
    """Write a record to a file that is named by time and digest."""
    text = record.model_dump_json(indent=1).encode()
    write_atomically(folder / f"{time.strftime(DATED)}-{hashlib.sha256(text).hexdigest()[:8]}.json", text)
