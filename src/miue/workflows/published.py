"""Outputs and their clean source, read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from miue import data, publish
from miue.core.errors import UserError
from miue.core.progress import Say
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.data.split import read_test
from miue.workflows.record import RunRecord


@dataclass(frozen=True, kw_only=True)
class Question:
    """What both ask about: the clean source of outputs, and a clean test set (None: part of the source is held out)."""

    clean: str
    test: str | None = None
    split: str | None = None
    test_split: str | None = None
    canvas: int | None = None

    def __post_init__(self) -> None:
        data.check_canvas(self.canvas)


@dataclass(frozen=True, kw_only=True)
class Claim(Question):
    """What is to be proved: an output, its clean source and a clean test set (None: part of the source is held out).

    channel: what happens to all training pictures on their way to a trainer ("jpeg:75", "resize:24").
    """

    out: Path
    channel: str | None = None


@dataclass(frozen=True, kw_only=True)
class Inquiry(Question):
    """What is to be explained: outputs made from one clean source, and a clean test set (None: part is held out)."""

    outs: Sequence[Path]

    def named(self) -> dict[str, Path]:
        """The outputs by the names of their folders. UserError where two have the same, or one is given twice."""
        names = [data.readable(out.resolve().name) for out in self.outs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"two outputs are called {twice[0]!r}: give each once, in folders of different names")
        return dict(zip(names, self.outs, strict=True))


@dataclass(frozen=True)
class Sets:
    """The pictures that the clean source and all outputs have. Rows of all sets correspond."""

    clean: ImageSet
    protected: Mapping[str, ImageSet]
    records: Mapping[str, RunRecord]
    resized: bool
    """Whether some pictures were published at another size than that of the sets."""

    @property
    def budgets(self) -> dict[str, Budget]:
        return {name: Budget.parse(record.settings["budget"]) for name, record in self.records.items()}


def read_back(asked: Question, outs: Mapping[str, Path], say: Say) -> Sets:
    """Read the clean source and what was published, under one size.

    UserError where an output is not finished, or was not made from these pictures.
    """
    records = {name: RunRecord.of(out) for name, out in outs.items()}
    for out, record in zip(outs.values(), records.values(), strict=True):
        if record.status != "finished":
            raise UserError(f"{out}: its protection was interrupted; finish it with the same protect command")
    source = next(iter(records.values())).originals(asked.clean, asked.split)
    found = {name: _published(out, records[name], asked.clean, source) for name, out in outs.items()}
    used = torch.stack([rows >= 0 for _, rows in found.values()]).all(0)
    if not used.any():
        raise UserError("no clean picture is in all outputs; analyse them one by one")
    if missing := int((~used).sum()):
        where = "every output" if len(outs) > 1 else next(iter(outs.values()))
        say(f"{missing} clean pictures are not in {where}; no victim trains on them")
    canvas = asked.canvas or max(int(record.settings["canvas"]) for record in records.values())
    grey = all(entry.grey for part in (source, *(p for p, _ in found.values())) for entry in part.usable)
    clean = data.read(source, canvas, grey=grey).select(used)
    protected = {
        name: data.read(published, canvas, grey=grey).select(rows[used], name=name)
        for name, (published, rows) in found.items()
    }
    sizes = {(entry.width, entry.height) for published, _ in found.values() for entry in published.usable}
    return Sets(clean, protected, records, resized=sizes != {(canvas, canvas)})


def cells_of(record: RunRecord, protected: ImageSet) -> int:
    """The grid of an attack for noise on pictures of the size of a set: 0 where it is as fine as their pixels."""
    cells = int(record.settings.get("cells", 0)) or int(record.settings["canvas"])
    return cells if cells < protected.shape[1] else 0


def _published(out: Path, record: RunRecord, clean: str, source: data.Source) -> tuple[data.Source, Int64[Tensor, "n"]]:
    """What was published, and which of its rows was made from which clean one (-1: none)."""
    published = data.scan_output(out)
    if source.digest != record.source["digest"]:
        raise UserError(f"{clean}: these are not the pictures that {out} was made from, or some have changed")
    rows = publish.align(source, published)
    if not bool((rows >= 0).any()):
        raise UserError(f"{out}: none of its pictures comes from {clean}")
    return published, rows


def tested(asked: Question, sets: Sets, run: Run, say: Say) -> tuple[Sets, ImageSet]:
    """What victims train on, and what they are tested on."""
    rules = next(iter(sets.records.values())).rules
    test, kept = read_test(sets.clean, asked.clean, asked.test, asked.test_split, run, say, rules)
    if kept is None:
        return sets, test
    say(
        f"no --test: {len(test)} of {len(sets.clean)} clean pictures are held out, no victim trains on them in any form"
    )
    protected = {name: part.select(kept) for name, part in sets.protected.items()}
    return replace(sets, clean=sets.clean.select(kept), protected=protected), test
