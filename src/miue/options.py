"""Options that several verbs of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from miue.recipes import RECIPES
from miue.run import DEVICES
from miue.spec import read_toml
from miue.types import UserError


def _settings(ctx: Any, path: Path | None) -> Path | None:  # typer hands over a context that is no typer.Context
    """--config: a TOML file gives defaults; what is written on the command line wins."""
    if path is None:
        return None
    values = {k.replace("-", "_"): v for k, v in read_toml(path).items()}
    known = {p.name for p in ctx.command.params} - {"config"}
    if unknown := set(values) - known:
        raise UserError(f"{path}: unknown key {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(map(str, known)))}")
    ctx.default_map = values
    return path


Out = Annotated[Path, typer.Argument(help="The published folder. A private one, OUT.private, lies beside it.")]
Config = Annotated[
    Path | None,
    typer.Option(callback=_settings, is_eager=True, help="TOML file with any of these options; the command line wins."),
]
Device = Annotated[str, typer.Option(help=f"Where to compute: {', '.join(DEVICES)}.")]
Seed = Annotated[int, typer.Option(help="The same seed on the same kind of machine gives the same result.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Split = Annotated[str | None, typer.Option(help="Which split, where the source has train, test and so on.")]
Canvas = Annotated[int | None, typer.Option(help="Side of the square that networks see [from the pictures].")]
Originals = Annotated[str, typer.Option(help="The original pictures, as they were given to `protect`.")]
Test = Annotated[str | None, typer.Option(help="Clean pictures for testing [about a fifth of the originals].")]
TestSplit = Annotated[str | None, typer.Option(help="Which split of --test (or of --clean) to test on.")]
RecipeName = Annotated[
    str, typer.Option("--recipe", help=f"How victims train: {', '.join(RECIPES)}; or `quick:epochs=30`.")
]
