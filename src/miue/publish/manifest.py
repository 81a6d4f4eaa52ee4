"""The manifest: one line per input, private, because it leads from a published picture to its original."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from miue.core.errors import Damaged, UserError
from miue.core.files import Record, write_atomically
from miue.core.types import Budget, Norm
from miue.data.source import Kind

AGAIN = "run the protect command that made it once more, without --overwrite"
FINAL, PART, PLAN = "manifest.jsonl", "manifest.part.jsonl", "outputs.json"


class Line(Record):
    """What became of one input. Hashes are SHA-256; max_change is in grey levels; l2 in [0,1] units; changed: share of
    pixels; psnr in dB (None: no change)."""

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
    l2: float | None = None
    changed: float | None = None
    psnr: float | None = None
    ssim: float | None = None


class Plan(Record):
    """What a run writes, put down before its first file: so that it can be checked, resumed and taken away again."""

    version: Literal[1] = 1
    kind: Kind
    files: tuple[str, ...]
    eps: float
    norm: Norm
    inputs: int = 0
    """Lines of the finished manifest; 0 in plans of an earlier time."""

    @property
    def budget(self) -> Budget:
        return Budget(self.eps, self.norm)

    @classmethod
    def of(cls, private: Path) -> Plan | None:
        """Read what is put down in a private folder; None where nothing is. Raises Damaged if it cannot be read."""
        path = private / PLAN
        return cls.load(path, f"{AGAIN}, which writes it anew") if path.exists() else None


def read_lines(path: Path) -> tuple[list[Line], int]:
    """The lines of a manifest, and how many others are damaged, as the last one of a killed run. No file: no lines."""
    lines, damaged = list[Line](), 0
    for text in path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            lines.append(Line.model_validate_json(text))
        except ValidationError:
            damaged += 1
    return lines, damaged


def finished(private: Path) -> tuple[Plan, list[Line]]:
    """The plan and the whole manifest of a finished run. Raises UserError where there is none, or a damaged one."""
    plan, path = Plan.of(private), private / FINAL
    if plan is None or not path.exists():
        raise UserError(f"{private}: holds no finished manifest; only an output of miue can be verified")
    lines, damaged = read_lines(path)
    if damaged or not lines or len(lines) < plan.inputs:
        raise Damaged(f"{path}: is damaged, only {len(lines)} lines of it can be read; {AGAIN}, which rebuilds it")
    return plan, lines


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """All lines at once: the file appears complete or not at all."""
    write_atomically(path, lambda part: _write(part, "".join(map(as_text, lines))))


def as_text(line: Line) -> str:
    """One line of JSON, ASCII only: a file name with a line separator in it stays on its line."""
    return json.dumps(line.model_dump()) + "\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8", newline="\n")
