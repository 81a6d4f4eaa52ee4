"""Pictures of a set as small PNG files for people, read from an output and, where that is wanted, from its source."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from miue.core.errors import UserError
from miue.data.folder import private_of
from miue.data.picture import Picture, Rules, Unfit, decode, quiet
from miue.data.scan import open_store
from miue.data.source import Store, sha256
from miue.publish.manifest import Line, Plan
from miue.publish.preview import AMPLIFIED, rgb
from miue.publish.verify import PUBLISHED, reader

SIDE = 256  # longest side of a picture that is shown
Origin = tuple[str, str | None]
"""Location and split of a source."""


@dataclass(frozen=True)
class Originals:
    """The clean pictures of a manifest, each opened when it is asked for."""

    store: Store
    rules: Rules
    added: Sequence[Origin] = ()
    """Where the pictures of every later part lay when they were added."""

    @classmethod
    def of(cls, clean: str | Path, split: str | None, rules: Rules, added: Sequence[Origin] = ()) -> Originals:
        """Open a source. Raises UserError if it is no data set."""
        return cls(open_store(str(clean), split), rules, added)

    def picture(self, line: Line) -> Picture:
        """The original of a line. Raises UserError if it is missing, or is not the picture that was protected."""
        store, place = self._later(line) if line.part else self._first(line)
        try:
            picture = decode(store.get(place), self.rules)
        except (Unfit, OSError) as error:
            raise UserError(f"{store.location}: {line.path} cannot be read ({error})") from None
        if picture.digest != line.pixels:
            raise UserError(f"{store.location}: {line.path} is not the picture that was protected")
        return picture

    def _first(self, line: Line) -> tuple[Store, int]:
        place = self._paths.get(line.path)
        if place is None:
            raise UserError(f"{self.store.location}: holds no {line.path}; give the pictures that were protected")
        return self.store, place

    def _later(self, line: Line) -> tuple[Store, int]:
        """The place of a picture that was added. Its path may have been another there, so its bytes count."""
        if (place := self._paths.get(line.path)) is not None and _sha256(self.store, place) == line.sha256:
            return self.store, place
        known = self._elsewhere.get(line.sha256) or self._own.get(line.sha256)
        if known is None:
            location, _ = self.added[line.part - 1]
            raise UserError(
                f"{self.store.location}: holds no original of {line.out}, nor does {location}, from where it was added "
                "(it is gone, or has changed); bring it back, or put all originals into one folder and give that"
            )
        return known

    @cached_property
    def _paths(self) -> dict[str, int]:
        return {item.path: place for place, item in enumerate(self.store.items)}

    @cached_property
    def _elsewhere(self) -> dict[str, tuple[Store, int]]:
        """Items of the folders that pictures were added from, by the digest of their bytes."""
        stores = []
        for location, split in dict.fromkeys(self.added):
            try:
                stores.append(open_store(location, split))
            except UserError:  # moved, or empty by now: what is missing then is told with its name
                continue
        return _by_digest(*stores)

    @cached_property
    def _own(self) -> dict[str, tuple[Store, int]]:
        return _by_digest(self.store)


def _by_digest(*stores: Store) -> dict[str, tuple[Store, int]]:
    every = ((store, place) for store in stores for place, item in enumerate(store.items) if not item.skip)
    return {sha: (store, place) for store, place in every if (sha := _sha256(store, place))}


def _sha256(store: Store, place: int) -> str:
    """Digest of the stored bytes; empty if they cannot be read."""
    try:
        return sha256(store.seen(place)[0])
    except OSError:
        return ""


@dataclass(frozen=True)
class Shown:
    """A protected picture, and its original and their difference where originals were given: PNG files."""

    line: Line
    after: bytes
    before: bytes | None
    change: bytes | None
    """Grey where nothing changed, and the difference ten times amplified."""


def shown(out: Path, lines: Sequence[Line], originals: Originals | None = None) -> list[Shown]:
    """The pictures of these lines of a manifest.

    Raises UserError if one cannot be read or is not what was written: `verify` then says more.
    """
    plan = Plan.of(private_of(out))
    if plan is None:
        raise UserError(f"{out}: no plan beside it; only an output of miue has one")
    get, results = reader(out, plan), []
    with quiet():
        for line in lines:
            try:
                after = decode(get(line.out), PUBLISHED)
            except (Unfit, OSError, IndexError):
                raise UserError(f"{out}: {line.out} is missing or cannot be read; miue verify says more") from None
            if after.digest != line.out_pixels:
                raise UserError(f"{out}: {line.out} is not the picture that was written; miue verify says more")
            before = originals.picture(line) if originals else None
            change = None
            if before is not None:
                levels = AMPLIFIED * (rgb(after.pixels).astype(int) - rgb(before.pixels))
                change = _png(np.clip(127 + levels, 0, 255).astype(np.uint8))
            results.append(Shown(line, _png(after.pixels), _png(before.pixels) if before else None, change))
    return results


def _png(pixels: np.ndarray) -> bytes:
    image, file = Image.fromarray(rgb(pixels)), io.BytesIO()
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
