"""The section on how to repeat a protection: the commands of all that was done, versions and digests."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from miue import attacks, data
from miue.core.errors import UserError
from miue.core.spelling import as_words
from miue.report.content import Code, Facts, Section, Text
from miue.report.evidence import Dated, Evidence
from miue.victims.recipes import RECIPES, recipe
from miue.workflows import marking
from miue.workflows.job import Job
from miue.workflows.record import Added, Looked, Settings

BY_NET = "optimizer", "lr", "bias_lr", "warmup", "weight_decay"  # fields of a recipe that a network may decide


def repeat(evidence: Evidence, public: bool) -> Section:
    """Commands, versions and digests."""
    record, machine = evidence.record, evidence.record.machine
    pairs = [("miue", record.miue), ("torch", machine.get("torch", "")), ("python", machine.get("python", ""))]
    pairs += [("system", machine.get("system", "")), ("device", machine.get("device", ""))]
    pairs += [(f"seconds, {name}", f"{seconds:.0f}") for name, seconds in record.seconds.items()]
    if public:
        text = Text(
            "Settings, seeds, names and places are left out of this page, because they help to undo the protection.",
            True,
        )
        return Section("repeat", "How it was made", [Facts([pair for pair in pairs if pair[1]]), text])
    pairs += [("digest of the originals", record.source.digest), ("digest of set and settings", record.fingerprint)]
    saw = evidence.outcomes[-1].outcome.data if evidence.outcomes else {}
    pairs += [(f"digest of what victims saw, {role}", value) for role, value in saw.items()]
    commands = [_protect(evidence), *(added(evidence, part) for part in record.added)]
    commands += [command for each in evidence.outcomes for command in _evaluate(evidence, each)]
    code, facts = Code(list(dict.fromkeys(commands))), Facts([pair for pair in pairs if pair[1]])
    remarks = [Text(remark, True) for remark in _remarks(evidence)]
    return Section("repeat", "How to repeat it", [code, *remarks, facts])


def _remarks(evidence: Evidence) -> list[str]:
    record, remarks = evidence.record, list[str]()
    if any(not each.outcome.inputs for each in evidence.outcomes):
        remarks.append(
            "Where pictures for testing were given (--test), give them again; no record says where they lie."
        )
    remarks += [
        f"The evaluation of {each.day} has a recipe that was made in Python; no command gives it."
        for each in evidence.outcomes
        if not _recipes(each)
    ]
    if any(part.source.location == record.source.location for part in record.added):
        remarks.append("Pictures were added from the folder of the first ones, which has all of them now.")
    if record.commitment:
        remarks.append(
            "With the secret that lies in the private folder the mark is the same; without it, it is another."
        )
    return remarks


def _protect(evidence: Evidence) -> str:
    record, settings = evidence.record, evidence.record.settings
    given = {
        "budget": settings.budget.removeprefix("linf:"),
        "canvas": settings.canvas,
        "seed": settings.seed,
        "split": settings.split,
        "format": settings.format,
        "processes": settings.processes,
        **{name.replace("_", "-"): _text(value) for name, value in record.source.rules.items()},
        **settings.rights.options,
    }
    usual = {"format": Job.format, "processes": Job.processes, "max-pixels": Job.max_pixels, "frames": Job.frames}
    given = {name: value for name, value in given.items() if value != usual.get(name)}
    command = ["miue", "protect", _source(record.source, settings.split), _place(evidence)]
    return shlex.join([*command, *_traced(settings), *as_words(given)])


def _traced(settings: Settings) -> list[str]:
    """The options of attack and trace."""
    mark, attack = settings.trace, ["--attack", settings.attack]
    if mark is None:
        return attack
    words = ["--trace-only"] if mark.alone else [*attack, "--trace"]
    words += ["--trace-strength", str(mark.strength), "--trace-keys", str(mark.keys)]
    words += ["--beacon", mark.beacon] if mark.beacon else []
    try:
        marking.check_offered(attacks.attack(settings.attack), settings.attack)
    except UserError:
        words += [] if mark.alone else ["--trace-unmeasured"]
    return words


def added(evidence: Evidence, part: Added) -> str:
    """The command of an addition."""
    command = ["miue", "add", _place(evidence), _source(part.source, part.split)]
    return shlex.join([*command, *as_words({"split": part.split})])


def _evaluate(evidence: Evidence, each: Dated) -> list[str]:
    """The commands of an evaluation, one for each recipe; none if a recipe has no spelling."""
    outcome, record = each.outcome, evidence.record
    seeds = sorted({run.seed for run in outcome.runs})
    split = record.settings.split
    inputs = outcome.inputs or {"clean": _source(record.source, split), "split": split}
    given = {name.replace("_", "-"): value for name, value in inputs.items()}
    given |= {
        "defense": list(dict.fromkeys(run.defense for run in outcome.runs if run.defense)) or ["none"],
        "seeds": len(seeds),
        "threshold": outcome.threshold,
        "seed": seeds[0],
        "channel": outcome.channel,
        "trace": bool(outcome.traces),
    }
    return [
        shlex.join(["miue", "evaluate", _place(evidence), *as_words({"recipe": text, "victim": nets} | given)])
        for text, nets in _recipes(each).items()
    ]


def _recipes(each: Dated) -> dict[str, list[str]]:
    """The networks of plain victims by the spelling of their recipe; empty if there is none, or one has no spelling."""
    defended = {run.victim for run in each.outcome.runs if run.defense}
    nets: dict[str, list[str]] = {}
    for described in (facts for victim, facts in each.outcome.recipe.items() if victim not in defended):
        text = _spelling(described)
        if text is None:
            return {}
        nets.setdefault(text, []).append(described["net"])
    return nets


def _spelling(described: Mapping[str, Any]) -> str | None:
    """The spelling of a recipe without its network; None if it was made in Python and has none."""
    name = next((name for name, each in RECIPES.items() if each.source == described.get("source")), None)
    if name is None:
        return None
    net, base = described["net"], RECIPES[name]
    foreign = ".py:" in net  # its file is not read here, so all that it may decide is spelt
    near = (base if foreign else recipe(name, net)).described()
    given = {
        key: value
        for key, value in described.items()
        if key not in ("net", "net_code") and (value != near.get(key) or (foreign and key in BY_NET))
    }
    if not all(isinstance(getattr(base, key, None), str | int | float) for key in given):
        return None
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in given.items()) if given else name


def _text(value: Any) -> Any:
    """A list as the command line takes it, with commas."""
    return ",".join(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _source(source: Looked, split: str | None) -> str:
    """A source as it was named beside `--split`: what is recorded is the folder of the split where it has one."""
    if source.kind == "named" or not split:
        return source.location
    place = Path(source.location)
    return str(place.parent if source.kind == "npz" else place).removesuffix(f"/{split}")


def _place(evidence: Evidence) -> str:
    return data.readable(str(evidence.out.resolve()))
