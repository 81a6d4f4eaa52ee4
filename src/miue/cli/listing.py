"""The verbs that list what there is to choose from."""

from __future__ import annotations

from dataclasses import asdict
from inspect import getdoc

import typer

from miue.cli.options import Json

FAILED_CHECKS = 3


def attacks(json: Json = False) -> None:
    """List the attacks: year, source, budget, cost, what they need."""
    from miue.attacks import KNOWN
    from miue.cli import show
    from miue.core.method import catalogue, facts

    if json:
        show.console.print_json(data={name: asdict(of) for name, of in facts(KNOWN).items()})
        return
    lines = [line | {"presets": line["presets"] and f"presets: {line['presets']}"} for line in catalogue(KNOWN)]
    show.table(lines, "what it does", "reference", "presets")
    print("Budget: linf in grey levels, l2 for 3 x 32 x 32, l0 in pixels.")
    print("Passes: through a network, per picture.")


def defenses(json: Json = False) -> None:
    """List what a trainer may do to learn anyway: the defenses of `miue evaluate --defense`."""
    from miue.cli import show
    from miue.core.method import defense_lines
    from miue.defenses import KNOWN

    show.listing(defense_lines(KNOWN), json, "what it does", "reference")


def recipes(json: Json = False) -> None:
    """List the recipes: how victims train, for `--recipe`."""
    from miue.cli import show
    from miue.victims.recipes import RECIPES

    lines = [
        {"recipe": name, "network": of.net, "epochs": str(of.epochs), "batch": str(of.batch), "source": of.source}
        for name, of in RECIPES.items()
    ]
    show.listing(lines, json, "source")


def networks(json: Json = False) -> None:
    """List the networks that have a short name, for `--victim`, and the optimizer and rate that each brings.

    Every other name is looked up in timm; `your_file.py:Net` is a network of your own.
    """
    from miue.cli import show
    from miue.nets import facts, list_networks

    lines = [
        {"network": name, "optimizer": facts(name).optimizer, "rate": facts(name).rate} for name in list_networks()
    ]
    show.listing(lines, json)


def estimators(json: Json = False) -> None:
    """List the estimators of mutual information, for `miue analyze --estimator`."""
    from miue.cli import show
    from miue.mi import KNOWN

    lines = [{"estimator": n, "what it does": (getdoc(of) or "").partition("\n")[0]} for n, of in KNOWN.items()]
    show.listing(lines, json, "what it does")


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
