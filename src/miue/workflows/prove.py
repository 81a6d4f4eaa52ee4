"""From a protected set and its clean source to a record of what it is worth, and why. Safe to repeat."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

from miue import data
from miue.analysis.analyzer import Analyzer
from miue.analysis.records import Analysis, Generation
from miue.attacks import attack
from miue.core.errors import UserError
from miue.core.files import write_atomically
from miue.core.progress import Say
from miue.core.run import Run
from miue.core.types import Budget
from miue.evaluation.checks import check_victims, told_twice
from miue.evaluation.detect import Detection, first_look
from miue.evaluation.proof import Proof
from miue.evaluation.records import Outcome
from miue.workflows.published import Claim, Inquiry, cells_of, read_back, tested
from miue.workflows.record import RunRecord


def prove(claim: Claim, proof: Proof, run: Run, say: Say = lambda text: None) -> Outcome:
    """Read back what was published, train the victims, write the outcome beside the output.

    The noise control gets the grid of the attack.
    """
    name, private = data.readable(claim.out.resolve().name), data.private_of(claim.out)
    sets, test = tested(claim, read_back(claim, {name: claim.out}, say), run, say)
    record, protected = sets.records[name], sets.protected[name]
    victims = ", ".join(r.victim for r in proof.recipes)
    say(f"training {victims} on clean, noisy and protected pictures, {proof.seeds} seed(s) each")
    proof = replace(proof, noise=replace(proof.noise, cells=cells_of(record, protected)))
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
    sets = read_back(claim, {claim.out.resolve().name: claim.out}, say)
    pair = (*sets.protected.values(), sets.clean)
    protected, clean = (data.through(part, claim.channel) for part in pair) if claim.channel else pair
    return first_look(protected, clean, run)


def explain(inquiry: Inquiry, analyzer: Analyzer, run: Run, say: Say = lambda text: None) -> Analysis:
    """Read back what was published, examine a victim of each output and of the controls, write the analysis.

    Everything is kept beside the first output: the same call, or one with more outputs after it, goes on.
    """
    named = inquiry.named()
    sets, test = tested(inquiry, read_back(inquiry, named, say), run, say)
    twins = told_twice(test, sets.clean, *sets.protected.values())
    check_victims([analyzer.recipe], sets.clean, test, run)
    budgets = list(sets.budgets.values())
    budget = budgets[0] if len(set(budgets)) == 1 and budgets[0].norm != "none" else Budget()
    say(f"training {analyzer.recipe.victim} on clean, noisy and {', '.join(named)}, {analyzer.seeds} seed(s) each")
    methods = {name: record.settings["attack"] for name, record in sets.records.items()}
    grids = {cells_of(record, sets.protected[name]) for name, record in sets.records.items()}
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


def _write(folder: Path, record: Outcome | Analysis) -> None:
    """Write a record under a name that says when it was made."""
    text = record.model_dump_json(indent=1).encode()
    write_atomically(folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{hashlib.sha256(text).hexdigest()[:8]}.json", text)
