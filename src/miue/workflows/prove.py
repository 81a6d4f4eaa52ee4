"""From a protected set and its clean source to a record of what it is worth, and why. Safe to repeat."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from miue import data, publish
from miue.analysis.analyzer import Analyzer
from miue.analysis.records import Analysis, Generation, Outcome
from miue.attacks import attack
from miue.core.run import Run, write_atomically
from miue.core.types import Budget, ImageSet, UserError
from miue.evaluation.detect import Detection, first_look
from miue.evaluation.proof import Proof, check_victims, told_twice
from miue.training.batches import holdout
from miue.workflows.protect import RunRecord

HELD_OUT = 0.2
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What both ask about: the clean source of outputs, and a clean test set (None: part of the source is held out)."""

    clean: str
    test: str | None = None
    split: str | None = None
    test_split: str | None = None
    canvas: int | None = None

    def __post_init__(self) -> None:
        data.check_canvas(self.canvas)


@dataclass(frozen=True, kw_only=True)
class Claim(_Question):
    """What is to be proved: an output, its clean source and a clean test set (None: part of the source is held out).

    channel: what happens to all training pictures on their way to a trainer ("jpeg:75", "resize:24").
    """

    out: Path
    channel: str | None = None


@dataclass(frozen=True, kw_only=True)
class Inquiry(_Question):
    """What is to be explained: outputs made from one clean source, and a clean test set (None: part is held out)."""

    outs: Sequence[Path]

    def named(self) -> dict[str, Path]:
        """The outputs by the names of their folders. UserError where two have the same, or one is given twice."""
        names = [data.readable(out.resolve().name) for out in self.outs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"two outputs are called {twice[0]!r}: give each once, in folders of different names")
        return dict(zip(names, self.outs, strict=True))


@dataclass(frozen=True)
class _Sets:
    """The pictures that the clean source and all outputs have. Rows of all sets correspond."""

    clean: ImageSet
    protected: Mapping[str, ImageSet]
    records: Mapping[str, RunRecord]
    resized: bool
    """Whether some pictures were published at another size than that of the sets."""

    @property
    def budgets(self) -> dict[str, Budget]:
        return {name: Budget.parse(record.settings["budget"]) for name, record in self.records.items()}


def prove(claim: Claim, proof: Proof, run: Run, say: Say = lambda text: None) -> Outcome:
    """Read back what was published, train the victims, write the outcome beside the output.

    The noise control gets the grid of the attack.
    """
    name, private = data.readable(claim.out.resolve().name), data.private_of(claim.out)
    sets, test = _tested(claim, _read(claim, {name: claim.out}, say), run, say)
    record, protected = sets.records[name], sets.protected[name]
    victims = ", ".join(r.victim for r in proof.recipes)
    say(f"training {victims} on clean, noisy and protected pictures, {proof.seeds} seed(s) each")
    proof = replace(proof, noise=replace(proof.noise, cells=_cells(record, protected)))
    kept, method = replace(run, keep=private), record.settings["attack"]
    outcome = proof(sets.clean, test, protected, sets.budgets[name], kept, method, claim.channel)
    if claim.channel and sets.resized:
        side = protected.shape[1]
        note = f"pictures went through {claim.channel} at {side} x {side} pixels, not at the size that was published"
        outcome = outcome.model_copy(update={"notes": [*outcome.notes, note]})
    _write(private / "outcomes", outcome)
    return outcome


def noticed(claim: Claim, run: Run, say: Say = lambda text: None) -> Detection:
    """A trainer's first look at what was published: simple networks on the protected and on the clean pictures."""
    sets = _read(claim, {claim.out.resolve().name: claim.out}, say)
    pair = (*sets.protected.values(), sets.clean)
    protected, clean = (data.through(part, claim.channel) for part in pair) if claim.channel else pair
    return first_look(protected, clean, run)


def explain(inquiry: Inquiry, analyzer: Analyzer, run: Run, say: Say = lambda text: None) -> Analysis:
    """Read back what was published, examine a victim of each output and of the controls, write the analysis.

    Everything is kept beside the first output: the same call, or one with more outputs after it, goes on.
    """
    named = inquiry.named()
    sets, test = _tested(inquiry, _read(inquiry, named, say), run, say)
    twins = told_twice(test, sets.clean, *sets.protected.values())
    check_victims([analyzer.recipe], sets.clean, test, run)
    budgets = list(sets.budgets.values())
    budget = budgets[0] if len(set(budgets)) == 1 and budgets[0].norm != "none" else Budget()
    say(f"training {analyzer.recipe.victim} on clean, noisy and {', '.join(named)}, {analyzer.seeds} seed(s) each")
    methods = {name: record.settings["attack"] for name, record in sets.records.items()}
    grids = {_cells(record, sets.protected[name]) for name, record in sets.records.items()}
    if len(grids) == 1:
        analyzer = replace(analyzer, noise=replace(analyzer.noise, cells=grids.pop()))
    first = data.private_of(next(iter(named.values())))
    analysis = analyzer(sets.clean, test, sets.protected, replace(run, keep=first), budget, methods)
    kept = {name: replace(run, keep=data.private_of(out) / "checkpoint") for name, out in named.items()}
    traces = [trace for name, at in kept.items() if (trace := generation(name, sets.records[name], at))]
    others = [f"{name} has a budget of {b}" for name, b in sets.budgets.items() if b != budget]
    notes = [f"the noise control has a budget of {budget}; {other}" for other in others]
    notes += [twins] if twins else []
    analysis = analysis.model_copy(update={"generation": traces, "notes": [*analysis.notes, *notes]})
    _write(first / "analyses", analysis)
    return analysis


def _read(asked: _Question, outs: Mapping[str, Path], say: Say) -> _Sets:
    """Read the clean source and what was published, under one size.

    UserError where an output is not finished, or was not made from these pictures.
    """
    records = {name: RunRecord.of(out) for name, out in outs.items()}
    for out, record in zip(outs.values(), records.values(), strict=True):
        if record.status != "finished":
            raise UserError(f"{out}: its protection was interrupted; finish it with the same protect command")
    source = next(iter(records.values())).originals(asked.clean, asked.split)
    found = {name: _published(out, records[name], asked.clean, source) for name, out in outs.items()}
    used = torch.stack([rows >= 0 for _, rows in found.values()]).all(0)
    if not used.any():
        raise UserError("no clean picture is in all outputs; analyse them one by one")
    if missing := int((~used).sum()):
        where = "every output" if len(outs) > 1 else next(iter(outs.values()))
        say(f"{missing} clean pictures are not in {where}; no victim trains on them")
    canvas = asked.canvas or max(int(record.settings["canvas"]) for record in records.values())
    grey = all(entry.grey for part in (source, *(p for p, _ in found.values())) for entry in part.usable)
    clean = data.read(source, canvas, grey=grey).select(used)
    protected = {
        name: data.read(published, canvas, grey=grey).select(rows[used], name=name)
        for name, (published, rows) in found.items()
    }
    sizes = {(entry.width, entry.height) for published, _ in found.values() for entry in published.usable}
    return _Sets(clean, protected, records, resized=sizes != {(canvas, canvas)})


def _cells(record: RunRecord, protected: ImageSet) -> int:
    """The grid of an attack for noise on pictures of the size of a set: 0 where it is as fine as their pixels."""
    cells = int(record.settings.get("cells", 0)) or int(record.settings["canvas"])
    return cells if cells < protected.shape[1] else 0


def _published(out: Path, record: RunRecord, clean: str, source: data.Source) -> tuple[data.Source, Int64[Tensor, "n"]]:
    """What was published, and which of its rows was made from which clean one (-1: none)."""
    published = data.scan_output(out)
    if source.digest != record.source["digest"]:
        raise UserError(f"{clean}: these are not the pictures that {out} was made from, or some have changed")
    rows = publish.align(source, published)
    if not bool((rows >= 0).any()):
        raise UserError(f"{out}: none of its pictures comes from {clean}")
    return published, rows


def _tested(asked: _Question, sets: _Sets, run: Run, say: Say) -> tuple[_Sets, ImageSet]:
    """What victims train on, and what they are tested on."""
    rules = next(iter(sets.records.values())).rules
    test, kept = read_test(sets.clean, asked.clean, asked.test, asked.test_split, run, say, rules)
    if kept is None:
        return sets, test
    say(
        f"no --test: {len(test)} of {len(sets.clean)} clean pictures are held out, no victim trains on them in any form"
    )
    protected = {name: part.select(kept) for name, part in sets.protected.items()}
    return replace(sets, clean=sets.clean.select(kept), protected=protected), test


def generation(name: str, record: RunRecord, run: Run) -> Generation | None:
    """What an attack with a surrogate noted of its features after every epoch; None where there is nothing of it."""
    try:
        plan, budget = attack(record.settings["attack"]), Budget.parse(record.settings["budget"])
    except UserError:  # somebody's own, whose file is elsewhere today
        return None
    kept = run.load("surrogate", plan=repr(plan), budget=repr(budget), seed=record.settings["seed"])
    if kept is None or not kept[1].get("generation"):
        return None
    cosine, between, within = zip(*kept[1]["generation"], strict=True)
    return Generation(name=name, cosine=cosine, between=between, within=within)


def read_test(
    clean: ImageSet,
    source: str,
    test: str | None,
    split: str | None,
    run: Run,
    say: Say = lambda text: None,
    rules: Mapping[str, Any] | None = None,
) -> tuple[ImageSet, Int64[Tensor, "k"] | None]:
    """The test set; where no other set or split is named, a part of `clean`, and the rows that remain to train on.

    rules: by which pictures are looked at, as for `data.scan`.
    """
    if test is None and split is None:
        kept, rest = holdout(clean, HELD_OUT, run.reseeded(0))
        return clean.select(rest), kept
    seen = {**(rules or {}), "drop_columns": ["*"]}  # none of a test set is published
    scanned = data.scan(test or source, split=split, **seen)
    if unused := {why: count for why, count in scanned.summary().items() if why != "ok"}:
        told = ", ".join(f"{count} {why}" for why, count in unused.items())
        say(f"{test or source}: of {len(scanned.entries)} test pictures some are not used: {told}")
    return data.read_like(scanned, clean, test or source, source), None


def _write(folder: Path, record: Outcome | Analysis) -> None:
    """Write a record under a name that says when it was made."""
    text = record.model_dump_json(indent=1).encode()
    write_atomically(folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{hashlib.sha256(text).hexdigest()[:8]}.json", text)
