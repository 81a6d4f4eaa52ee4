"""The workflow `protect`: from a source to a protected set with its record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from miue import data, publish
from miue.attacks import attack as parsed
from miue.core.errors import UserError
from miue.core.files import installed, write_atomically
from miue.core.launch import first, joined, launch, same, together
from miue.core.method import Attack
from miue.core.run import Run
from miue.core.spelling import spell
from miue.core.types import Budget, ImageSet, Perturbation
from miue.data.rights import Rights
from miue.trace import Nothing, Secret, Tracing, traced
from miue.workflows import marking
from miue.workflows.exclusive import exclusive
from miue.workflows.job import MOST, Job, class_sizes
from miue.workflows.noise import described
from miue.workflows.record import DATED, Looked, RunRecord, Settings, timed

OTHERWISE = "wait for it or choose another output"


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
    sizes = [f"{name} ({count})" for name, count in class_sizes(source).items()]
    run.say(f"{len(sizes)} classes: {data.some(sizes, MOST)}")
    for note in source.notes:
        run.say(f"note: {note}")
    if job.budget is None:
        run.say(f"budget {settings.budget}, the method's own")
    if job.trace and job.trace.named:
        raise UserError(f"beacon {job.trace.beacon}: nothing is written yet; call miue.workflows.protect.commit")
    with exclusive(job.out, run, OTHERWISE):
        first(run, lambda: _prepare(job, source, settings))
        secret = together(run, lambda: job.secret(source, settings))
        return _protect(job, source, settings, fingerprint, secret, run)


def commit(job: Job, run: Run | None = None) -> str:
    """Draw and save the secret of a trace, protect nothing yet, and return the commitment. Raises UserError.

    The same job with a beacon that became known after the commitment was published goes on from here.
    """
    source = job.scan()
    settings, _ = job.checked(source)
    with exclusive(job.out, run or Run(), OTHERWISE):
        secret = replace(job, overwrite=False).secret(source, settings)  # nothing is written over yet
        if secret is None:
            raise UserError("a commitment is that of a trace; give --trace")
        marking.keep(secret, job.private)
    return secret.commitment


def _prepare(job: Job, source: data.Source, settings: Settings) -> None:
    """Save the secret, and delete what is written over. A call that is refused deletes nothing. Raises UserError."""
    secret = job.secret(source, settings)
    if job.overwrite:
        publish.clear_output(job.out, job.private)
    if secret:
        marking.keep(secret, job.private)


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
            perturbation = _perturbation(job, source, read, settings, job.perturbation(noise), secret, run)
            first(run, lambda: job.keeping(run).forget(networks=False))  # as large as the pictures, or larger
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
    rows = marking.rows(secret, images.labels, source)
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
