"""The verbs that need no pictures of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miue.cli.codes import FAILED_CHECKS
from miue.cli.options import Device, Json, Quiet, Seed
from miue.core.progress import readable


def shapes(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    per_class: Annotated[int, typer.Option(help="Pictures of each of the ten shapes.")] = 400,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 32,
    split: Annotated[str, typer.Option(help="train and test have no picture in common.")] = "train",
    seed: Seed = 0,
) -> None:
    """Write the embedded example set as a folder of class folders: ten shapes over photographs."""
    from miue import data, publish

    publish.refuse_existing(folder, "another folder")
    print(publish.export(data.shapes(per_class, size, seed, split), folder))


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to work.")] = Path("demo"),
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show the whole way in minutes: draw pictures, protect them, train victims, print the verdict. No download."""
    from miue.cli import show, telling
    from miue.core.run import Run
    from miue.report import write_report
    from miue.workflows import demo as example

    run = Run(seed, device, quiet=quiet)
    outcome = example.demo(folder, run)
    show.outcome(outcome, json)
    if not json:
        show.lines(*telling.demo_breaks(folder))
    page = f"All of it on one page: {readable(str(write_report(folder / example.OUT)))}"
    run.say(page) if json else print(page)
    raise typer.Exit(0 if outcome.verdict == "protected" else FAILED_CHECKS)


VERBS = (shapes, demo)
