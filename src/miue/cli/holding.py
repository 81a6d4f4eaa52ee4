"""The verbs for what somebody holds after a protection: the files, checked, and a report on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miue.cli.codes import FAILED_CHECKS
from miue.cli.options import AsPublished, CleanTwins, Json, Out, PlanOf, Public, ReportFile, ReportForm, Shown, Split
from miue.core.errors import UserError


def verify(
    out: Annotated[Path, typer.Argument(help="The published folder; with --as-published what came back of it.")],
    clean: Annotated[str | None, typer.Option(help="The originals: the budget is then measured again.")] = None,
    as_published: AsPublished = None,
    clean_twins: CleanTwins = None,
    split: Split = None,
    json: Json = False,
) -> None:
    """Check the files of OUT: present, decodable, lossless, within budget, no thumbnail, no clean twin, nothing else.

    `miue verify DOWNLOADED --as-published OUT` looks at what came back from a web site, a browser or a hub: which
    picture each file is, whether it was recoded, resized or cropped, and how much of its noise is left.
    `miue verify OUT --clean-twins FOLDER` looks for copies without the noise, exact and near.
    Exit code 3 where something is wrong.
    """
    import miue
    from miue.cli import checks
    from miue.core.run import Run
    from miue.workflows import record

    if as_published or clean_twins:
        published, folder = as_published or out, clean_twins or out
        if as_published and clean_twins:
            raise UserError("--as-published and --clean-twins: one look at a time; leave one of them out")
        back = miue.returned(folder, published, clean=clean, split=split, twins=bool(clean_twins), run=Run(quiet=json))
        source = clean or record.RunRecord.of(published).source.location
        twins = [each for each in back.files if each.clean]
        if clean_twins:
            checks.twins(back, json)
            raise typer.Exit(FAILED_CHECKS if twins else 0)
        checks.returned(back, published, source, json)
        raise typer.Exit(0 if back.ok else FAILED_CHECKS)
    findings = miue.verify(out, clean, split=split)
    checks.findings(findings, bool(clean), json)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else FAILED_CHECKS)


def report(
    out: Out,
    to: ReportFile = None,
    format: ReportForm = "html",
    public: Public = False,
    clean: Shown = None,
    split: Split = None,
    grid: PlanOf = None,
) -> None:
    """Write one page for people: the verdict with its controls, what was not tested, quality, limits, how to repeat it.

    Made from the records in OUT.private, where it is written, too, and a few pictures of OUT: nothing is measured anew.
    It needs no network and no script. It names pictures and settings, so keep it private; --public is for others.
    """
    from miue.cli import show
    from miue.report import write_report

    if format not in ("html", "md"):
        raise UserError(f"format {format!r} is unknown; allowed: html, md")
    page = write_report(out, to, format=format, public=public, clean=clean, split=split, grid=grid)  # type: ignore[arg-type]
    show.lines(str(page))


VERBS = (verify, report)
