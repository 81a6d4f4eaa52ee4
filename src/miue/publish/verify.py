"""Check an output against its manifest: all pictures are protected, and there are no other files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path

import torch
from PIL import ExifTags, Image

from miue.core.errors import UserError
from miue.core.files import part_of
from miue.core.progress import readable
from miue.core.types import Budget
from miue.data.arrays import open_npz
from miue.data.folder import NOTICE, begun, private_of
from miue.data.formats import bare, followed, lossless, signed
from miue.data.picture import ANY_SIZE, Picture, Rules, Unfit, decode, quiet
from miue.data.read import clean_picture
from miue.data.source import FILES, Payload, Source, sha256
from miue.data.tables import open_parquet
from miue.publish.manifest import Line, Plan, finished
from miue.publish.output import files_in

THUMBNAIL = b"c2pa.thumbnail"  # begins the label of a preview in content credentials
PUBLISHED = Rules(max_pixels=ANY_SIZE, frames="first")


@dataclass(frozen=True)
class Finding:
    """The result for one checked file or row."""

    path: str
    problem: str = ""
    """Empty if the file or row is correct."""
    rights: str = ""
    """Its statement on data mining, as a key of the PLUS vocabulary; empty if nothing."""
    signed: bool = False
    """True if it has content credentials (C2PA) in it."""

    @property
    def ok(self) -> bool:
        return not self.problem


def verify(out: Path, clean: Source | None = None) -> list[Finding]:
    """One finding for every protected picture and for every file that should not be there.

    clean: the scanned original set, to measure the budget again. Raises UserError if there is no finished manifest.
    """
    plan, lines = finished(private_of(out))
    known = {line.pixels: line.path for line in lines if line.pixels}
    originals = _Originals(clean, plan.budget) if clean is not None else None
    with quiet():
        findings = list(_pictures(out, plan, lines, known, originals))
        if not (out / NOTICE).is_file():
            findings.append(Finding(NOTICE, "is missing: nobody who receives the set is told what it is"))
        return findings + list(_others(out, plan, lines, known))


def _pictures(
    out: Path, plan: Plan, lines: list[Line], known: dict[str, str], originals: _Originals | None
) -> Iterator[Finding]:
    get = reader(out, plan)
    for line in lines:
        if line.status == "protected":
            try:
                payload = get(line.out)
                has = isinstance(payload, bytes) and signed(payload)
                yield Finding(line.out, *_problem(payload, line, known, originals), has)
            except (OSError, IndexError):
                yield Finding(line.out, "is missing or cannot be read")


def reader(out: Path, plan: Plan) -> Callable[[str], Payload]:
    """A function from `out` of a line to its payload. It raises OSError or IndexError if there is none."""
    if plan.kind in FILES:
        return lambda name: (out / name).read_bytes()
    files = tuple(out / name for name in plan.files if name != NOTICE)
    try:
        store = open_parquet(out, files) if plan.kind == "parquet" else open_npz(files[0])
    except UserError as error:
        return partial(_unreadable, str(error))
    return lambda name: store.get(int(name.removeprefix("row ")))


def _unreadable(why: str, name: str) -> Payload:
    raise OSError(why)


def _problem(payload: Payload, line: Line, known: dict[str, str], originals: _Originals | None) -> tuple[str, str]:
    """The problem of a file, empty if there is none, and what it says of data mining."""
    try:
        picture = decode(payload, PUBLISHED)
    except Unfit as unfit:
        return unfit.reason, ""
    rights = picture.meta.reserved
    if problem := _wrong(payload, picture, line, known, originals):
        return problem, rights
    if rights != line.rights:
        return unreserved(rights, line.rights), rights
    if line.signed and sha256(payload) != line.out_sha256:
        gone = not isinstance(payload, bytes) or not signed(payload)
        return f"content credentials: {'missing' if gone else 'do not fit, the file was changed since'}", rights
    return "", rights


def unreserved(rights: str, expected: str) -> str:
    """The statement of a file on data mining, in words, where it should be another. Keys of the PLUS vocabulary."""
    return f"reservation: {rights or 'missing'} instead of {expected or 'none'}"


def _wrong(payload: Payload, picture: Picture, line: Line, known: dict[str, str], originals: _Originals | None) -> str:
    if isinstance(payload, bytes):
        if not lossless(payload):
            return "is not a lossless file (PNG or lossless WebP)"
        if followed(payload):
            return "has something behind the end of its picture"
        if not bare(payload) and _carries_another(payload):
            return "carries another picture inside (preview or frame)"
    if picture.digest in known:
        return f"shows the unprotected {known[picture.digest]}"
    if originals is not None and (problem := originals.compare(picture, line)):
        return problem
    return "" if picture.digest == line.out_pixels else "differs from the picture that was written"


def _carries_another(payload: bytes) -> bool:
    if THUMBNAIL in payload:
        return True
    with Image.open(BytesIO(payload)) as im:
        return bool(im.getexif().get_ifd(ExifTags.IFD.IFD1)) or getattr(im, "n_frames", 1) > 1


@dataclass(frozen=True)
class _Originals:
    """Clean pictures by path, to measure the budget again."""

    clean: Source
    budget: Budget

    @cached_property
    def rows(self) -> dict[str, int]:
        return {self.clean.entries[row].path: row for row in self.clean.rows}

    def compare(self, picture: Picture, line: Line) -> str:
        """The problem of a protected picture compared to its original; empty if there is none."""
        if line.path not in self.rows:
            return f"its original {line.path} is not in the clean set"
        original = clean_picture(self.clean, self.rows[line.path])
        if line.pixels and original.digest != line.pixels:
            return f"{line.path} of the clean set is another picture than the one that was protected"
        if original.size != picture.size:
            return "has another size than its original"
        change = torch.from_numpy(picture.minus(original))[None]
        if not self.budget.allows(change):
            return (
                f"leaves the budget: {float(self.budget.measure(change)):g} > {self.budget.eps:g} ({self.budget.norm})"
            )
        return "" if picture.same_alpha(original) else "has another alpha than its original"


def _others(out: Path, plan: Plan, lines: list[Line], known: dict[str, str]) -> Iterator[Finding]:
    in_files = plan.kind not in FILES
    ours = {NOTICE, *(plan.files if in_files else (line.out for line in lines))}
    planned = set(plan.files)
    halves = {part_of(out / name) for name in planned}
    for path in files_in(out):
        name = path.relative_to(out).as_posix()
        if name in ours:
            continue
        problem = "was not written by miue"
        if name in planned or path in halves:
            problem = "was written by a command that did not end; run that command once more"
        try:
            digest = decode(begun(path)[0], PUBLISHED).digest
            problem = f"shows the unprotected {known[digest]}" if digest in known else problem
        except (Unfit, OSError):
            pass
        yield Finding(readable(name), problem)
