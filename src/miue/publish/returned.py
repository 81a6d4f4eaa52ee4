"""A look at files from a web site, a browser or a hub: every file found again, and what is left of its protection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np

from miue.core.errors import UserError
from miue.core.files import Record
from miue.core.progress import readable
from miue.core.run import Run
from miue.core.types import Perturbation
from miue.data.folder import NOTICE, begun
from miue.data.formats import heif, reader, signed
from miue.data.picture import Picture, Unfit, decode, quiet
from miue.data.scan import open_store
from miue.data.source import TABLES, Payload, ahead
from miue.publish.channels import channel_of, nearest, scaled
from miue.publish.known import Known
from miue.publish.left import Left, Pair, left
from miue.publish.output import files_in
from miue.publish.placing import Place, placed
from miue.publish.shown import Originals
from miue.publish.verify import PUBLISHED, unreserved

Status = Literal["identical", "recoded", "resized", "cropped", "not found", "no picture"]
WHOLE = 0.9  # share of the noise from which a picture counts as protected as it was published
CLEAN = 0.25  # share of the noise below which a picture counts as a clean copy
TRIALS = 12  # pictures whose channel is found by trying


class Returned(Record):
    """One file that came back."""

    path: str
    status: Status
    original: str = ""
    """Path of the published picture that it is, or whose name it has if it cannot be read."""
    by: Literal["", "name", "picture"] = ""
    """The way in which it was found."""
    width: int = 0
    height: int = 0
    form: str = ""
    left: Left | None = None
    """The rest of the noise; None where that cannot be told."""
    exact: bool = False
    """True if its pixels are those of a picture as it was before the protection."""
    metadata: Literal["", "kept", "changed", "gone"] = ""
    """Colour profile and texts of the published file; empty if it had none."""
    rights: Literal["", "kept", "gone"] = ""
    """A reservation of rights in the published file; empty if it had none."""
    lost: str = ""
    """The reservation that is missing here, in words; empty if it was kept or there was none."""
    credentials: Literal["", "kept", "gone"] = ""
    """Content credentials of the published file; they hold for the same bytes alone. Empty if it had none."""
    channel: str = ""
    reason: str = ""

    @property
    def found(self) -> bool:
        """True if it shows a picture of the set."""
        return bool(self.original) and self.status != "no picture"

    @property
    def share(self) -> float | None:
        """Share of the noise that is left; None where that is not known."""
        return None if self.left is None else self.left.share

    @property
    def clean(self) -> bool:
        """True if it shows a picture of the set (nearly) without its noise."""
        return self.exact or (self.share is not None and self.share < CLEAN)

    @property
    def protected(self) -> bool:
        """True if it is as protected as it was published, or is something else than a picture of the set."""
        if self.status == "no picture":
            return not self.original
        return self.share is not None and self.share >= WHOLE and not self.exact

    @property
    def ok(self) -> bool:
        """True if it is protected, reserves and is signed as it was published, or is no picture at all."""
        return self.protected and self.rights != "gone" and self.credentials != "gone"


class Comeback(Record):
    """All files that came back."""

    files: Sequence[Returned]
    missing: int
    """Published pictures that did not come back."""
    channel: str = ""
    """The channel that most changed files look like; empty if none is known."""
    alike: int = 0
    """Number of files that look like it."""

    @property
    def ok(self) -> bool:
        """True if pictures of the set were found, and all of them are as they were published."""
        return any(each.found for each in self.files) and all(each.ok for each in self.files)

    @property
    def changed(self) -> int:
        """Number of files that show a picture of the set with other pixels than were published."""
        return sum(each.found and each.share != 1 for each in self.files)

    @property
    def counts(self) -> Mapping[str, int]:
        """Files by status."""
        return Counter(each.status for each in self.files)

    @property
    def share(self) -> float | None:
        """Mean share of the noise that is left, over files for which it is known."""
        shares = [each.share for each in self.files if each.share is not None]
        return fmean(shares) if shares else None


@dataclass(frozen=True)
class Look:
    """Finds files again among the published pictures, and measures them.

    perturbations: one for the first pictures and one for every part that was added; empty if originals are given.
    """

    known: Known
    perturbations: Sequence[Perturbation]
    originals: Originals | None = None
    by_name: bool = True

    def at(self, folder: Path, run: Run) -> Comeback:
        """Look at a file, every file of a folder, or every row of a table. Raises UserError if there is none."""
        items = list(_items(folder))
        with quiet():
            files = []
            with run.progress("looking", len(items)) as tick:
                for each in ahead(lambda item: self._file(*item), items):
                    files.append(each)
                    tick()
            for at in [at for at, each in enumerate(files) if _unexplained(each)][:TRIALS]:
                files[at] = files[at].model_copy(update={"channel": self._tried(files[at], items[at][1])})
        if not files:
            raise UserError(f"{folder}: holds no files")
        originals = {each.original for each in files if each.found}
        channels = Counter(each.channel for each in files if each.channel)
        channel, alike = next(iter(channels.most_common(1)), ("", 0))
        return Comeback(
            files=files,
            missing=sum(line.out not in originals for line in self.known.lines),
            channel=channel,
            alike=alike,
        )

    def _file(self, path: str, get: Callable[[], Payload]) -> Returned:
        try:
            payload = get()
            picture = decode(payload, PUBLISHED)
        except (Unfit, OSError) as error:
            row = self.known.named(path)
            name = "" if row is None else self.known.lines[row].out
            reason = str(getattr(error, "reason", error))
            return Returned(path=path, status="no picture", original=name, by="name" if name else "", reason=reason)
        width, height = picture.size
        base = Returned(path=path, status="not found", width=width, height=height, form=_form(payload))
        if original := self.known.clean.get(picture.digest):
            return base.model_copy(update={"status": "recoded", "original": original, "by": "picture", "exact": True})
        match = self._match(path, picture)
        if match is None:
            return base
        row, place, by = match
        return self._measured(base, row, place, by, picture, payload)

    def _match(self, path: str, picture: Picture) -> tuple[int, Place, Literal["name", "picture"]] | None:
        row = self.known.named(path) if self.by_name else None
        published = None if row is None else self.known.picture(row)
        if row is not None and published is not None and (place := placed(published.pixels, picture.pixels, True)):
            return row, place, "name"
        shown = self.known.shown(picture)
        return None if shown is None else (*shown, "picture")

    def _measured(
        self, base: Returned, row: int, place: Place, by: str, picture: Picture, payload: Payload
    ) -> Returned:
        line, published = self.known.lines[row], self.known.picture(row)
        assert published is not None  # it was compared before
        rights = _rights(published, picture)
        stored, same = self.known.get(line.out), picture.digest == line.out_pixels
        status = "cropped" if not place.whole else "resized" if place.scale != 1 else "recoded"
        values = {
            "status": "identical" if same and _equal(stored, payload) else status,
            "original": line.out,
            "by": by,
            "left": Left(share=1.0, correlation=1.0) if same else self._left(row, published, picture, place),
            "metadata": _metadata(published, picture),
            "rights": rights,
            "lost": unreserved(picture.meta.reserved, published.meta.reserved) if rights == "gone" else "",
            "credentials": _credentials(stored, payload),
            "channel": "" if same else channel_of(payload, place),
        }
        return base.model_copy(update=values)

    def _left(self, row: int, published: Picture, picture: Picture, place: Place) -> Left | None:
        line = self.known.lines[row]
        if self.originals is not None:
            clean = self.originals.picture(line)
            return left(Pair(published.pixels, np.moveaxis(published.minus(clean), 0, 2)), picture.pixels, place)
        if not self.perturbations:
            return None
        delta = self.perturbations[line.part].at(self._rows[row], line.height, line.width).numpy()
        return left(Pair.of(published.pixels, np.moveaxis(delta, 0, 2).astype(np.int16)), picture.pixels, place)

    @cached_property
    def _rows(self) -> list[int]:
        """The row of every published picture in the perturbation of its part."""
        count = Counter[int]()
        rows = []
        for line in self.known.lines:
            rows.append(count[line.part])
            count[line.part] += 1
        return rows

    def _tried(self, each: Returned, get: Callable[[], Payload]) -> str:
        """The channel of a recoded or scaled file that does not say how it was encoded, found by trying."""
        row = next(row for row, line in enumerate(self.known.lines) if line.out == each.original)
        published, back = self.known.picture(row), decode(get(), PUBLISHED).pixels
        if published is None or published.pixels.shape[2] != back.shape[2]:
            return each.channel
        encoded = nearest(scaled(published.pixels, (each.width, each.height)), back)
        return "+".join(filter(None, (each.channel, encoded)))


def _unexplained(each: Returned) -> bool:
    """True if a file is whole, has other pixels than were published, and does not say how it was encoded."""
    return each.status in ("recoded", "resized") and not each.exact and each.share != 1 and "jpeg" not in each.channel


def _items(folder: Path) -> Iterator[tuple[str, Callable[[], Payload]]]:
    """Names of a file, of the files of a folder, or of the rows of a table, each with a function that reads it."""
    if folder.is_file() and folder.suffix not in TABLES:
        yield readable(folder.name), lambda: begun(folder)[0]
        return
    if folder.is_dir() and not any(path.suffix in TABLES for path in files_in(folder)):
        for path in files_in(folder):
            if path.name != NOTICE and not path.is_symlink():
                yield readable(path.relative_to(folder).as_posix()), lambda path=path: begun(path)[0]
        return
    store = open_store(folder)
    for place, item in enumerate(store.items):
        yield item.path, lambda place=place: store.get(place)


def _equal(stored: Payload, payload: Payload) -> bool:
    if isinstance(stored, bytes) and isinstance(payload, bytes):
        return stored == payload
    return np.array_equal(np.asarray(stored), np.asarray(payload))


def _metadata(published: Picture, picture: Picture) -> Literal["", "kept", "changed", "gone"]:
    before, after = (part.meta for part in (published, picture))
    if not (before.icc or before.exif):
        return ""
    if (before.icc, before.exif) == (after.icc, after.exif):
        return "kept"
    return "changed" if after.icc or after.exif else "gone"


def _rights(published: Picture, picture: Picture) -> Literal["", "kept", "gone"]:
    if not published.meta.reserved:
        return ""
    return "kept" if picture.meta.reserved == published.meta.reserved else "gone"


def _credentials(stored: Payload, payload: Payload) -> Literal["", "kept", "gone"]:
    if not isinstance(stored, bytes) or not signed(stored):
        return ""
    return "kept" if _equal(stored, payload) else "gone"


def _form(payload: Payload) -> str:
    return "array" if not isinstance(payload, bytes) else heif(payload) or reader(payload)
