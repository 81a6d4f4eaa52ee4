"""The record of a protection."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from miue import data
from miue.attacks.success import Success
from miue.core.errors import UserError
from miue.core.files import Record, digest
from miue.core.spelling import as_words
from miue.core.types import Budget
from miue.data.rights import Rights
from miue.evaluation.profile import Profile
from miue.publish import Written

DATED = "%Y%m%d-%H%M%S"
"""Form of a time, local, in names of records and in records."""


class Mark(Record):
    """Settings of a trace."""

    strength: int
    """Grey levels of the budget that the mark takes."""
    keys: int = 1
    cells: int = 4
    alone: bool = False
    """True if there is no attack."""
    beacon: str = ""
    """Value of the public number that the marks depend on, hexadecimal; empty if there is none."""


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
    rights: Rights = Rights()
    """The reservation in every file; no part of the noise."""
    trace: Mark | None = None

    @property
    def alone(self) -> bool:
        """True if there is a trace and no attack."""
        return self.trace is not None and self.trace.alone

    @property
    def rest(self) -> Budget:
        """The budget that a trace leaves to the attack; the whole one if there is no trace."""
        return self.limit if self.trace is None or self.alone else Budget(self.limit.eps - self.trace.strength)

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

    @classmethod
    def of(cls, source: data.Source, rules: Mapping[str, Any]) -> Looked:
        """The facts about a source that was scanned by these rules."""
        return cls(
            location=located(source.location),
            kind=source.kind,
            digest=source.digest,
            classes=list(source.classes),
            counts=source.summary(),
            examples=source.examples(),
            rules=rules,
            notes=list(source.notes),
        )


class Added(Record):
    """The record of pictures that were added to an output."""

    fingerprint: str
    status: Literal["running", "finished"]
    miue: str
    source: Looked
    digest: str = ""
    """Digest of all clean pictures of the output, with these; empty until they are in it."""
    protected: int
    """Number of pictures that are added."""
    split: str | None = None
    """The part of the source that was asked for."""
    finished: str = ""
    """When all of them were in the output, as in the record of a run; empty until then, and in earlier versions."""
    machine: dict[str, str]
    seconds: Mapping[str, float] = Field(default_factory=dict)

    @property
    def origin(self) -> tuple[str, str | None]:
        """Location and split by which the source is opened again; the location of a folder is that of its split."""
        return self.source.location, self.split if self.source.kind == "named" else None

    def command(self, out: Path) -> str:
        """The command that finishes it."""
        location, split = self.origin
        return shlex.join(["miue", "add", str(out), location, *as_words({"split": split})])


class RunRecord(Record):
    """The record of a protection: data, settings and results; everything that is needed to repeat it."""

    version: Literal[1] = 1
    fingerprint: str
    noise: str = ""
    """Digest of all that decides the noise, and the name of its file; empty: that is the fingerprint."""
    status: Literal["running", "finished"]
    miue: str
    settings: Settings
    source: Looked
    machine: dict[str, str]
    finished: str = ""
    """When its files were first complete, local time as in the names of dated records; empty in earlier versions."""
    seconds: Mapping[str, float] = Field(default_factory=dict)
    commitment: str = ""
    """To the secret of the trace, hexadecimal; empty if there is no trace."""
    named: str = ""
    """The public number that the marks depend on, as named with the commitment; empty if there is none."""
    profile: Profile | None = None
    """The noise in figures, on the canvas; None until the attack is finished, and in records of earlier versions."""
    success: Success | None = None
    """The reach of the attack on its own surrogate; None without one, and in records of earlier versions."""
    written: Written | None = None
    """Of all pictures, also those that were added; None until the protection is finished."""
    added: Sequence[Added] = ()
    """Pictures that came later, in order."""

    @classmethod
    def of(cls, out: Path) -> RunRecord:
        """Return the record beside an output. Raises UserError if there is none."""
        path = data.private_of(out) / "run.json"
        if not path.exists():
            raise UserError(f"{out}: no {path.parent.name}/run.json beside it; only an output of miue has one")
        return cls.load(path, "bring it back from a copy, or protect again to another output folder")

    @property
    def perturbation(self) -> str:
        """Digest of all that decides the noise: the fingerprint without the rights."""
        return self.noise or self.fingerprint

    @property
    def digest(self) -> str:
        """Digest of the clean pictures of the output, with those that were added."""
        done = [part.digest for part in self.added if part.status == "finished"]
        return done[-1] if done else self.source.digest

    def check_protected(self, out: Path) -> None:
        """Raise UserError if the protection did not end."""
        if self.status != "finished":
            raise UserError(f"{out}: its protection was interrupted; finish it with the same protect command")

    def check_finished(self, out: Path) -> None:
        """Raise UserError if a command that wrote the output did not end, be it the protection or an addition."""
        self.check_protected(out)
        if running := [part for part in self.added if part.status != "finished"]:
            where = running[0].source.location
            raise UserError(f"{out}: adding {where} was interrupted; finish it first: {running[0].command(out)}")

    @property
    def unprotected(self) -> int:
        """Number of inputs that are not in the output."""
        return (
            sum(count for status, count in self.written.counts.items() if status != "protected") if self.written else 0
        )


def located(source: str) -> str:
    """The absolute path of a source; the name of a set as it is."""
    path = Path(source)
    return data.readable(str(path.resolve()) if path.exists() else source)


def fingerprint_with(noise: str, rights: Rights) -> str:
    """The fingerprint of an output from the digest of its noise and what is embedded in its files."""
    return noise if rights.value == "none" else digest(noise, *rights.embedded)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds of the block to those of a step."""
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
