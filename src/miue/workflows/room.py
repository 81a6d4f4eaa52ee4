"""Disk space of a run, checked before it starts: a disk that fills up after hours costs those hours."""

from __future__ import annotations

import shutil
from math import prod
from pathlib import Path
from typing import Any

from miue import data, publish
from miue.core.errors import UserError
from miue.workflows.record import Settings

LINES, MARGIN = 4096, 2**20  # bytes: manifest per input (two copies while it is replaced); everything else

Parts = dict[Path, dict[str, int]]
"""Bytes by folder and by purpose."""


def needed(
    source: data.Source,
    method: Any,
    settings: Settings,
    out: Path,
    private: Path,
    perturbation: Path,
    anew: bool,
    work: Path | None = None,
) -> Parts:
    """Upper bound of the bytes that a run still needs, beside the files that an earlier run left.

    perturbation: path of the finished one; if it exists the attack writes nothing more. anew: whether all of `out` is
    deleted first. work: folder of the state that the attack keeps; by default that of `protect`.
    """
    pictures = publish.room(source, out, settings.format, anew)
    parts = {out: {"pictures": max(pictures - taken(out), 0) if anew else pictures}, private: dict[str, int]()}
    if not perturbation.exists():
        side, classes, budget = settings.canvas, len(source.classes), settings.limit
        shape = source.channels, side, side
        count, grid = len(source.usable), settings.cells or side
        keys = settings.trace.keys if settings.trace else 1
        by_class = getattr(method, "per", "") == "class" and (keys == 1 or settings.alone)
        rows = classes * keys if by_class else count
        kept_bytes = getattr(method, "kept_bytes", None)
        state = kept_bytes(count, shape, classes, settings.processes) if kept_bytes else 0
        finished = rows * shape[0] * grid**2 * budget.kind.itemsize
        marked = count * prod(shape) if settings.trace and not settings.alone else 0
        at_work = deltas(method, count, shape, classes, settings.processes)
        parts[private] = {
            "perturbation": finished + 8 * count,
            "canvas": max(data.cached(source, side) - taken(private / "canvas"), 0),
            "checkpoints": max(state - taken(work or private / "checkpoint"), 0),
            "deltas beyond the memory": at_work + finished + marked,
        }
    parts[private]["manifest and margin"] = LINES * len(source.entries) + MARGIN
    return parts


def deltas(method: Any, count: int, shape: tuple[int, int, int], classes: int, processes: int) -> int:
    """Bytes of the deltas that an attack works on, in memory, or in files if they do not fit."""
    sizes = getattr(method, "delta_bytes", None)
    return sum(sizes(count, shape, classes, processes)) if sizes else 0


def check(parts: Parts) -> None:
    """Raise UserError if a disk has less free space than is needed."""
    disks: dict[int, list[Path]] = {}
    for folder in parts:
        disks.setdefault(_device(folder), []).append(folder)
    for folders in disks.values():
        sizes = {name: size for folder in folders for name, size in parts[folder].items() if size}
        need, free = sum(sizes.values()), shutil.disk_usage(existing(folders[0])).free
        if free < need:
            text = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
            raise UserError(
                f"{' and '.join(data.readable(str(folder)) for folder in folders)}: about {need:,} bytes are needed "
                f"there ({text}), {free:,} are free; make room, or choose an output on another disk"
            )


def taken(folder: Path) -> int:
    """Total bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def existing(path: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    return next(p for p in (path, *path.resolve().parents) if p.exists())


def _device(folder: Path) -> int:
    """Number of the disk of a folder, which need not exist yet."""
    return existing(folder).stat().st_dev
