"""What the verbs do, from paths to records: protect a source, prove what an output is worth, analyse why.

Safe to repeat.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from miue import data
from miue.analyze import Analyzer
from miue.attacks import KNOWN, Noise, attack
from miue.batches import holdout
from miue.evaluate import Proof, repeated
from miue.records import Analysis, Generation, Outcome, Record
from miue.run import Run, launch, write_atomically
from miue.spec import file_digest, own_budget, spell
from miue.types import Budget, ImageSet, Perturbation, UserError

VERSION = 1
HELD_OUT = 0.2


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
        if not path.is_file():
            raise UserError(f"{out}: no {path.parent.name}/run.json beside it; only an output of miue has one")
        try:
            return cls.model_validate_json(path.read_text())
        except ValueError:
            raise UserError(f"{path}: is no record of this version of miue, or it is damaged") from None


@dataclass(frozen=True, kw_only=True)
class Job:
    """The settings of one protection. budget None: the method's own. canvas None: chosen from the pictures."""

    source: str
    out: Path
    method: str = "mi-ue:balanced"
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

    def __post_init__(self) -> None:
        data.check_canvas(self.canvas)
        if self.processes < 1:
            raise UserError(f"{self.processes} processes: at least 1")

    def scan(self) -> data.Source:
        return data.scan(
            self.source, split=self.split, download=self.download, max_pixels=self.max_pixels, frames=self.frames
        )

    @property
    def private(self) -> Path:
        return data.private_of(self.out)

    def settings(self, source: data.Source) -> dict[str, Any]:
        """The settings with everything resolved. UserError for a budget that the method or the pictures cannot keep."""
        method, canvas = attack(self.method), self.canvas or data.default_canvas(source)
        channels = 1 if all(entry.grey for entry in source.usable) else 3
        own = own_budget(method, (channels, canvas, canvas))
        budget = own if self.budget is None else Budget.parse(self.budget)
        if facts := getattr(method, "facts", None):
            facts.check(budget)
        data.check_sizes(source, budget, (canvas, canvas), self.format)
        return {
            "attack": spell(method, KNOWN),
            "code": code_of(self.method, method),
            "budget": str(budget),
            "canvas": canvas,
            "seed": self.seed,
            "split": self.split,
            "format": self.format,
            "processes": self.processes,
        }

    def checked(self, source: data.Source) -> tuple[dict[str, Any], str]:
        """The settings and what stands for them and the data. UserError where the output cannot be written."""
        settings = self.settings(source)
        stands = hashlib.sha256(f"{VERSION} {source.digest} {sorted(settings.items())}".encode()).hexdigest()[:16]
        data.check_output(source.location, self.out, self.private, self.overwrite, stands)
        free, need = shutil.disk_usage(_existing(self.out)).free, _disk(source)
        if free < need and not self.out.exists():
            raise UserError(f"{self.out}: about {need:,} bytes are needed there, {free:,} are free; make room")
        return settings, stands


@dataclass(frozen=True)
class Forecast:
    """What a job would cost: seconds by a short trial, bytes on disk and in memory."""

    seconds: float
    disk: int
    memory: int


def forecast(job: Job, source: data.Source, run: Run) -> Forecast:
    """Time a few batches of the real attack on the real pictures, and scale."""
    settings = job.settings(source)
    canvas, budget = settings["canvas"], Budget.parse(settings["budget"])
    method, count = attack(job.method), len(source.usable)
    seconds = 0.0
    if epochs := getattr(method, "epochs", 0):
        rows = min(count, 2 * max(getattr(method, "noise_batch", 0), getattr(method, "batch", 0)))
        trial: ImageSet = data.read(source, canvas).first_per_class(max(rows // len(source.classes), 1))
        short = replace(method, epochs=1)  # type: ignore[type-var]
        for _ in range(2):  # the first warms up
            start = time.monotonic()
            short(trial, budget, Run(job.seed, run.device_name, None, True, run.fabric))
            seconds = (time.monotonic() - start) * epochs * count / len(trial)
    grid = getattr(method, "cells", 0) or canvas
    return Forecast(seconds, _disk(source), count * 3 * (canvas**2 + 8 * grid**2))


def _disk(source: data.Source) -> int:
    """Bytes that lossless files of noisy pictures take: about those of the raw values."""
    return sum(entry.width * entry.height * (1 if entry.grey else 3) for entry in source.usable)


def protect(job: Job, run: Run, say: Callable[[str], None] = lambda text: None) -> tuple[RunRecord, data.Written]:
    """Write the protected set and its private folder. The same call continues a killed one, to the same bytes."""
    source = job.scan()
    settings, fingerprint = job.checked(source)
    private = job.private
    if job.budget is None:
        say(f"budget {settings['budget']}, the method's own")
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with FileLock(private / "run.lock", blocking=False):
            if job.overwrite:
                data.clear_output(job.out, private)
            return _protect(job, source, settings, fingerprint, run, say)
    except Timeout:
        raise UserError(f"{job.out}: another run is working on it; wait for it or choose another output") from None


def _protect(
    job: Job, source: data.Source, settings: dict[str, Any], fingerprint: str, run: Run, say: Callable[[str], None]
) -> tuple[RunRecord, data.Written]:
    private, seconds = job.private, _seconds_before(job.private, fingerprint)
    record = RunRecord(
        fingerprint=fingerprint,
        status="running",
        miue=installed(),
        settings=settings,
        source={
            "location": str(Path(source.location).resolve()) if Path(source.location).exists() else source.location,
            "kind": source.kind,
            "digest": source.digest,
            "classes": list(source.classes),
            "counts": source.summary(),
            "notes": list(source.notes),
        },
        machine=run.machine,
        seconds=seconds,
    )
    _write(private / "run.json", record)
    with _timed(seconds, "attack"):
        perturbation = _perturbation(job, source, settings, fingerprint, run)
    say(f"writing {len(source.usable)} pictures to {job.out}")
    with _timed(seconds, "write"), run.progress("writing", len(source.usable)) as tick:
        written = data.write(source, perturbation, job.out, private, format=job.format, tick=tick)
    facts = {k: v for k, v in vars(written).items() if k != "notes"}
    plain = {k: vars(v) if is_dataclass(v) or isinstance(v, Record) else v for k, v in facts.items()}
    record = record.model_copy(update={"status": "finished", "seconds": seconds, "written": plain})
    _write(private / "run.json", record)
    return record, written


def _perturbation(job: Job, source: data.Source, settings: dict[str, Any], fingerprint: str, run: Run) -> Perturbation:
    """Made by the attack, or read where an earlier run had finished it."""
    path = job.private / f"perturbation-{fingerprint}.safetensors"
    if path.is_file():
        return Perturbation.load(path)
    images = data.read(source, settings["canvas"], cache=job.private / "canvas")
    kept = replace(run, seed=job.seed, keep=job.private / "checkpoint")
    work = partial(attacked, attack(job.method), images, Budget.parse(settings["budget"]))
    perturbation = launch(work, kept, job.processes)
    write_atomically(path, perturbation.save)
    return perturbation


def attacked(method: Any, images: ImageSet, budget: Budget, run: Run) -> Perturbation:
    """What a spawned process calls."""
    return method(images, budget, run)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is to be proved: an output, its clean source and a clean test set (None: part of the source is held out).

    channel: what happens to all training pictures on their way to a trainer ("jpeg:75", "resize:24").
    """

    out: Path
    clean: str
    test: str | None = None
    split: str | None = None
    test_split: str | None = None
    canvas: int | None = None
    channel: str | None = None

    def __post_init__(self) -> None:
        data.check_canvas(self.canvas)


def prove(claim: Claim, proof: Proof, run: Run, say: Callable[[str], None] = lambda text: None) -> Outcome:
    """Read back what was published, train the victims, write the outcome beside the output."""
    source = data.scan(claim.clean, split=claim.split)
    record, published, rows = _published(claim.out, claim.clean, source)
    canvas, used = claim.canvas or int(record.settings["canvas"]), rows >= 0
    grey = all(entry.grey for entry in (*source.usable, *published.usable))
    clean, shipped = data.read(source, canvas, grey=grey), data.read(published, canvas, grey=grey)
    if missing := int((~used).sum()):
        say(f"{missing} clean pictures are not in {claim.out}; no victim trains on them")
    clean, protected = clean.select(used), shipped.select(rows[used], name=claim.out.name)
    test_set, held = read_test(clean, claim.clean, claim.test, claim.test_split, run)
    if held is not None:
        kept, rest = held
        say(f"no --test: {len(rest)} of {len(clean)} clean pictures are held out, no victim trains on them in any form")
        test_set, clean, protected = clean.select(rest), clean.select(kept), protected.select(kept)
    assert test_set is not None
    if claim.channel:
        clean, protected = (data.through(part, claim.channel) for part in (clean, protected))
    kept_run = replace(run, keep=data.private_of(claim.out))
    budget = Budget.parse(record.settings["budget"])
    victims = ", ".join(r.victim for r in proof.recipes)
    say(f"training {victims} on clean, noisy and protected pictures, {proof.seeds} seed(s) each")
    grid = getattr(attack(record.settings["attack"]), "cells", 0)
    outcome = replace(proof, noise=Noise(cells=grid))(
        clean, test_set, protected, budget, kept_run, record.settings["attack"], claim.channel
    )
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{_digest(outcome)}.json"
    _write(data.private_of(claim.out) / "outcomes" / name, outcome)
    return outcome


def _published(out: Path, clean: str, source: data.Source) -> tuple[RunRecord, data.Source, Int64[Tensor, "n"]]:
    """The record of an output, what was published, and which of its rows was made from which clean one (-1: none).

    UserError where it is not finished, or was not made from these pictures.
    """
    record = RunRecord.of(out)
    if record.status != "finished":
        raise UserError(f"{out}: its protection was interrupted; finish it with the same protect command")
    published = data.scan(out)
    if source.digest != record.source["digest"]:
        raise UserError(f"{clean}: these are not the pictures that {out} was made from, or some have changed")
    rows = data.align(source, published)
    if not bool((rows >= 0).any()):
        raise UserError(f"{out}: none of its pictures comes from {clean}")
    return record, published, rows


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """What is to be explained: outputs made from one clean source, and a clean test set (None: part is held out)."""

    outs: Sequence[Path]
    clean: str
    test: str | None = None
    split: str | None = None
    test_split: str | None = None
    canvas: int | None = None

    def __post_init__(self) -> None:
        data.check_canvas(self.canvas)

    def named(self) -> dict[str, Path]:
        """The outputs by the names of their folders. UserError where two have the same, or one is given twice."""
        names = [out.resolve().name for out in self.outs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"two outputs are called {twice[0]!r}: give each once, in folders of different names")
        return dict(zip(names, self.outs, strict=True))


def explain(inquiry: Inquiry, analyzer: Analyzer, run: Run, say: Callable[[str], None] = lambda text: None) -> Analysis:
    """Read back what was published, examine a victim of each output and of the controls, write the analysis.

    Everything is kept beside the first output: the same call, or one with more outputs after it, goes on.
    """
    named = inquiry.named()
    source = data.scan(inquiry.clean, split=inquiry.split)
    found = {name: _published(out, inquiry.clean, source) for name, out in named.items()}
    used = torch.stack([rows >= 0 for _, _, rows in found.values()]).all(0)
    if not used.any():
        raise UserError("no clean picture is in all outputs; analyse them one by one")
    if missing := int((~used).sum()):
        say(f"{missing} clean pictures are not in every output; they are left out")
    records = {name: record for name, (record, _, _) in found.items()}
    canvas = inquiry.canvas or max(int(record.settings["canvas"]) for record in records.values())
    grey = all(entry.grey for part in (source, *(p for _, p, _ in found.values())) for entry in part.usable)
    clean = data.read(source, canvas, grey=grey).select(used)
    attacks = {
        name: data.read(published, canvas, grey=grey).select(rows[used], name=name)
        for name, (_, published, rows) in found.items()
    }
    test_set, held = read_test(clean, inquiry.clean, inquiry.test, inquiry.test_split, run)
    if held is not None:
        kept, rest = held
        say(f"no --test: {len(rest)} of {len(clean)} clean pictures are held out, no victim trains on them in any form")
        test_set, clean = clean.select(rest), clean.select(kept)
        attacks = {name: part.select(kept) for name, part in attacks.items()}
    assert test_set is not None
    budgets = [Budget.parse(record.settings["budget"]) for record in records.values()]
    budget = budgets[0] if len(set(budgets)) == 1 and budgets[0].norm != "none" else Budget()
    say(f"training {analyzer.recipe.victim} on clean, noisy and {', '.join(named)}, {analyzer.seeds} seed(s) each")
    methods = {name: record.settings["attack"] for name, record in records.items()}
    first = data.private_of(next(iter(named.values())))
    analysis = analyzer(clean, test_set, attacks, replace(run, keep=first), budget, methods)
    kept = {n: replace(run, keep=data.private_of(out) / "checkpoint") for n, out in named.items()}
    traces = [trace for name, at in kept.items() if (trace := generation(name, records[name], at))]
    others = [f"{name} has a budget of {b}" for name, b in zip(named, budgets, strict=True) if b != budget]
    notes = [f"the noise control has a budget of {budget}; {other}" for other in others]
    analysis = analysis.model_copy(update={"generation": traces, "notes": [*analysis.notes, *notes]})
    _write(first / "analyses" / f"{time.strftime('%Y%m%d-%H%M%S')}-{_digest(analysis)}.json", analysis)
    return analysis


def generation(name: str, record: RunRecord, run: Run) -> Generation | None:
    """What an attack with a surrogate noted of its features after every epoch; None where there is nothing of it."""
    plan, budget = attack(record.settings["attack"]), Budget.parse(record.settings["budget"])
    kept = run.load("surrogate", plan=repr(plan), budget=repr(budget), seed=record.settings["seed"])
    if kept is None or not kept[1].get("generation"):
        return None
    cosine, between, within = zip(*kept[1]["generation"], strict=True)
    return Generation(name=name, cosine=cosine, between=between, within=within)


def read_test(
    clean: ImageSet, source: str, test: str | None, split: str | None, run: Run
) -> tuple[ImageSet | None, Any]:
    """(the test set, None); where no other set or split is named: (None, (rows to train on, rows held out))."""
    if test is None and split is None:
        return None, holdout(clean, HELD_OUT, run.reseeded(0))
    found = data.read_like(data.scan(test or source, split=split), clean, test or source, source)
    repeated(found, clean)
    return found, None


def code_of(spelling: str, method: object) -> str:
    """Digest of the code of a method from a user's own file, or of what a method of ours reads; mostly empty."""
    file = Path(spelling.partition(".py:")[0] + ".py")
    return file_digest(file) if file.is_file() else getattr(method, "content", "")


def _write(path: Path, record: Record) -> None:
    write_atomically(path, record.model_dump_json(indent=1).encode())


def _digest(record: Record) -> str:
    return hashlib.sha256(record.model_dump_json().encode()).hexdigest()[:8]


def _seconds_before(private: Path, fingerprint: str) -> dict[str, float]:
    """What earlier calls of the same job took."""
    try:
        before = RunRecord.model_validate_json((private / "run.json").read_text())
    except (OSError, ValueError):  # none yet, or of another version: what it says of the time is no loss
        return {}
    return dict(before.seconds) if before.fingerprint == fingerprint else {}


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start


def _existing(path: Path) -> Path:
    """The path itself or its nearest folder that exists."""
    return next(p for p in (path, *path.resolve().parents) if p.exists())


def installed() -> str:
    """The version of this package."""
    from importlib.metadata import version

    return version("miue")
