"""What all benchmarks share: the data, where it lies, and how a record is written."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import miue
from miue.core.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
# set, because plans of grids name the variables
CIFAR = Path(os.environ.setdefault("MIUE_CIFAR10", str(ROOT.parent / "shared" / "data" / "cifar10-jpeg")))
IMAGENETTE = Path(os.environ.setdefault("MIUE_IMAGENETTE", str(ROOT.parent / "shared" / "data" / "imagenette")))

CORRECTED = {"sep": "2026-11-26", "gue": "2026-11-26", "tue:contrastive": "2026-11-26", "mi-ue:official": "2026-11-26"}
"""Attacks whose computation was corrected, with the day: what was measured before is another attack's."""


def outdated(attack: str, day: str) -> bool:
    """Whether an attack was measured before its correction."""
    return any(attack.startswith(name) and day < since for name, since in CORRECTED.items())


def cifar10(split: str, per_class: int | None = None) -> miue.ImageSet:
    """CIFAR-10 as JPEG in parquet: all of a split, or the first pictures of every class."""
    if not CIFAR.is_dir():
        raise SystemExit(f"{CIFAR}: no CIFAR-10 parquet files here; set MIUE_CIFAR10 to their folder")
    whole = miue.data.read(miue.data.scan(str(CIFAR / f"{split}.parquet")))
    return whole if per_class is None else whole.first_per_class(per_class)


def head() -> str:
    """The commit that is checked out."""
    asked = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    return asked.stdout.strip()


def record(name: str, run: miue.Run, **facts: Any) -> Path:
    """Write benchmarks/results/<name>.json: the facts, the commit, the machine and the day."""
    body = {"name": name, "commit": head(), "day": time.strftime("%Y-%m-%d"), "machine": run.machine}
    path = RESULTS / f"{name}.json"
    write_atomically(path, json.dumps(body | facts, indent=1).encode())
    return path
