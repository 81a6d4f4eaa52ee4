"""Options of the command line that several verbs share, or whose help takes several lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from miue.core.errors import UserError


def _settings(ctx: Any, path: Path | None) -> Path | None:  # typer hands over a context that is no typer.Context
    """--config: a TOML file gives defaults; what is written on the command line wins."""
    if path is None:
        return None
    from miue.core.files import read_toml  # here: --help needs no torch

    values = {k.replace("-", "_"): v for k, v in read_toml(path).items()}
    names = {o.lstrip("-").replace("-", "_"): p.name for p in ctx.command.params for o in (p.opts or [p.name])}
    names = {option: name for option, name in names.items() if len(option) > 1 and name != "config"}
    if unknown := set(values) - set(names):
        raise UserError(f"{path}: unknown key {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(names))}")
    several = {p.name for p in ctx.command.params if getattr(p, "multiple", False)}
    given = {names[key]: value for key, value in values.items()}
    ctx.default_map = {k: [v] if k in several and not isinstance(v, list) else v for k, v in given.items()}
    return path


Out = Annotated[Path, typer.Argument(help="The published folder. A private one, OUT.private, lies beside it.")]
Config = Annotated[
    Path | None,
    typer.Option(callback=_settings, is_eager=True, help="TOML file with any of these options; the command line wins."),
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option(help="The same seed on the same kind of machine gives the same result.")]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        show_default=False,
        help="Processes in which victims train side by side [as many as cores are free; 1 on an accelerator].",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Split = Annotated[str | None, typer.Option(help="Which split, where the source has train, test and so on.")]
Canvas = Annotated[
    int | None,
    typer.Option(
        help="Side of the square that networks see [the pictures' own, if one square size up to 96; else 64]."
    ),
]
SameCanvas = Annotated[int | None, typer.Option(help="Side of the square that networks see [as for `protect`].")]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Memory for deltas in each process, such as 2GB; more lie in files in OUT.private, and the result is the "
        "same [a third of what is free]."
    ),
]
Channel = Annotated[
    str | None,
    typer.Option(
        help="How pictures reach the trainer: jpeg:quality=75, webp:quality=80, resize:share=0.75, or several with +."
    ),
]
Originals = Annotated[str, typer.Option(help="The original pictures, as they were given to `protect`.")]
Test = Annotated[str | None, typer.Option(help="Clean pictures for testing [about a fifth of the originals].")]
TestSplit = Annotated[str | None, typer.Option(help="Which split of --test (or of --clean) to test on.")]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe", help="How victims train: a name that `miue recipes` lists, or with fields: `quick:epochs=30`."
    ),
]
Attack = Annotated[
    str,
    typer.Option(
        help="Method: `em:lasting`, `mi-ue:lasting` (the same with MI-UE's loss), `mi-ue:quick` (a first look at "
        "photographs), `mi-ue:drawings` (at flat shapes), `mi-ue:paper`, `mi-ue:official`, or others that `miue "
        "attacks` lists; with fields: `em:lasting,epochs=20,see=jpeg`; or `your_file.py:Method`."
    ),
]
Size = Annotated[
    str | None,
    typer.Option(help="Largest change: 8 (grey levels of 255), l2:1.3, l0:1 (pixels), none [the method's own]."),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch a torchvision set that is not there.")]
DropColumns = Annotated[
    str | None,
    typer.Option(help="Columns of a table that are not published: `caption,url`; `*` is all but pictures and label."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what miue wrote to OUT before.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what was found and what it would cost; write nothing.")]
Victims = Annotated[
    list[str] | None,
    typer.Option(
        help="Network to train, may be repeated: one of `miue networks`, one of timm's, or `your_file.py:Net`."
    ),
]
Trace = Annotated[
    bool, typer.Option("--trace", help="Put a secret mark in, by which `miue trace` finds out who trained on the set.")
]
FindTrace = Annotated[
    bool, typer.Option("--trace", help="Test whether the trace of OUT is found in the protected victims.")
]
TraceOnly = Annotated[bool, typer.Option("--trace-only", help="The mark without an attack.")]
TraceStrength = Annotated[
    int | None,
    typer.Option(
        min=1, help="Grey levels of the budget that the mark takes [five eighths; alone 4]; the attack has the rest."
    ),
]
TraceKeys = Annotated[
    int,
    typer.Option(min=1, max=2, help="Marks a class: 1, or 2 for the test by pictures (docs/trace.md)."),
]
Beacon = Annotated[
    str | None,
    typer.Option(
        help="`later:NAME` names a public random number that is not known yet, draws the secret and prints the "
        "commitment; after that, the value of that number (hexadecimal)."
    ),
]
TraceUnmeasured = Annotated[
    bool,
    typer.Option("--trace-unmeasured", help="Allow methods beside whose noise nobody measured a trace."),
]
Threshold = Annotated[float, typer.Option(help="Largest share of the clean gain over chance that may be left.")]
KeepVictims = Annotated[
    bool | None,
    typer.Option(
        "--keep-victims/--forget-victims",
        help="Keep the trained networks, so that `miue analyze` need not train them again [if below 100 MB].",
    ),
]
Defenses = Annotated[
    list[str] | None,
    typer.Option(
        show_default=False,
        help="Train every victim with this, too: `at:eps=4`, `gray+jpeg:quality=10`, or `adaptive`, which tries many "
        "and keeps the best; may be repeated; `none`: plain training alone [gray, jpeg:quality=75].",
    ),
]
Estimators = Annotated[
    list[str] | None,
    typer.Option(
        help="A name that `miue estimators` lists, with fields as in `ksg:k=3`, or `your_file.py:Theirs`; may be "
        "repeated [ksg, sliced, class-conditional]."
    ),
]
Rows = Annotated[int, typer.Option(help="Pictures whose features are compared, the same share of every class.")]
Figures = Annotated[
    Path | None, typer.Option("--figures", help="Draw figures (SVG) into this folder. Needs miue[figures].")
]
RightsValue = Annotated[
    str,
    typer.Option(
        "--rights",
        help="What every file says that you reserve: none, no-training, no-mining, search-only, no-generative, "
        "constraint (with --rights-text), allowed. Also writes OUT.rights, for your web server.",
    ),
]
Creator = Annotated[str, typer.Option(help="With --rights: who made the pictures [their EXIF].")]
Copyright = Annotated[str, typer.Option(help="With --rights: the copyright notice [their EXIF].")]
RightsUrl = Annotated[str, typer.Option(help="With --rights: a page about them.")]
RightsText = Annotated[str, typer.Option(help="With --rights: terms in words.")]
RightsContact = Annotated[str, typer.Option(help="With --rights and --rights-url: mailto: address for permissions.")]
RightsPath = Annotated[str, typer.Option(help="With --rights: path of the pictures on your web server.")]
RightsNoSearch = Annotated[
    bool, typer.Option("--rights-no-search", help="With --rights no-mining: keep out search engines, too.")
]
NewCreator = Annotated[str | None, typer.Option("--creator", help="Who made the pictures [as before].")]
NewCopyright = Annotated[str | None, typer.Option("--copyright", help="The copyright notice [as before].")]
NewRightsUrl = Annotated[str | None, typer.Option("--rights-url", help="A page about them [as before].")]
NewRightsText = Annotated[str | None, typer.Option("--rights-text", help="Terms in words [as before].")]
NewRightsContact = Annotated[
    str | None, typer.Option("--rights-contact", help="mailto: address for permissions [as before].")
]
NewRightsPath = Annotated[
    str | None, typer.Option("--rights-path", help="Path of the pictures on your web server [as before].")
]
NewRightsNoSearch = Annotated[
    bool | None,
    typer.Option("--rights-no-search/--rights-search", help="With no-mining: keep out search engines [as before]."),
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--to", help="File to write [OUT.private/report.html; with --public OUT.report.html]."),
]
ReportForm = Annotated[str, typer.Option(help="html or md (Markdown).")]
Public = Annotated[
    bool,
    typer.Option(
        "--public",
        help="For others: without pictures, names, manifest, seeds, settings and the structure of the noise.",
    ),
]
Shown = Annotated[
    str | None,
    typer.Option("--clean", help="The originals: a few are shown before and after. Such a page is for you alone."),
]
PlanOf = Annotated[Path | None, typer.Option("--grid", help="The plan of a grid: its table is shown, too.")]
AsPublished = Annotated[
    Path | None, typer.Option("--as-published", metavar="OUT", help="The folder as it was published.")
]
CleanTwins = Annotated[
    Path | None,
    typer.Option("--clean-twins", metavar="FOLDER", help="Look for clean copies of the pictures of OUT in FOLDER."),
]
