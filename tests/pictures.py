"""Small folders of pictures for the tests of jobs, the command line and documents."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": 2, "green": 1, "red": 0}


def coloured(root: Path, per_class: int = 4, size: int = 8, seed: int = 0) -> Path:
    """Three classes that differ in colour, on noise: a tiny network learns them in a few epochs."""
    rng = np.random.default_rng(seed)
    for name, channel in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 128, (size, size, 3), dtype=np.uint8)
            pixels[..., channel] += 127
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def listed(root: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*"))
