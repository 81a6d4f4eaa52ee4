"""New pictures for an output, compared with what it has, before they are protected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from miue import data, publish
from miue.attacks import attack, code_of
from miue.core.errors import UserError
from miue.core.files import digest
from miue.core.method import Kept, check_more
from miue.core.run import Run
from miue.core.types import ImageSet, Perturbation
from miue.data.source import FILES
from miue.trace import Nothing, Secret, rows_of
from miue.trace.marks import mark_of
from miue.workflows import marking, room
from miue.workflows.job import MOST, VERSION, kept_at, perturbation_of
from miue.workflows.record import RunRecord, Settings
from miue.workflows.standing import Place


@dataclass(frozen=True, kw_only=True)
class Addition:
    """New pictures for an output, compared with what it has."""

    out: Path
    record: RunRecord
    method: Any
    new: data.New
    split: str | None
    part: int
    """Number of this part of the output, from 1."""
    fingerprint: str
    earlier: tuple[publish.Line, ...]
    """Lines of the manifest that come before this part."""

    @property
    def again(self) -> bool:
        """True if the same pictures were added before, to the end."""
        before = self.record.added[self.part - 1 :][:1]
        return any(part.fingerprint == self.fingerprint and part.status == "finished" for part in before)

    @property
    def private(self) -> Path:
        return data.private_of(self.out)

    @property
    def perturbation(self) -> Path:
        return perturbation_of(self.private, self.fingerprint)

    @property
    def protected(self) -> list[publish.Line]:
        """Lines of the pictures that are protected by now."""
        return [line for line in self.earlier if line.status == "protected"]

    @property
    def work(self) -> Path:
        """Folder of the state that is kept until the pictures are added."""
        return work_of(self.private, self.fingerprint)

    @property
    def notes(self) -> list[str]:
        """Remarks on the new pictures."""
        new, notes = self.new, list(self.new.source.notes)
        if new.known:
            known = data.some(new.known, 3)
            notes.append(f"{len(new.known)} pictures are in the output already, and left out ({known})")
        if new.twins:
            notes.append(
                f"names that the output has for other pictures: {data.some(new.twins, MOST)}; where one is a new "
                "version of the same picture, the earlier version stays published"
            )
        return notes

    @property
    def counts(self) -> dict[str, int]:
        """Number of given inputs by status and reason, as in the record of a source."""
        known = len(self.new.known)
        return {**self.new.source.summary(), **({f"skipped: {data.IN_ALREADY}": known} if known else {})}

    def disk(self) -> room.Parts:
        """Bytes that the run still needs on disk, by folder and part."""
        source, settings = self.new.source, self.record.settings.model_copy(update={"processes": 1})
        return room.needed(source, self.method, settings, self.out, self.private, self.perturbation, False, self.work)

    def read(self) -> ImageSet:
        """The new pictures, on the canvas of the first ones."""
        grey, canvas = self.first.delta.shape[1] == 1, self.record.settings.canvas
        return data.read(self.new.source, canvas, grey=grey, cache=self.private / "canvas")

    @cached_property
    def secret(self) -> Secret | None:
        """The secret of the trace; None if there is none. Raises UserError if it is not there, or is another one."""
        if not self.record.settings.trace:
            return None
        if not (path := marking.secret_file(self.private)).exists():
            raise UserError(f"{path}: is not there, and new pictures need the mark of the others; bring it back")
        return Place(self.private, self.record.commitment).secret

    @property
    def first(self) -> Perturbation:
        """The perturbation of the first pictures. Raises UserError if it is not there."""
        _ = self.secret  # a missing one is told as such
        return Perturbation.load(kept_at(self.private, self.record))

    def kept(self, run: Run) -> Kept:
        """The state that the protection of the first pictures left. Raises UserError if it does not belong to them."""
        settings, perturbation = self.record.settings, self.first
        index = {name: i for i, name in enumerate(self.record.source.classes)}
        lines = [line for line in self.protected if not line.part]
        if len(lines) != len(perturbation):
            raise UserError(
                f"{self.private}: the manifest has {len(lines)} protected pictures, the perturbation "
                f"{len(perturbation)}; run the protect command that made it once more"
            )
        keeping = replace(run, seed=settings.seed, keep=self.private / "checkpoint")
        identity = {"plan": repr(self.method), "seed": settings.seed, "budget": repr(settings.rest)}
        labels = torch.tensor([index[line.class_name] for line in lines])
        return Kept(
            perturbation=self._noise(perturbation, labels, [line.sha256 for line in lines]),
            labels=labels,
            count=len(self.protected),
            state=partial(_state, keeping, {**identity, "data": perturbation.data}),
            published=partial(self._published, [line.out for line in lines], perturbation.delta.shape[1] == 1),
        )

    def _noise(self, first: Perturbation, labels: Int[Tensor, "m"], digests: list[str]) -> Perturbation:
        """The perturbation of the first pictures without their marks, as the attack made it."""
        if not self.secret:
            return first
        mark, budget = mark_of(self.secret, *first.delta.shape[-2:]), self.record.settings.rest
        if first.labels is not None:
            return replace(first, delta=(first.delta - mark).to(first.delta.dtype), budget=budget)
        delta = (first.delta - mark[rows_of(self.secret, labels, digests)]).to(first.delta.dtype)
        if getattr(self.method, "per", "image") == "image":
            return replace(first, delta=delta, budget=budget)
        table = torch.zeros(len(self.record.source.classes), *delta.shape[1:], dtype=delta.dtype)
        table[labels] = delta  # all pictures of a class have the same
        return replace(first, delta=table, budget=budget, labels=labels)

    def _published(self, outs: list[str], grey: bool, rows: Int[Tensor, "k"]) -> UInt8[Tensor, "k c h w"]:
        """Published pictures by the numbers of their rows. Raises UserError if one is not there."""
        source = data.scan_some(self.out, [outs[row] for row in rows.tolist()])
        return data.read(source, self.record.settings.canvas, grey=grey).images


def work_of(private: Path, fingerprint: str) -> Path:
    """Folder of the state of an addition by its fingerprint."""
    return private / f"added-{fingerprint}"


def _state(run: Run, identity: dict[str, Any], name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not identity["data"] or (state := run.load(name, **identity)) is None:
        raise UserError(
            f"{run.keep}: {name}.safetensors of this protection is not there (deleted, or made by an older version of "
            "miue), and new pictures need it; protect all pictures again, to another output"
        )
    return state


def examined(out: Path, new: str, split: str | None = None, download: bool = False) -> Addition:
    """Return the new pictures of a source, and where they go. Changes nothing. Raises UserError."""
    record = RunRecord.of(out)
    record.check_protected(out)
    _refuse_tables(str(out), record.source.kind)
    method, classes = _method(out, record.settings), tuple(record.source.classes)
    rules = {key: value for key, value in record.source.rules.items() if key != "drop_columns"}
    given = data.scan(new, split=split, download=download, part=True, canvas=0, **rules)
    _refuse_tables(given.location, given.kind)
    private = data.private_of(out)
    publish.check_output(given.location, out, private, False, record.fingerprint)
    lines, damaged = publish.read_lines(private / publish.MANIFEST)
    if damaged or not any(line.part == 0 for line in lines):
        raise UserError(f"{private / publish.MANIFEST}: is missing or damaged; run the protect command once more")

    def compared(part: int) -> Addition:
        earlier = tuple(line for line in lines if line.part < part)
        fresh = data.new_of(given, [_earlier(line) for line in earlier], classes)
        names = [(entry.path, entry.out) for entry in fresh.source.usable]
        fingerprint = digest(VERSION, "add", record.perturbation, part, fresh.source.digest, names)
        return Addition(out=out, record=record, method=method, new=fresh, split=split, part=part,
                        fingerprint=fingerprint, earlier=earlier)  # fmt: skip

    for part in range(len(record.added), 0, -1):  # the same call again?
        addition = compared(part)
        if addition.fingerprint == record.added[part - 1].fingerprint:
            return _checked(addition)
    if record.added and record.added[-1].status == "running":
        plan, part = publish.Plan.of(private), record.added[-1]
        if plan and plan.begun(out, [line for line in lines if line.part < len(record.added)]):
            raise UserError(
                f"{out}: adding {part.source.location} was interrupted; finish it first, with the same pictures in it: "
                f"{part.command(out)}"
            )
        return _checked(compared(len(record.added)))  # none of its files was written: these pictures replace it
    return _checked(compared(len(record.added) + 1))


def _method(out: Path, settings: Settings) -> Any:
    """The attack of an output. Raises UserError if its file has changed, or if it makes nothing for later pictures."""
    if settings.alone:
        return Nothing()
    method = attack(settings.attack)
    if code_of(settings.attack, method) != settings.code:
        raise UserError(
            f"{settings.attack}: its file has changed since {out} was made; bring that version back, or protect all "
            "pictures again"
        )
    check_more(method)
    return method


def _refuse_tables(name: str, kind: str) -> None:
    if kind not in FILES:
        raise UserError(
            f"{name}: is a table ({kind}), whose files have a fixed number of rows; only folders can be added to, from "
            "folders: protect all rows again, to another output"
        )


def _earlier(line: publish.Line) -> data.Earlier:
    facts = (line.path, line.out, line.class_name, line.reason, line.bytes, line.sha256, line.pixels)
    return data.Earlier(*facts, published=line.out_pixels)


def _checked(addition: Addition) -> Addition:
    """The addition itself. Raises UserError if its pictures cannot be written."""
    source, settings = addition.new.source, addition.record.settings
    if source.usable:
        publish.check_sizes(source, settings.limit, (settings.canvas, settings.canvas), settings.format)
        publish.check_folders(source, addition.out)
        if addition.first.delta.shape[1] == 1 and (coloured := [e.path for e in source.usable if not e.grey]):
            raise UserError(
                f"{source.location}: {coloured[0]} has colour, and all first pictures of {addition.out} are grey, so "
                "nothing kept knows colours; convert it to grey, or protect all pictures again"
            )
        room.check(addition.disk())
    return addition
