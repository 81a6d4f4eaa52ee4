"""The workflow `protect`: from a source to a protected set with its record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal

from miue import data, nets, publish
from miue.attacks import attack as parsed
from miue.attacks import code_of
from miue.core.errors import UserError
from miue.core.files import digest, installed, write_atomically
from miue.core.launch import first, joined, launch, same, together
from miue.core.method import Attack, check_norm, own_budget
from miue.core.run import Run
from miue.core.spelling import spell
from miue.core.types import Budget, ImageSet, Perturbation
from miue.data.rights import Rights
from miue.trace import Nothing, Secret, Tracing, rows_of, traced
from miue.workflows import marking, room
from miue.workflows.exclusive import exclusive
from miue.workflows.noise import described
from miue.workflows.record import DATED, Looked, Mark, RunRecord, Settings, fingerprint_with, timed

VERSION = 1
NONE = Rights()
MOST = 20  # largest number of classes listed by name
OTHERWISE = "wait for it or choose another output"


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
        if self.processes < 1:
            raise UserError(f"{self.processes} processes: at least 1")

    def keeping(self, run: Run) -> Run:
        """The run of the attack, which keeps its state."""
        return replace(run, seed=self.seed, keep=self.private / "checkpoint")

    def scan(self) -> data.Source:
        return data.scan(self.source, split=self.split, download=self.download, canvas=self.canvas, **self.rules)

    @cached_property
    def attack(self) -> Attack:
        """The method, parsed. Raises a UserError that names the allowed ones."""
        return Nothing() if self.trace and self.trace.alone else parsed(self.method)

    def shared_by(self, world: int) -> Job:
        """The job of so many processes that are there already. Raises UserError if another number is asked for."""
        if self.processes not in (1, world) and world > 1:
            raise UserError(f"--processes {self.processes}, but {world} processes were started; leave it out")
        return replace(self, processes=world) if world > 1 else self

    @property
    def rules(self) -> dict[str, Any]:
        """Rules for scanning pictures, as arguments of `data.scan`."""
        return {"max_pixels": self.max_pixels, "frames": self.frames, "drop_columns": list(self.drop_columns)}

    @property
    def private(self) -> Path:
        return data.private_of(self.out)

    def settings(self, source: data.Source) -> Settings:
        """Return the resolved settings. Raises UserError if the method or the pictures cannot keep the budget."""
        method, canvas = self.attack, self.canvas or data.default_canvas(source)
        channels = 1 if all(entry.grey for entry in source.usable) else 3
        own = own_budget(method, (channels, canvas, canvas))
        if isinstance(surrogate := getattr(method, "surrogate", None), str):
            nets.tried(surrogate, (channels, canvas, canvas), len(source.classes))
        if self.trace and self.trace.alone:
            own = Budget(self.trace.strength)
        budget = own if self.budget is None else Budget.parse(self.budget)
        check_norm(method, budget)
        mark = self._mark(budget, channels)
        publish.check_sizes(source, budget, (canvas, canvas), self.format)
        return Settings(
            attack=marking.ALONE if mark and mark.alone else spell(method),
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
        cells = tracing.parameters((), 0).cells
        beacon = "" if tracing.named else tracing.beacon.lower()
        return Mark(strength=tracing.strength, keys=tracing.keys, cells=cells, alone=tracing.alone, beacon=beacon)

    def checked(self, source: data.Source) -> tuple[Settings, str]:
        """Return the settings and a fingerprint of settings and data. Raises UserError if nothing can be written."""
        settings = self.settings(source)
        fingerprint = self.fingerprint(source, settings)
        publish.check_output(source.location, self.out, self.private, self.overwrite, fingerprint)
        publish.check_folders(source, self.out)
        room.check(self.disk(source, settings))
        return settings, fingerprint

    def fingerprint(self, source: data.Source, settings: Settings) -> str:
        """Digest of settings and data: equal if the output is equal."""
        return fingerprint_with(self.noise(source, settings), settings.rights)

    def noise(self, source: data.Source, settings: Settings) -> str:
        """Digest of all that decides the noise: settings and data, without the rights."""
        names = [entry.out for entry in source.usable]
        settled = {name: value for name, value in settings if name != "rights" and (name != "trace" or value)}
        return digest(VERSION, source.digest, names, sorted(settled.items()), *sorted(self.drop_columns))

    def secret(self, source: data.Source, settings: Settings) -> Secret | None:
        """The secret of the trace: read, or drawn and saved. None if there is no trace."""
        if not self.trace or not settings.trace:
            return None
        early = settings.model_copy(update={"trace": settings.trace.model_copy(update={"beacon": ""})})
        parameters = self.trace.parameters(source.classes, settings.canvas)
        return marking.secret_of(self.trace, parameters, self.private, self.noise(source, early))

    def made(self, noise: str) -> Path:
        """Path of the finished perturbation."""
        return perturbation_of(self.private, marking.fingerprint_of(noise, self.private) if self.trace else noise)

    def disk(self, source: data.Source, settings: Settings) -> room.Parts:
        """Bytes that the run still needs on disk, by folder and part."""
        path = self.made(self.noise(source, settings))
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


def protect(
    source: str | Path,
    out: str | Path,
    attack: str | Attack = "em:lasting",
    *,
    budget: str | Budget | None = None,
    canvas: int | None = None,
    split: str | None = None,
    format: Literal["png", "webp"] = "png",
    processes: int = 1,
    overwrite: bool = False,
    download: bool = False,
    max_pixels: int = 50_000_000,
    frames: Literal["refuse", "first"] = "refuse",
    drop_columns: Sequence[str] = (),
    rights: str | Rights = "none",
    trace: Tracing | None = None,
    run: Run | None = None,
) -> RunRecord:
    """Write a protected copy of a set of pictures, and beside it a private folder with its record.

    Same tree, same names, lossless files; labels and order stay. The source is not changed. If a call is killed, the
    same call resumes it, with the same bytes as result.

    source: a folder of class folders, parquet, .npz, or the name of a set. attack: a spelling ("em", "mi-ue:paper",
    "file.py:Theirs") or an attack. budget: "8", "l2:1.3" or a Budget; None: the attack's own. canvas: side of the
    noise; None: chosen from the pictures. processes: number that share the work, one GPU each. max_pixels: larger
    pictures are skipped. frames: "first" publishes only the first frame of pictures with several. drop_columns: columns
    of a table to leave out. rights: what is reserved in every file ("no-training", or Rights with texts), and told to a
    web server in the folder OUT.rights. trace: a secret mark by which `miue.trace.judge` finds out who trained on the
    set. run: seed and device. Raises UserError.
    """
    run = run or Run()
    job = Job(
        source=str(source),
        out=Path(out),
        method=attack if isinstance(attack, str) else _spelt(attack),
        budget=None if budget is None else str(budget),
        canvas=canvas,
        seed=run.seed,
        split=split,
        format=format,
        processes=processes,
        overwrite=overwrite,
        download=download,
        max_pixels=max_pixels,
        frames=frames,
        drop_columns=tuple(drop_columns),
        rights=Rights(value=rights) if isinstance(rights, str) else rights,
        trace=trace,
    )
    return carry_out(job, run)


def _spelt(method: Attack) -> str:
    """Spelling of an attack. Raises UserError if it denotes another one, as for a class without its file."""
    text = spell(method)
    if parsed(text) != method:
        theirs = f"path/to/file.py:{type(method).__name__}"
        raise UserError(f"{text!r} names another attack than this {method!r}; give yours as {theirs}")
    return text


def carry_out(job: Job, run: Run) -> RunRecord:
    """Write the protected set and its private folder. Resumes a killed call, with the same bytes as result.

    Where torchrun or SLURM started several processes, on one machine or more, they share the work and the folders.
    """
    with joined(run) as run:
        return _carried_out(job.shared_by(run.world), run)


def _carried_out(job: Job, run: Run) -> RunRecord:
    source = together(run, job.scan)
    settings, fingerprint = together(run, lambda: job.checked(source))
    same(run, "pictures or settings", fingerprint)
    private = job.private
    sizes = [f"{name} ({count})" for name, count in class_sizes(source).items()]
    run.say(f"{len(sizes)} classes: {data.some(sizes, MOST)}")
    for note in source.notes:
        run.say(f"note: {note}")
    if job.budget is None:
        run.say(f"budget {settings.budget}, the method's own")
    if job.trace and job.trace.named:
        raise UserError(f"beacon {job.trace.beacon}: nothing is written yet; call miue.workflows.protect.commit")
    with exclusive(job.out, run, OTHERWISE):
        if job.overwrite:
            first(run, lambda: publish.clear_output(job.out, private))
        first(run, lambda: job.secret(source, settings))
        secret = together(run, lambda: job.secret(source, settings))
        return _protect(job, source, settings, fingerprint, secret, run)


def commit(job: Job, run: Run | None = None) -> str:
    """Draw and save the secret of a trace, protect nothing yet, and return the commitment. Raises UserError.

    The same job with a beacon that became known after the commitment was published goes on from here.
    """
    source = job.scan()
    settings, _ = job.checked(source)
    with exclusive(job.out, run or Run(), OTHERWISE):
        secret = job.secret(source, settings)
    if secret is None:
        raise UserError("a commitment is that of a trace; give --trace")
    return secret.commitment


def _protect(
    job: Job, source: data.Source, settings: Settings, fingerprint: str, secret: Secret | None, run: Run
) -> RunRecord:
    private, before = job.private, _before(job.private, fingerprint)
    seconds = dict(before.seconds) if before else {}
    noise = job.noise(source, settings)
    record = RunRecord(
        fingerprint=fingerprint,
        noise="" if noise == fingerprint else noise,
        status="running",
        miue=installed(),
        settings=settings,
        source=Looked.of(source, job.rules),
        machine=run.machine,
        finished=before.finished if before else "",
        seconds=seconds,
        added=[] if job.overwrite or not before else list(before.added),
        commitment=secret.commitment if secret else "",
        named=secret.parameters.beacon if secret else "",
        profile=before.profile if before else None,
        success=before.success if before else None,
    )
    path = private / "run.json"
    first(run, lambda: record.save(path))
    folder = private / ("canvas" if run.rank == 0 else f"canvas-{run.rank}")
    read = cache(lambda: together(run, lambda: data.read(source, settings.canvas, cache=folder)))
    try:
        with timed(seconds, "attack"):
            perturbation = _perturbation(job, source, read, settings, job.made(noise), secret, run)
        if run.least(record.profile is None):
            facts = described(job.attack, read(), perturbation, settings.rest, job.keeping(run))
            record = record.model_copy(update=facts)
        read.cache_clear()
        if source.held:
            source.held.drop()
    finally:  # the seconds of a stopped run count, too
        if run.rank == 0:
            record.model_copy(update={"seconds": seconds}).save(path)
    run.say(f"writing {len(source.usable)} pictures to {job.out}")
    with timed(seconds, "write"), run.progress("writing", len(source.usable)) as tick:
        written = publish.write(
            source,
            perturbation,
            job.out,
            private,
            format=job.format,
            notice=marking.notice(record, settings.rights),
            tick=tick,
            run=run,
            rights=settings.rights,
        )
    first(run, lambda: publish.write_rights(job.out, settings.rights))
    finished = (before.finished if before else "") or time.strftime(DATED)
    done = {"status": "finished", "finished": finished, "seconds": seconds, "written": written}
    record = record.model_copy(update=done)
    first(run, lambda: record.save(path))
    return record if run.rank == 0 else RunRecord.load(path)


def _perturbation(
    job: Job,
    source: data.Source,
    read: Callable[[], ImageSet],
    settings: Settings,
    path: Path,
    secret: Secret | None,
    run: Run,
) -> Perturbation:
    """Return the perturbation: read it if an earlier run finished it, else run the attack, on marked pictures."""
    if run.least(path.exists()):
        return together(run, lambda: Perturbation.load(path))
    images = read()
    rows = rows_of(secret, images.labels, [entry.sha256 for entry in source.usable]) if secret else images.labels
    attack = job.attack if isinstance(job.attack, Nothing) else partial(_launched, job)
    perturbation = traced(attack, secret, images, rows, settings.limit, job.keeping(run))
    first(run, lambda: write_atomically(path, perturbation.save))
    return perturbation


def _launched(job: Job, images: ImageSet, budget: Budget, run: Run) -> Perturbation:
    """The perturbation of the job's attack, made by its processes."""
    return launch(partial(attacked, job.attack, images, budget), run, job.processes)


def attacked(method: Any, images: ImageSet, budget: Budget, run: Run) -> Perturbation:
    """Return the perturbation of an attack. At module level so that spawned processes can import it."""
    return method(images, budget, run)


def _before(private: Path, fingerprint: str) -> RunRecord | None:
    """The record of an earlier call of the same job."""
    try:
        before = RunRecord.load(private / "run.json")
    except UserError:  # none yet, or of another version
        return None
    return before if before.fingerprint == fingerprint else None
