"""The verbs that look at a protected set without a verdict: a trainer's first look, and why it works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import miue
from miue.cli.options import (
    Channel,
    Config,
    Device,
    Estimators,
    Figures,
    Json,
    Originals,
    Out,
    Quiet,
    RecipeName,
    Rows,
    SameCanvas,
    Seed,
    Split,
    Test,
    TestSplit,
    Workers,
)


def detect(
    out: Out,
    clean: Originals,
    split: Split = None,
    canvas: SameCanvas = None,
    channel: Channel = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say whether a trainer would notice.

    A first look: a linear and a two-layer network learn little from clean pictures and much from noise that follows the
    labels. Both are tested on held-out pictures of the set itself.
    """
    from miue.cli import show
    from miue.core.run import Run

    run = Run(seed, device, quiet=quiet)
    show.detection(miue.detect(out, clean, channel=channel, split=split, canvas=canvas, run=run), json)


def analyze(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="Published folders, made from one source.")],
    clean: Originals,
    test: Test = None,
    victim: Annotated[
        str | None, typer.Option(help="Network to train: resnet18, any timm name, `your_file.py:Net`.")
    ] = None,
    recipe_name: RecipeName = "quick",
    estimator: Estimators = None,
    rows: Rows = 2000,
    seeds: Annotated[int, typer.Option(help="Victims of each set; the spread over them is shown.")] = 3,
    figures_folder: Figures = None,
    split: Split = None,
    test_split: TestSplit = None,
    canvas: SameCanvas = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 0,
    config: Config = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Explain why a protection works, or does not: mutual information and covariance of features, by depth.

    One or several outputs of one source. Victims are trained on each, and on clean and noisy pictures as controls.
    Stopped or killed? The same command goes on where it was.
    """
    from miue.analysis import figures
    from miue.cli import show
    from miue.core.run import Run
    from miue.victims.recipes import recipe

    run, given = Run(seed, device, quiet=quiet, workers=workers), {"estimators": estimator} if estimator else {}
    if figures_folder:
        figures.ready(figures_folder, [*outs, Path(clean)])
    analysis = miue.analyze(
        outs,
        clean,
        recipe=recipe(recipe_name, victim),
        rows=rows,
        seeds=seeds,
        test=test,
        split=split,
        test_split=test_split,
        canvas=canvas,
        run=run,
        **given,
    )
    show.analysis(analysis, json)
    if figures_folder:
        drawn = figures.draw(analysis, figures_folder)
        run.say("\n".join([*(f"drawn: {path}" for path in drawn), *figures.missing(analysis)]))


VERBS = (detect, analyze)
