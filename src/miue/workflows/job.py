"""A protection before it is carried out: its settings, checked against the pictures, and where its files lie."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shlex import join, quote
from typing import Any, Literal

from miue import data, nets, publish
from miue.attacks import attack as parsed
from miue.attacks import code_of
from miue.core.errors import UserError
from miue.core.files import digest
from miue.core.method import Attack, check_norm, own_budget
from miue.core.run import Run
from miue.core.spelling import as_words, spell
from miue.core.types import Budget
from miue.data.rights import Rights
from miue.evaluation.records import ALONE
from miue.trace import Nothing, Secret, Tracing
from miue.workflows import marking, room
from miue.workflows.record import Mark, RunRecord, Settings, fingerprint_with

VERSION = 1  # of the meaning of a fingerprint; a higher number makes earlier outputs those of other jobs
NONE = Rights()
MOST = 20  # largest number of names that a message lists


@dataclass(frozen=True, kw_only=True)
class Job:
    """Settings of one protection. budget None: the method's own. canvas None: chosen from the pictures."""

    source: str
    out: Path
    method: str = "em:lasting"
    budget: str | None = None
    canvas: int | None = None
    seed: int = 0
    split: str | None = None
    format: Literal["png", "webp"] = "png"
    processes: int = 1
    overwrite: bool = False
    download: bool = False
    max_pixels: int = 50_000_000
    frames: Literal["refuse", "first"] = "refuse"
    drop_columns: tuple[str, ...] = ()
    rights: Rights = NONE
    trace: Tracing | None = None

    def __post_init__(self) -> None:
        data.check_canvas(self.canvas)
        check_format(self.format)
        if self.processes < 1:
            raise UserError(f"{self.processes} processes: at least 1")

    @property
    def private(self) -> Path:
        """Folder of what must not be published."""
        return data.private_of(self.out)

    @property
    def rules(self) -> dict[str, Any]:
        """Rules for scanning pictures, as arguments of `data.scan`."""
        return {"max_pixels": self.max_pixels, "frames": self.frames, "drop_columns": list(self.drop_columns)}

    @cached_property
    def attack(self) -> Attack:
        """The method, parsed. Raises a UserError that names the allowed ones."""
        return Nothing() if self.trace and self.trace.alone else parsed(self.method)

    def scan(self) -> data.Source:
        """The pictures, looked at."""
        return data.scan(self.source, split=self.split, download=self.download, canvas=self.canvas, **self.rules)

    def keeping(self, run: Run) -> Run:
        """The run of the attack, which keeps its state."""
        return replace(run, seed=self.seed, keep=self.private / "checkpoint")

    def shared_by(self, world: int) -> Job:
        """The job of so many processes that are there already. Raises UserError if another number is asked for."""
        if self.processes not in (1, world) and world > 1:
            raise UserError(f"--processes {self.processes}, but {world} processes were started; leave it out")
        return replace(self, processes=world) if world > 1 else self

    def settings(self, source: data.Source) -> Settings:
        """Return the resolved settings. Raises UserError if the method or the pictures cannot keep the budget."""
        method, canvas = self.attack, self.canvas or data.default_canvas(source)
        shape = source.channels, canvas, canvas
        own = own_budget(method, shape)
        if isinstance(surrogate := getattr(method, "surrogate", None), str):
            nets.tried(surrogate, shape, len(source.classes))
        if self.trace and self.trace.alone:
            own = Budget(self.trace.levels(own))
        budget = own if self.budget is None else Budget.parse(self.budget)
        check_norm(method, budget)
        mark = self._mark(budget, source.channels)
        publish.check_sizes(source, budget, (canvas, canvas), self.format)
        return Settings(
            attack=ALONE if mark and mark.alone else spell(method),
            code=code_of(self.method, method),
            budget=str(budget),
            canvas=canvas,
            seed=self.seed,
            split=None if self.split is None else data.readable(self.split),
            format=self.format,
            processes=self.processes,
            cells=getattr(method, "cells", 0),
            rights=self.rights,
            trace=mark,
        )

    def _mark(self, budget: Budget, channels: int) -> Mark | None:
        """The settings of the trace. Raises UserError if pictures or attack cannot carry it."""
        if not (tracing := self.trace):
            return None
        tracing.check(budget, channels)
        if not (tracing.alone or tracing.unmeasured):
            marking.check_offered(self.attack, self.method)
        public = tracing.parameters((), 0, budget)
        beacon = "" if tracing.named else tracing.beacon.lower()
        return Mark(strength=public.strength, keys=tracing.keys, cells=public.cells, alone=tracing.alone, beacon=beacon)

    def checked(self, source: data.Source) -> tuple[Settings, str]:
        """Return the settings and a fingerprint of settings and data. Raises UserError if nothing can be written."""
        settings = self.settings(source)
        noise = self.noise(source, settings)
        fingerprint = fingerprint_with(noise, settings.rights)
        if not self.overwrite:
            self._check_rights(noise)
        publish.check_output(source.location, self.out, self.private, self.overwrite, fingerprint)
        publish.check_folders(source, self.out)
        publish.server_folder(self.out, settings.rights)
        room.check(self.disk(source, settings))
        return settings, fingerprint

    def _check_rights(self, noise: str) -> None:
        """Raise UserError if the output has other rights, and nothing else differs. noise: digest of the rest."""
        try:
            record = RunRecord.load(self.private / "run.json")
        except UserError:  # none yet, or of another version
            return
        own, given = record.settings.rights, self.rights.options
        if record.perturbation == noise and own.embedded != self.rights.embedded:
            now, other = join(as_words(own.options)) or "no --rights", join(as_words(given)) or "--rights none"
            raise UserError(
                f"{self.out}: only the rights differ from those that its files have; to finish or mend the files, give "
                f"the same: {now}; to change them: miue rights write {quote(str(self.out))} {other}"
            )

    def noise(self, source: data.Source, settings: Settings) -> str:
        """Digest of all that decides the noise: settings and data, without the rights."""
        names = [entry.out for entry in source.usable]
        facts = {name: value for name, value in settings if name != "rights" and (name != "trace" or value)}
        return digest(VERSION, source.digest, names, sorted(facts.items()), *sorted(self.drop_columns))

    def secret(self, source: data.Source, settings: Settings) -> Secret | None:
        """The secret of the trace: read, or drawn and not yet saved. None if there is no trace."""
        if not self.trace or not settings.trace:
            return None
        early = settings.model_copy(update={"trace": settings.trace.model_copy(update={"beacon": ""})})
        parameters = self.trace.parameters(source.classes, settings.canvas, settings.limit)
        return marking.secret_of(self.trace, parameters, self.private, self.noise(source, early), self.overwrite)

    def perturbation(self, noise: str) -> Path:
        """Path of the finished perturbation. noise: its digest."""
        return perturbation_of(self.private, marking.fingerprint_of(noise, self.private) if self.trace else noise)

    def disk(self, source: data.Source, settings: Settings) -> room.Parts:
        """Bytes that the run still needs on disk, by folder and part."""
        path = self.perturbation(self.noise(source, settings))
        return room.needed(source, self.attack, settings, self.out, self.private, path, self.overwrite)


def perturbation_of(private: Path, noise: str) -> Path:
    """Path of the finished perturbation of these settings and data."""
    return private / f"perturbation-{noise}.safetensors"


def kept_at(private: Path, record: RunRecord) -> Path:
    """Path of the perturbation of a recorded protection."""
    noise = record.perturbation
    return perturbation_of(private, marking.fingerprint_of(noise, private) if record.commitment else noise)


def class_sizes(source: data.Source) -> dict[str, int]:
    """Number of pictures of every class that are protected."""
    counts = Counter(entry.label for entry in source.usable)
    return {name: counts[i] for i, name in enumerate(source.classes)}


def check_format(form: str) -> None:
    """Raise UserError unless files of this format keep the perturbation."""
    if form not in ("png", "webp"):
        raise UserError(f"format {form!r} is not lossless here; allowed: png, webp")
