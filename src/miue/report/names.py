"""Names for everybody: of methods, networks and victims without places, or anything else that is the owner's alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from miue import attacks, defenses
from miue.core.spelling import split
from miue.evaluation.adaptive import NAME
from miue.evaluation.records import ALONE, Outcome, VictimRun
from miue.evaluation.verdict import concluded
from miue.grid.leaderboard import CONTROLS, Board, Line
from miue.victims.recipe import Recipe
from miue.victims.recipes import RECIPES

METHOD, NETWORK = "a method of the owner's", "a network of the owner's"
NUMBER = re.compile(r"(?i)[-+]?[\d.]+(e[-+]?\d+)?|true|false|none")
NET = re.compile(r"[\w.-]+(:\w+=\d+(,\w+=\d+)*)?")


def attack(text: str) -> str:
    """The name of an attack without its settings."""
    name = split(text)[0]
    return name if name in (*attacks.KNOWN, *CONTROLS, ALONE) else METHOD


def spelled(text: str) -> str:
    """A recipe, or a combination of defenses: names of the package, numbers and choices, no other text."""
    return "+".join(_spelled(part) for part in defenses.parts(text))


def _spelled(part: str) -> str:
    name, words, given = split(part)
    of = defenses.KNOWN.get(name, Recipe if name in RECIPES else None)
    if of is None:
        return name if name in (NAME, "none") else METHOD
    hints = get_type_hints(of)
    shown = [word for word in words if word in getattr(of, "presets", ())]
    shown += [f"{key}={value}" for key, value in given.items() if key in hints and _tells_nothing(value, hints[key])]
    return f"{name}:{','.join(shown)}" if shown else name


def _tells_nothing(value: str, hint: Any) -> bool:
    """True for a number and for one of a few words; any other text may be a place."""
    if get_origin(hint) is Literal:
        return value in map(str, get_args(hint))
    return str not in (hint, *get_args(hint)) and NUMBER.fullmatch(value) is not None


def network(text: str) -> str:
    """The name of a network of the package or of timm."""
    return text if NET.fullmatch(text) else NETWORK


def outcomes(every: Sequence[Outcome]) -> list[Outcome]:
    """Outcomes with victims by names for everybody, in which no two victims become one."""
    runs = [run for outcome in every for run in outcome.runs]
    nets = _distinct(map(_net, runs), network)
    names = _distinct((run.defense for run in runs), spelled)
    victims = {run.victim: " + ".join(filter(None, (nets[_net(run)], names[run.defense]))) for run in runs}
    return [_renamed(outcome, victims, names) for outcome in every]


def _renamed(outcome: Outcome, victims: dict[str, str], names: dict[str, str]) -> Outcome:
    runs = [
        run.model_copy(
            update={
                "victim": victims[run.victim],
                "defense": names[run.defense],
                "chosen": spelled(run.chosen),
                "tried": {spelled(text): value for text, value in run.tried.items()},
            }
        )
        for run in outcome.runs
    ]
    judgements = [
        each.model_copy(
            update={
                "victim": victims[each.victim],
                "trainer": names.get(each.trainer, each.trainer),
                "reason": victims[each.victim] + each.reason.removeprefix(each.victim),
            }
        )
        for each in outcome.judgements
    ]
    traces = [each.model_copy(update={"victim": victims[each.victim]}) for each in outcome.traces]
    facts = {"runs": runs, "judgements": judgements, "traces": traces, "reason": concluded(judgements)[1]}
    return outcome.model_copy(update=facts | {"name": "", "method": attack(outcome.method), "recipe": {}, "inputs": {}})


def _net(run: VictimRun) -> str:
    return run.victim.removesuffix(f" + {run.defense}")


def board(every: Board) -> Board:
    """The board of a grid by names for everybody, without the texts of errors."""
    places = [place for line in every.lines for place in line.places]
    names = _distinct((place.defense for place in places), spelled)
    recipes = _distinct((line.recipe for line in every.lines), spelled)
    methods = _distinct((line.attack for line in every.lines), attack)

    def renamed(line: Line) -> Line:
        own = [place.model_copy(update={"defense": names[place.defense], "reason": ""}) for place in line.places]
        return line.model_copy(
            update={"recipe": recipes[line.recipe], "attack": methods[line.attack], "places": own, "worst": None}
        )

    return every.model_copy(update={"lines": [renamed(line) for line in every.lines], "failed": {}})


def _distinct(texts: Iterable[str], name: Callable[[str], str]) -> dict[str, str]:
    """Each text by its name; of several texts with one name the later ones get a number."""
    names, counts = dict[str, str](), Counter[str]()
    for text in dict.fromkeys(texts):
        counts[own := name(text)] += 1
        names[text] = own if counts[own] == 1 else f"{own} ({counts[own]})"
    return names
