"""Small data sets for the tests of miue.data."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from miue.core.types import Budget, Perturbation


def pixels(seed: int = 0, width: int = 12, height: int = 10, mode: str = "RGB") -> Image.Image:
    """A picture of random values in a mode."""
    rng = np.random.default_rng(seed)
    channels = len(mode) if mode in ("L", "LA", "RGB", "RGBA", "CMYK") else 1
    array = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    if mode == "1":
        return Image.fromarray(array[..., 0]).convert("1")
    if mode == "P":
        return Image.fromarray(array.repeat(3, 2)).convert("P", palette=Image.Palette.ADAPTIVE)
    if mode == "CMYK":
        return Image.frombytes("CMYK", (width, height), array.tobytes())
    return Image.fromarray(array[..., 0] if channels == 1 else array)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def put(root: Path, name: str, content: bytes | Image.Image | None = None, seed: int | None = None) -> Path:
    """Write a file; without content, a random PNG that depends on the name."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        content = pixels(int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8], 16))
    path.write_bytes(content if isinstance(content, bytes) else encoded(content))
    return path


def folder(root: Path, *names: str, count: int = 2) -> Path:
    """Two classes of `count` pictures each, and more files."""
    for name in (*(f"{c}/{i}.png" for c in ("cat", "dog") for i in range(count)), *names):
        put(root, name)
    return root


def noise(n: int, grid: int = 8, eps: int = 8, channels: int = 3, seed: int = 0) -> Perturbation:
    """Random noise that uses its whole budget."""
    rng = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, (n, channels, grid, grid), generator=rng) * 2.0 - 1
    return Perturbation.rounded(sign * eps / 255, Budget(float(eps)), "noise")


def tree(root: Path) -> dict[str, str]:
    """Hash of every file below a folder."""
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
