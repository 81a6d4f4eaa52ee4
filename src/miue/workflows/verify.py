"""The workflows `verify`, `returned` and `preview`: check an output, what came back of it, and show it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from miue import data, publish
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Perturbation
from miue.publish import Comeback, Finding
from miue.trace import Secret
from miue.workflows.job import kept_at, perturbation_of
from miue.workflows.marking import secret_file
from miue.workflows.originals import opened, originals
from miue.workflows.record import RunRecord


def verify(out: str | Path, clean: str | Path | None = None, *, split: str | None = None) -> list[Finding]:
    """Check every protected picture and every file of an output; return one finding for each.

    clean: the source; if given, the budget is measured again. split: the part of the source. Raises UserError if there
    is no finished manifest.
    """
    out = Path(out)
    if not out.exists() and not data.private_of(out).exists():
        raise UserError(f"{out}: no such file or folder")
    findings = publish.verify(out, originals(out, str(clean), split) if clean is not None else None)
    return findings + list(_of_trace(out))


def _of_trace(out: Path) -> Iterator[Finding]:
    """Findings on the secret and its commitment, if the set has a trace."""
    record, path, text = RunRecord.of(out), secret_file(data.private_of(out)), out / publish.NOTICE
    if not record.commitment:
        return
    try:
        problem = "" if Secret.load(path).commitment == record.commitment else "is not the secret of this set"
    except UserError as error:
        problem = str(error).partition(": ")[2]
    if not problem and path.stat().st_mode & 0o077:
        problem = "can be read by others than its owner"
    yield Finding(data.readable(str(path)), problem)
    if text.is_file() and record.commitment not in text.read_text("utf-8", errors="replace"):
        yield Finding(publish.NOTICE, "does not state the commitment to the secret of this set")


def returned(
    folder: str | Path,
    out: str | Path,
    *,
    clean: str | Path | None = None,
    split: str | None = None,
    twins: bool = False,
    run: Run | None = None,
) -> Comeback:
    """Find the pictures of a folder again among those of an output, and measure what is left of their protection.

    folder: what came back from a web site, a browser or a hub: a file, a folder of files, or a table. out: the output
    as it was published. clean: the originals; without them they are what was published less the kept perturbation.
    split: their part. twins: `folder` is one in which clean copies may lie: names do not count. run: shows progress.
    Raises UserError.
    """
    out, folder = Path(out), Path(folder)
    if not folder.exists():
        raise UserError(f"{folder}: no such file or folder")
    record, known = RunRecord.of(out), publish.Known.of(out)
    if clean is not None:
        look = publish.Look(known, [], opened(record, clean, split), by_name=not twins)
    else:
        private, parts = data.private_of(out), max((line.part for line in known.lines), default=0)
        later = [perturbation_of(private, part.fingerprint) for part in record.added[:parts]]
        paths = [kept_at(private, record), *later]
        for path in paths:
            if not path.exists():
                raise UserError(f"{path}: is missing; without it, give the originals with --clean")
        look = publish.Look(known, [Perturbation.load(path) for path in paths], by_name=not twins)
    return look.at(folder, run or Run())


def preview(
    out: str | Path,
    clean: str | Path,
    to: str | Path = "preview.png",
    *,
    count: int = 8,
    split: str | None = None,
) -> Path:
    """Draw a few pictures: original above protected above the difference, ten times amplified. Keep it private.

    to: the PNG file to write; one that exists is not overwritten. Raises UserError.
    """
    out, to = Path(out), Path(to)
    publish.refuse_existing(to, "another file")
    return publish.preview(originals(out, str(clean), split), out, to, count)
