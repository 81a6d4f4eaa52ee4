"""Questions for suspects: written as files with a table, found again, and compared with what was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from miue import data, publish
from miue.core.errors import UserError
from miue.core.files import digest, write_atomically
from miue.core.types import ImageSet
from miue.data.formats import chunks
from miue.trace import Asked, Questions
from miue.trace.judge import now
from miue.trace.questions import chosen, digest_of_all
from miue.workflows.record import RunRecord
from miue.workflows.standing import Place, place_of

PARTS = ("part-1", "part-2")
TABLE, LIST = "questions.csv", "questions.json"


class Altered(UserError):
    """Questions that are not those of their list."""


def questions(
    out: str | Path,
    to: str | Path,
    base: str | Path,
    *,
    count: int = 1000,
    size: int | None = None,
    amplitude: int = 16,
    seed: int = 0,
    split: str | None = None,
) -> Asked:
    """Write a list of questions for suspects: lossless pictures and a table. It contains no secret.

    The list is stated in the private folder, with the time, before anybody is asked. out: a set with a trace. to: a new
    folder. base: clean pictures that were never published. size: side of the questions; None: the set's canvas.
    amplitude: grey levels of the random fields. seed: a public number. Raises UserError.
    """
    out, to = Path(out), Path(to)
    place, record = place_of(out), RunRecord.of(out)
    publish.refuse_existing(to, "another folder")
    content = content_of(
        out, place, base, record.settings.canvas if size is None else size, count, amplitude, seed, split
    )
    shown = torch.cat(list(content.batches()))
    asked = content.asked.model_copy(update={"declared": now(), "pictures": digest_of_all(shown)})
    names = _names(count)
    labels = torch.tensor([2 * i // count for i in range(count)])
    asked.save(place.folder / "questions" / f"{_key(asked)}.json")  # first, so that no list is asked that is not stated
    publish.export(ImageSet(shown, labels, PARTS, "questions", names), to, fast=True)
    write_atomically(to / TABLE, _table(count))
    asked.save(to / LIST)
    return asked


def _names(count: int) -> tuple[str, ...]:
    """The files of questions in order: in two folders, because a set of one class is refused when it is read."""
    return tuple(f"{PARTS[2 * i // count]}/{i:0{len(str(count - 1))}d}.png" for i in range(count))


def _table(count: int) -> bytes:
    return "".join(["question,file\n", *(f"{i},{name}\n" for i, name in enumerate(_names(count)))]).encode()


def content_of(
    out: Path, place: Place, base: str | Path, size: int, count: int, amplitude: int, seed: int, split: str | None
) -> Questions:
    """The questions of these settings, not yet written. Raises UserError."""
    pictures = _base(out, base, size, count, split)
    return Questions.of(place.secret.parameters, pictures, count, amplitude, seed)


def _key(asked: Asked) -> str:
    """Digest of a list of questions; the time is no part of it."""
    return digest(sorted(asked.model_dump(exclude={"declared"}).items()))


def _base(out: Path, base: str | Path, side: int, count: int, split: str | None) -> ImageSet:
    """Clean pictures for questions, no more than are needed. Raises UserError if one was published."""
    data.check_canvas(side)
    source = data.scan(str(base), split=split, drop_columns=["*"], canvas=0)
    _, lines = publish.finished(data.private_of(out))
    published = {pixels for line in lines for pixels in (line.pixels, line.out_pixels) if pixels}
    if taken := [entry.path for entry in source.usable if entry.pixels in published]:
        raise UserError(
            f"{base}: {len(taken)} of its pictures are among the published ones, such as {taken[0]}; give pictures "
            "that were never published"
        )
    rows = {source.rows[i] for i in chosen([entry.pixels for entry in source.usable], 2 * count)}
    entries = (e if i in rows else replace(e, status="skipped") for i, e in enumerate(source.entries))
    return data.read(replace(source, entries=tuple(entries)), side, grey=False)


def asked_of(place: Place, folder: Path | None) -> Asked:
    """The list of questions that was asked. Raises UserError if it was not stated before, or if there are several."""
    lists = place.lists
    if not lists:
        raise UserError(
            "no questions were made for this set; `miue trace questions` makes them, before anybody is asked"
        )
    if folder is not None:
        asked = Asked.load(folder / LIST, "make the questions anew")
        if _key(asked) not in map(_key, lists):
            raise UserError(
                f"{folder}: these questions were not made for this set; a list is stated before it is asked"
            )
        return asked
    if len(lists) > 1:
        counts = ", ".join(f"{asked.count} of {asked.declared}" for asked in lists)
        raise UserError(f"several lists of questions were made ({counts}); say with --questions which was asked")
    return lists[0]


def pictures_of(folder: Path, asked: Asked) -> UInt8[Tensor, "q c h w"]:
    """The pictures of a list. Raises UserError if they are not those that were written."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of questions")
    source = data.scan(str(folder), drop_columns=["*"], canvas=asked.size)
    why = _strange(folder, source, asked)
    pictures = data.read(source, asked.size, grey=False).images
    if why := why or asked.wrong(pictures):
        raise Altered(f"{folder}: {why}; bring them back from a copy, or make the questions anew")
    return pictures


def _strange(folder: Path, source: data.Source, asked: Asked) -> str:
    """The reason why files are not as they were written: other names, more than pixels. Empty if they are."""
    table = folder / TABLE
    if not table.is_file() or table.read_bytes() != _table(asked.count):
        return f"{TABLE} is missing, or it numbers the files in another way"
    if tuple(entry.path for entry in source.usable) != _names(asked.count):
        return "the files have other names"
    for entry in source.usable:
        if (entry.mode, entry.width, entry.height) != ("RGB", asked.size, asked.size):
            return f"{entry.path} is {entry.width} x {entry.height}, {entry.mode}"
        if chunks((folder / entry.path).read_bytes()) != {b"IHDR", b"IDAT", b"IEND"}:
            return f"{entry.path} is no PNG file with pixels alone"
    return ""
