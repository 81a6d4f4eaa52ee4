"""Write a protected set: every picture at its own size, in a lossless file that is read back and measured."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from filelock import Timeout

from miue.core.errors import UserError
from miue.core.files import Lock, Record, named, write_atomically
from miue.core.launch import first, together
from miue.core.run import Run
from miue.core.types import Budget, Perturbation
from miue.data.picture import Rules, decode, kept_profile, quiet
from miue.data.quality import Change, Size, Spread, size, ssim
from miue.data.read import clean_picture
from miue.data.rights import Rights
from miue.data.source import FILES, Entry, Payload, Source, ahead, sha256
from miue.publish.manifest import FINAL, PLAN, Line, Plan, as_text, part_name, parts_of, read_lines, write_lines
from miue.publish.output import NOTICE, NOTICE_TEXT, check_folders
from miue.publish.sinks import NONE, Form, Sink, out_name, sink_for

log = logging.getLogger("miue")
BLOCK = 4096  # bytes
_WEBP_SIDE = 16383
_FLUSH = 0.2  # seconds between flushes of the partial manifest


class Written(Record):
    """Summary of what `write` wrote."""

    counts: Mapping[str, int]
    """Inputs by status."""
    worst: int
    """The largest change of one value, in grey levels."""
    unchanged: int
    """Number of pictures in which no value changed: they are still clean in the output."""
    size: Size | None
    """Sizes of the changes, measured on the files."""
    psnr: Spread | None
    ssim: Spread | None
    bytes_in: int
    bytes_out: int
    notes: Sequence[str] = ()


def write(
    source: Source,
    perturbation: Perturbation,
    out: Path,
    private: Path,
    *,
    format: Form = "png",
    notice: str = NOTICE_TEXT,
    tick: Callable[[], None] | None = None,
    stop: Callable[[], bool] | None = None,
    run: Run | None = None,
    part: int = 0,
    rights: Rights = NONE,
) -> Written:
    """Write the protected set to `out` and its manifest to `private`. Files finished by an earlier call are kept.

    notice: text of PROTECTED.md. tick: called after each usable picture. stop: called before each picture; if it
    returns True, KeyboardInterrupt is raised. run: its processes write a share each, and the first one merges the
    manifest; None: there is one process. part: number of this set in the output; the files and lines of other parts
    stay as they are. rights: what every file says of them. Raises UserError if a source file has changed, and OSError
    if the disk fails or is full. No truncated file is left.
    """
    if len(perturbation) != len(source.usable):
        raise ValueError(f"a perturbation of {len(perturbation)} rows for {len(source.usable)} pictures")
    check_sizes(source, perturbation.budget, tuple(perturbation.delta.shape[-2:]), format)
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    run, writer = run or Run(), partial(_Writer, source, perturbation, sink_for(source, out, format, rights), private)
    try:
        with Lock(private / (f"write-{run.rank}.lock" if run.rank else "write.lock"), timeout=0), quiet():
            return writer(run, part, notice).write(tick or (lambda: None), stop or (lambda: False))
    except Timeout:
        raise UserError(f"{out}: another run is writing there; wait for it or choose another output folder") from None


def room(source: Source, out: Path, format: Form, anew: bool = False) -> int:
    """Estimated bytes on disk for the pictures whose file is not in `out` yet; for all pictures if `anew`.

    A lossless file of a noisy picture is about as large as its raw values, rounded up to blocks of the disk.
    """
    sink = sink_for(source, out, format)
    todo = [rows for rows, name in zip(sink.groups, sink.files, strict=True) if anew or not (out / name).exists()]
    entries = (source.usable[row] for rows in todo for row in rows)
    return sum((entry.size * (1 if entry.grey else 3) // BLOCK + 1) * BLOCK for entry in entries)


def check_sizes(source: Source, budget: Budget, grid: tuple[int, ...], form: Form) -> None:
    """Raise UserError if the size of a picture does not fit budget or format. grid: height and width of the noise."""
    norm = budget.norm
    for entry in source.usable:
        if norm in ("l2", "l0") and (entry.height, entry.width) != grid:
            raise UserError(
                f"{entry.path} is {entry.width} x {entry.height}, and a budget in {norm} holds only at the size of the "
                f"noise grid ({grid[1]} x {grid[0]}); use pictures of one square size with that size as canvas, or a "
                "method and a budget in grey levels (8)"
            )
        if form == "webp" and max(entry.width, entry.height) > _WEBP_SIDE:
            raise UserError(f"{entry.path}: a WebP file has at most {_WEBP_SIDE} pixels a side; use png")


@dataclass(frozen=True)
class _Writer:
    source: Source
    perturbation: Perturbation
    sink: Sink
    private: Path
    run: Run
    part: int = 0
    notice: str = NOTICE_TEXT
    unprofiled: list[str] = field(default_factory=list)
    """Paths of pictures that this run writes without their colour profile."""

    @cached_property
    def others(self) -> list[Line]:
        """The lines of other parts."""
        return [line for line in read_lines(self.private / FINAL)[0] if line.part != self.part]

    def write(self, tick: Callable[[], None], stop: Callable[[], bool]) -> Written:
        """Write the missing files of every process, in row order, and then the manifest."""
        earlier = together(self.run, self._kept)
        todo = [at for at in self._share if not self.sink.groups[at] or self.sink.groups[at].start not in earlier]
        first(self.run, lambda: self._prepare([row for at in todo for row in self.sink.groups[at]]))
        for _ in earlier:
            tick()
        lines = together(self.run, lambda: self._written(todo, earlier, tick, stop))
        self.unprofiled[:] = [path for paths in self.run.gathered(list(self.unprofiled)) for path in paths]
        first(self.run, lambda: self._merge(lines))
        return self._summary(read_lines(self.private / FINAL)[0])

    @property
    def _share(self) -> range:
        """Groups of this process."""
        return range(self.run.rank, len(self.sink.groups), self.run.world)

    def _written(
        self, todo: Sequence[int], kept: dict[int, Line], tick: Callable[[], None], stop: Callable[[], bool]
    ) -> dict[int, Line]:
        """The lines of the share of this process, when its missing groups are written."""
        groups, lines = self.sink.groups, dict(kept)
        path = self.private / part_name(self.run)
        write_lines(path, lines.values())
        flushed = monotonic()
        rows = [row for at in todo for row in groups[at]]
        outputs = ahead(self._make, rows, lambda row: self.source.usable[row].size)
        with named(path), path.open("a", encoding="utf-8") as log:
            for at in todo:
                fresh: list[Line] = []
                self.sink.put(at, _recorded(islice(outputs, len(groups[at])), fresh, tick, stop))
                self._check(at, fresh)
                log.write("".join(map(as_text, fresh)))
                if monotonic() - flushed > _FLUSH:  # after a kill, files missing in the log are written again
                    log.flush()
                    flushed = monotonic()
                lines |= zip(groups[at], fresh, strict=True)
        self.sink.flush(self._share)
        return lines

    def _kept(self) -> dict[int, Line]:
        """The lines, by row, of groups in the share that an earlier call finished and whose files are unchanged."""
        known = dict[str, Line]()
        for path in (self.private / FINAL, *parts_of(self.private)):
            lines, damaged = read_lines(path)
            known |= {line.path: line for line in lines if line.part == self.part}
            if damaged and path.name == FINAL:  # in a part the last line may be cut off, if the run was killed
                log.warning("%s: damaged; what is not in it is written again", path)
        intact: dict[int, Line] = {}
        for at in self._share:
            rows = self.sink.groups[at]
            old = [known.get(self.source.usable[row].path) for row in rows]
            lines = [line for row, line in zip(rows, old, strict=True) if line and self._is_for(line, row)]
            if rows and len(lines) == len(rows) and self._holds(at, lines):
                intact |= zip(rows, lines, strict=True)
        return intact

    def _is_for(self, line: Line, row: int) -> bool:
        entry = self.source.usable[row]
        return line.status == "protected" and line.sha256 == entry.sha256 and line.out == self._out(entry)

    def _out(self, entry: Entry) -> str:
        return out_name(entry.out, self.source.kind, self.sink.form)

    def _holds(self, at: int, lines: Sequence[Line]) -> bool:
        try:
            return [sha256(payload) for payload in self.sink.stored(at)] == [line.out_sha256 for line in lines]
        except (OSError, ValueError, UserError):  # missing, or damaged: it is written again
            return False

    def _check(self, at: int, lines: Sequence[Line]) -> None:
        if not self._holds(at, lines):
            raise OSError(f"{self.sink.out / self.sink.files[at]}: what is read back differs from what was written")

    def _prepare(self, rows: Sequence[int]) -> None:
        out = self.sink.out
        out.mkdir(parents=True, exist_ok=True)
        check_folders(self.source, out)
        need = sum(self.source.usable[row].width * self.source.usable[row].height * 3 for row in rows) // 2
        need *= self.run.world  # the shares are alike
        if (free := shutil.disk_usage(out).free) < need:
            raise UserError(f"{out}: at least {need:,} bytes are needed there, {free:,} are free; make room")
        self._plan(len(self.others) if self.others else len(self.source.entries)).save(self.private / PLAN)
        write_atomically(out / NOTICE, self.notice.encode())
        if self.source.kind in FILES:  # an empty class keeps its folder, so that labels stay the same
            for name in self.source.classes:
                (out / name).mkdir(exist_ok=True)

    def _plan(self, inputs: int) -> Plan:
        """The plan with the files of all parts. inputs: lines that a whole manifest has."""
        budget, others = self.perturbation.budget, [line.out for line in self.others if line.out]
        before = Plan.of(self.private) if self.part or others else None
        files = dict.fromkeys((NOTICE, *(before.files if before else ()), *others, *self.sink.files))
        kind = before.kind if before else self.source.kind
        return Plan(kind=kind, files=tuple(files), eps=budget.eps, norm=budget.norm, inputs=inputs)

    def _make(self, row: int) -> tuple[Line, Payload]:
        """Protect and encode one picture; return its line, measured on the decoded file, and the payload."""
        entry, clean = self.source.usable[row], clean_picture(self.source, self.source.rows[row])
        delta = self.perturbation.at(row, entry.height, entry.width).to(torch.int16).numpy()
        payload = self.sink.encode(clean.plus(delta))
        if clean.meta.icc and not kept_profile(clean, self.sink.form):
            self.unprofiled.append(entry.path)
        stored = decode(payload, Rules(self.source.rules.max_pixels))
        change = stored.minus(clean)
        if not self.perturbation.budget.allows(torch.from_numpy(change)[None]) or not stored.same_alpha(clean):
            raise RuntimeError(
                f"{entry.path}: the encoded file leaves the budget or changes alpha; nothing was written"
            )
        before, size = np.broadcast_to(clean.pixels, stored.pixels.shape), Change.of(change)
        line = Line(
            **self._facts(entry, self._out(entry), "protected"),
            out_bytes=len(payload) if isinstance(payload, bytes) else payload.nbytes,
            out_sha256=sha256(payload),
            out_pixels=stored.digest,
            rights=self.sink.key(clean),
            reserved=clean.meta.reserved,
            max_change=size.linf,
            l2=size.l2,
            changed=size.changed,
            psnr=size.psnr,
            ssim=ssim(before, stored.pixels),
        )
        return line, payload

    def _facts(self, entry: Entry, out: str, status: str) -> dict:
        name = self.source.classes[entry.label] if entry.label >= 0 else ""
        same = ("path", "reason", "mode", "width", "height", "bytes", "sha256", "pixels")
        own = {"out": out, "status": status, "class_name": name, "part": self.part}
        return {key: getattr(entry, key) for key in same} | own

    def _merge(self, lines: dict[int, Line]) -> None:
        """Write the manifest from the lines of this process, the manifests of the others, and the other parts."""
        own = {line.path: line for line in lines.values()}
        if self.run.world > 1:
            own |= {line.path: line for path in parts_of(self.private) for line in read_lines(path)[0]}
        facts = (self._facts(entry, "", entry.status) for entry in self.source.entries)
        every = [*self.others, *(own.get(fact["path"]) or Line(**fact) for fact in facts)]
        write_lines(self.private / FINAL, sorted(every, key=lambda line: line.part))
        if self.others:  # until here the manifest of the other parts was whole
            self._plan(len(every)).save(self.private / PLAN)
        for path in parts_of(self.private):
            path.unlink()

    def _summary(self, every: Sequence[Line]) -> Written:
        done = [line for line in every if line.status == "protected"]
        changes = size([_change(line) for line in done])
        return Written(
            counts=dict(Counter(line.status for line in every)),
            worst=max((line.max_change or 0 for line in done), default=0),
            unchanged=sum(line.max_change == 0 for line in done),
            size=changes,
            psnr=Spread.over([line.psnr for line in done if line.psnr is not None]),
            ssim=Spread.over([line.ssim for line in done if line.ssim is not None]),
            bytes_in=sum(line.bytes for line in done),
            bytes_out=sum(line.out_bytes for line in done),
            notes=list(_notes(done, changes, self.unprofiled)),
        )


def _recorded(
    outputs: Iterator[tuple[Line, Payload]], lines: list[Line], tick: Callable[[], None], stop: Callable[[], bool]
) -> Iterator[Payload]:
    """Yield the payloads and append their lines to `lines`."""
    while True:
        if stop():
            raise KeyboardInterrupt
        if (output := next(outputs, None)) is None:
            return
        line, payload = output
        lines.append(line)
        tick()
        yield payload


def _change(line: Line) -> Change:
    return Change(line.max_change or 0, line.l2 or 0.0, line.changed or 0.0, line.psnr)


def _notes(lines: Sequence[Line], changes: Size | None, unprofiled: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if changes and changes.leaves:
        notes.append(changes.leaves)
    if flat := sum(line.ssim is not None and line.ssim < 0.8 for line in lines):
        notes.append(f"{flat} pictures with SSIM below 0.8: flat areas show the noise")
    if unprofiled:
        notes.append(
            f"colour profile of grey left out, because WebP has no grey ({len(unprofiled)} pictures, such as "
            f"{min(unprofiled)}); png keeps it"
        )
    return tuple(notes)
