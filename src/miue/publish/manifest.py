"""The manifest: one line for each input. It is private, because it links published pictures to originals."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from miue.core.errors import Damaged, UserError
from miue.core.files import Record, part_of, write_atomically
from miue.core.run import Run
from miue.core.types import Budget, Norm
from miue.data.folder import NOTICE
from miue.data.source import Kind

AGAIN = "run the command that wrote it once more, without --overwrite"
FINAL, PART, PLAN = "manifest.jsonl", "manifest.part.jsonl", "outputs.json"


class Line(Record):
    """The outcome for one input. Hashes are SHA-256."""

    path: str
    out: str
    status: Literal["protected", "skipped", "failed"]
    reason: str = ""
    class_name: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    sha256: str = ""
    pixels: str = ""
    out_bytes: int = 0
    out_sha256: str = ""
    out_pixels: str = ""
    max_change: int | None = None
    """Largest change of one value, grey levels."""
    l2: float | None = None
    """Size of the change, [0,1] units."""
    changed: float | None = None
    """Share of changed pixels."""
    psnr: float | None = None
    """In dB; None if nothing changed."""
    ssim: float | None = None
    rights: str = ""
    """Its statement on data mining, as a key of the PLUS vocabulary."""
    reserved: str = ""
    """The statement of its source."""
    signed: bool = False
    """True if the file has content credentials (C2PA) of its owner. They hold for these very bytes."""
    part: int = 0
    """0 for the first pictures, then counted: the pictures that were added together."""


class Plan(Record):
    """The list of files of a run, saved before the first file, so that the run can be verified, resumed and removed."""

    version: Literal[1] = 1
    kind: Kind
    files: tuple[str, ...]
    eps: float
    norm: Norm
    inputs: int = 0
    """Number of lines of the finished manifest; 0 in plans of older versions."""

    @property
    def budget(self) -> Budget:
        return Budget(self.eps, self.norm)

    @classmethod
    def of(cls, private: Path) -> Plan | None:
        """The plan in a private folder; None if there is none. Raises Damaged if it cannot be read."""
        path = private / PLAN
        return cls.load(path, f"{AGAIN}, which writes it anew") if path.exists() else None

    def begun(self, out: Path, lines: Iterable[Line]) -> list[Path]:
        """Files of the plan that are on disk, whole or in part, beside the notice and those that have a line."""
        known = {NOTICE, *(line.out for line in lines)}
        ours = [out / name for name in self.files if name not in known]
        return [path for path in ours if path.exists() or part_of(path).exists()]


def part_name(run: Run) -> str:
    """Name of the manifest that this process writes line by line, until all of it is merged."""
    return PART if run.world == 1 else f"manifest.part-{run.rank}of{run.world}.jsonl"


def parts_of(private: Path) -> list[Path]:
    """Manifests of the processes of a run that has not ended, oldest first."""
    return sorted(private.glob("manifest.part*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def read_lines(path: Path) -> tuple[list[Line], int]:
    """The lines of a manifest and the number of damaged ones (a killed run may leave one). No file gives no lines."""
    lines, damaged = list[Line](), 0
    for text in path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            lines.append(Line.model_validate_json(text))
        except ValidationError:
            damaged += 1
    return lines, damaged


def finished(private: Path) -> tuple[Plan, list[Line]]:
    """The plan and the whole manifest of a finished run. Raises UserError if the manifest is missing or damaged."""
    plan, path = Plan.of(private), private / FINAL
    if plan is None or not path.exists():
        raise UserError(f"{private}: holds no finished manifest, which every output of miue has; {AGAIN}")
    lines, damaged = read_lines(path)
    if damaged or not lines or len(lines) < plan.inputs:
        raise Damaged(f"{path}: is damaged, only {len(lines)} lines of it can be read; {AGAIN}, which rebuilds it")
    return plan, lines


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """Write all lines at once. The file appears complete or not at all."""
    write_atomically(path, "".join(map(as_text, lines)).encode())


def as_text(line: Line) -> str:
    """One line of JSON, in ASCII only, so that a file name with a line separator stays on one line."""
    return json.dumps(line.model_dump()) + "\n"
