"""The workflows `verify` and `preview`: check an output, and show it beside its clean source."""

from __future__ import annotations

from pathlib import Path

from miue import publish
from miue.publish import Finding
from miue.workflows.originals import originals


def verify(out: str | Path, clean: str | Path | None = None, *, split: str | None = None) -> list[Finding]:
    """Check every protected picture and every file of an output; return one finding for each.

    clean: the source; if given, the budget is measured again. split: the part of the source. Raises UserError if there
    is no finished manifest.
    """
    out = Path(out)
    return publish.verify(out, originals(out, str(clean), split) if clean is not None else None)


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
