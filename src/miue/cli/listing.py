"""The verbs that list what there is to choose from."""

from __future__ import annotations

from textwrap import fill

import typer
from rich.console import Console

from miue.cli import catalogue
from miue.cli.codes import FAILED_CHECKS
from miue.cli.options import Json


def attacks(json: Json = False) -> None:
    """List the attacks: year, source, budget, cost, what they need."""
    known = catalogue.stored()
    if json:
        Console().print_json(data=known["facts"])
        return
    lines = [line | {"presets": line["presets"] and f"presets: {line['presets']}"} for line in known["attacks"]]
    _table(lines, "what it does", "reference", "presets")
    print("Budget: linf in grey levels, l2 for 3 x 32 x 32, l0 in pixels.")
    print("Passes: through a network, per picture.")


def defenses(json: Json = False) -> None:
    """List what a trainer may do to learn anyway: the defenses of `miue evaluate --defense`."""
    _listed("defenses", json, "what it does", "reference")


def recipes(json: Json = False) -> None:
    """List the recipes: how victims train, for `--recipe`."""
    _listed("recipes", json, "source")


def networks(json: Json = False) -> None:
    """List the networks that have a short name, for `--victim`, and the optimizer and rate that each brings.

    Every other name is looked up in timm; `your_file.py:Net` is a network of your own.
    """
    _listed("networks", json)


def estimators(json: Json = False) -> None:
    """List the estimators of mutual information, for `miue analyze --estimator`."""
    _listed("estimators", json, "what it does")


def _listed(what: str, json: bool, *below: str) -> None:
    """Print one part of the catalogue, as a table or as JSON."""
    lines = catalogue.stored()[what]
    if json:
        Console().print_json(data=lines)
    else:
        _table(lines, *below)


def _table(lines: list[dict[str, str]], *below: str) -> None:
    """Print lines as a table; columns named in `below` are printed under the row."""
    columns, width = [key for key in lines[0] if key not in below], Console().width
    widths = [max(len(line[key]) for line in [{key: key}, *lines]) for key in columns]
    for line in [{key: key for key in columns}, *lines]:
        print("  ".join(line[key].ljust(wide) for key, wide in zip(columns, widths, strict=True)).rstrip())
        for key in filter(line.get, below):
            print(fill(line[key], width, initial_indent="    ", subsequent_indent="    "))


def doctor(json: Json = False) -> None:
    """Look at this machine: versions that do not fit together, devices, codecs, space."""
    from miue.cli import doctor as checking

    checks = checking.examine()
    if json:
        print(checking.Report(checks=checks).model_dump_json(indent=1))
    else:
        for check in checks:
            print(f"{'ok ' if check.ok else 'BAD'}  {check.what}: {check.found}")
    raise typer.Exit(0 if all(c.ok for c in checks) else FAILED_CHECKS)


VERBS = (attacks, defenses, recipes, networks, estimators, doctor)
