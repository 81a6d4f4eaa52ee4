"""The pictures of an output, to find one again by its name or by what it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8, UInt64
from PIL import Image

from miue.data.folder import private_of
from miue.data.picture import Picture, Unfit, decode
from miue.data.source import Payload, ahead
from miue.publish.manifest import Line, finished
from miue.publish.placing import Place, correlation, light, placed
from miue.publish.verify import PUBLISHED, reader

SIDE = 16  # of the small pictures that are compared before whole ones
NEAR = 14  # of 64 bits in which hashes of one picture may differ
FEW = 8  # pictures that are compared in full
CROPS = (1.0, 0.9, 0.8)  # shares of the side of middle parts whose hashes are kept


@dataclass(frozen=True)
class Known:
    """The published pictures of an output and their lines."""

    lines: Sequence[Line]
    get: Callable[[str], Payload]

    @classmethod
    def of(cls, out: Path) -> Known:
        """Read the manifest beside an output. Raises UserError if it is missing or damaged."""
        plan, lines = finished(private_of(out))
        return cls([line for line in lines if line.status == "protected"], reader(out, plan))

    def picture(self, row: int) -> Picture | None:
        """A published picture; None if its file is missing or cannot be read."""
        try:
            return decode(self.get(self.lines[row].out), PUBLISHED)
        except (Unfit, OSError, IndexError):
            return None

    def named(self, path: str) -> int | None:
        """The row of the picture with this path, or with this name if only one has it; extensions do not count."""
        return self._paths.get(_stem(path), self._names.get(PurePosixPath(_stem(path)).name))

    @cached_property
    def clean(self) -> dict[str, str]:
        """Published paths by the digest of their originals' pixels."""
        return {line.pixels: line.out for line in reversed(self.lines)}

    @cached_property
    def _paths(self) -> dict[str, int]:
        return {_stem(line.out): row for row, line in enumerate(self.lines)}

    @cached_property
    def _names(self) -> dict[str, int]:
        names = [PurePosixPath(path).name for path in self._paths]
        counts = Counter(names)
        return {name: row for row, name in enumerate(names) if counts[name] == 1}

    def shown(self, picture: Picture) -> tuple[int, Place] | None:
        """The row of the picture that this one shows, and where it lies in it; None if there is none.

        By a perceptual hash of the whole and of middle parts, then by small pictures, then by whole ones.
        """
        code, small = _hash(picture.pixels), _small(picture.pixels)
        distance = np.bitwise_count(self._hashes.codes ^ code).min(1)
        rows = np.argsort(distance, kind="stable")[:64]
        rows = [int(row) for row in rows if distance[row] <= NEAR]
        rows.sort(key=lambda row: -correlation(self._hashes.small[row], small))
        best: tuple[float, int, Place] | None = None
        for row in rows[:FEW]:
            published = self.picture(row)
            if published is None or (place := placed(published.pixels, picture.pixels)) is None:
                continue
            likeness = correlation(place(light(published.pixels)[..., None])[..., 0], light(picture.pixels))
            if best is None or likeness > best[0]:
                best = likeness, row, place
        return None if best is None else best[1:]

    @cached_property
    def _hashes(self) -> _Hashes:
        """Hashes and small pictures of all, computed when the first picture is looked for by what it shows."""
        codes = np.zeros((len(self.lines), len(CROPS) + 1), dtype=np.uint64)
        small = np.zeros((len(self.lines), SIDE, SIDE), dtype=np.uint8)
        rows = range(len(self.lines))
        for row, picture in zip(rows, ahead(self.picture, rows, lambda row: self._area(row)), strict=True):
            if picture is not None:
                codes[row] = [_hash(part) for part in _parts(picture.pixels)]
                small[row] = _small(picture.pixels)
        return _Hashes(codes, small)

    def _area(self, row: int) -> int:
        return self.lines[row].width * self.lines[row].height


@dataclass(frozen=True)
class _Hashes:
    codes: UInt64[np.ndarray, "n k"]
    small: UInt8[np.ndarray, "n s s"]


def _stem(path: str) -> str:
    """A path without the extension of a picture; "row 17" is unchanged."""
    return str(PurePosixPath(path).with_suffix("")) if PurePosixPath(path).suffix else path


def _parts(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The whole picture, its middle at several sizes, and the square in its middle."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    sizes = [(int(height * share), int(width * share)) for share in CROPS]
    for h, w in (*sizes, (side, side)):
        top, left = (height - h) // 2, (width - w) // 2
        yield pixels[top : top + h, left : left + w]


def _hash(pixels: np.ndarray) -> np.uint64:
    """The perceptual hash of 64 bits: signs of low frequencies against their median (imagehash's phash)."""
    import imagehash  # here: only pictures without their names need it

    bits = imagehash.phash(_grey(pixels)).hash
    return np.packbits(bits.ravel()).view(np.uint64)[0]


def _small(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(_grey(pixels).resize((SIDE, SIDE), Image.Resampling.BOX))


def _grey(pixels: np.ndarray) -> Image.Image:
    pixels = np.ascontiguousarray(pixels)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("L")
