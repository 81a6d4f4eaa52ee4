"""The embedded default set: ten shapes over random crops of photographs that ship with scikit-image and scikit-learn.

Nothing is downloaded. It can show protection. 8x8 digits cannot: a victim still reaches 97 % at 8 grey levels.
"""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from miue.core.errors import UserError
from miue.core.types import ImageSet

CLASSES = ("bar", "crescent", "cross", "disc", "half-disc", "ring", "square", "star", "three-dots", "triangle")
Grid = Float[np.ndarray, "s s"]


def draw(per_class: int = 400, size: int = 32, seed: int = 0, split: str = "train") -> ImageSet:
    """Draw `per_class` pictures of each of the ten shapes, size x size, RGB.

    Picture i of a class depends only on seed, split, class, i and size, so a larger `per_class` only adds pictures.
    Raises UserError if the size is below 8, there are no pictures, the seed is negative or the split is unknown.
    """
    if size < 8 or per_class < 1:
        raise UserError(
            f"shapes of size {size}, {per_class} per class: a size of at least 8 and one picture are needed"
        )
    if seed < 0:
        raise UserError(f"shapes with the seed {seed}: a seed is at least 0")
    if split not in ("train", "test"):
        raise UserError(f"there is no split {split!r} of shapes; splits there: train, test")
    labels = torch.arange(len(CLASSES)).repeat(per_class)
    images = torch.empty(len(labels), 3, size, size, dtype=torch.uint8)
    for row, label in enumerate(labels.tolist()):
        key = [seed, zlib.crc32(split.encode()), label, row // len(CLASSES), size]
        images[row] = torch.from_numpy(_picture(label, size, np.random.default_rng(key))).permute(2, 0, 1)
    sources = tuple(f"{CLASSES[label]}/{row // len(CLASSES):05d}.png" for row, label in enumerate(labels.tolist()))
    return ImageSet(images, labels, CLASSES, "shapes", sources)


def _picture(label: int, size: int, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """One shape with random colour, texture, size, position and rotation over a random crop."""
    ground = _crop(size, rng)
    mask = _mask(CLASSES[label], size, rng)[..., None]
    colour = rng.uniform(0, 255, 3)
    behind = (ground * mask).sum((0, 1)) / max(mask.sum(), 1e-6)
    if np.abs(colour - behind).mean() < 90:  # an invisible shape teaches nothing
        colour = np.where(behind > 127, behind - 110, behind + 110)
    paint = colour + rng.choice([0.0, 0.25, 0.5]) * (_crop(size, rng) - 127.5)
    mixed = ground * (1 - mask) + paint * mask
    return np.clip(np.rint(mixed + rng.normal(0, 3, mixed.shape)), 0, 255).astype(np.uint8)


def _crop(size: int, rng: np.random.Generator) -> Float[np.ndarray, "s s 3"]:
    """A random square of a random photograph, resized and perhaps mirrored."""
    photos = _photographs()
    photo = photos[rng.integers(len(photos))]
    side = int(min(photo.size) * rng.uniform(0.15, 0.5))
    x, y = (int(rng.integers(length - side + 1)) for length in photo.size)
    crop = np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR, (x, y, x + side, y + side)), float)
    return crop[:, ::-1] if rng.random() < 0.5 else crop


@cache
def _photographs() -> tuple[Image.Image, ...]:
    """The photographs, RGB, in a fixed order."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    arrays = [
        f() for f in (data.astronaut, data.chelsea, data.coffee, data.rocket, data.camera, data.brick, data.grass)
    ]
    return tuple(Image.fromarray(a).convert("RGB") for a in (*arrays, *load_sample_images().images))


def _mask(name: str, size: int, rng: np.random.Generator) -> Grid:
    """Share of each pixel that the shape covers, in [0,1], from 4 x 4 samples a pixel."""
    fine = 4 * size
    radius = rng.uniform(0.26, 0.44)
    x0, y0 = rng.uniform(radius, 1 - radius, 2)
    turn = rng.uniform(0, 2 * np.pi)
    axis = (np.arange(fine) + 0.5) / fine
    x, y = np.meshgrid((axis - x0) / radius, (axis - y0) / radius)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return _inside(name, u, v).reshape(size, 4, size, 4).mean((1, 3))


def _inside(name: str, u: Grid, v: Grid) -> Bool[np.ndarray, "s s"]:
    """True where points lie in the shape of circumradius 1 around the origin."""
    r = np.hypot(u, v)
    match name:
        case "disc":
            return r < 0.9
        case "ring":
            return (r < 1) & (r > 0.6)
        case "half-disc":
            return (r < 1) & (v > 0)
        case "crescent":
            return (r < 1) & (np.hypot(u - 0.5, v) > 0.8)
        case "square":
            return np.maximum(np.abs(u), np.abs(v)) < 0.74
        case "bar":
            return (np.abs(u) < 1) & (np.abs(v) < 0.26)
        case "cross":
            return (np.minimum(np.abs(u), np.abs(v)) < 0.24) & (np.maximum(np.abs(u), np.abs(v)) < 0.95)
        case "three-dots":
            angles = 2 * np.pi * np.arange(3) / 3
            return np.any([np.hypot(u - 0.62 * np.cos(a), v - 0.62 * np.sin(a)) < 0.36 for a in angles], axis=0)
        case "triangle":
            return _star(u, v, 3, 0.5)
        case _:
            return _star(u, v, 5, 0.42)


def _star(u: Grid, v: Grid, points: int, inner: float) -> Bool[np.ndarray, "s s"]:
    """A star with outer radius 1 and the given inner radius (cos(pi/points) makes it a regular polygon)."""
    half = np.pi / points
    angle = np.abs((np.arctan2(v, u) + half) % (2 * half) - half)
    a, b = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    # inside: on the inner side of the edge from (1, 0) to inner * (cos half, sin half)
    return (1 - a) * inner * np.sin(half) > b * (1 - inner * np.cos(half))
