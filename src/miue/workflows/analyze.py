"""The workflow `analyze`: from protected sets and their clean source to the record of an analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from miue import data
from miue.analysis.analyzer import ESTIMATORS, Analyzer
from miue.analysis.records import Analysis, Generation
from miue.attacks import Alternating, attack
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget
from miue.evaluation.checks import check_victims, overlap_note
from miue.victims.recipe import Recipe
from miue.victims.recipes import recipe as recipe_of
from miue.workflows.published import Inputs, cells_of, read_back, tested, write_dated
from miue.workflows.record import RunRecord


def analyze(
    outs: str | Path | Sequence[str | Path],
    clean: str | Path,
    *,
    recipe: str | Recipe = "quick",
    estimators: Sequence[str] = ESTIMATORS,
    rows: int = 2000,
    seeds: int = 3,
    test: str | Path | None = None,
    split: str | None = None,
    test_split: str | None = None,
    canvas: int | None = None,
    run: Run | None = None,
) -> Analysis:
    """Measure mutual information and covariance of clean and protected features by depth, with controls.

    Victims are trained on each output, and on clean and noisy pictures. Everything is kept beside the first output:
    the same call, or one with further outputs appended, resumes.

    outs: folders that `protect` wrote, all from `clean`. recipe: how victims train. estimators: of mutual information,
    by their spelling. rows: pictures to compare. Other arguments as for `evaluate`. Raises UserError.
    """
    run = run or Run()
    chosen = recipe_of(recipe) if isinstance(recipe, str) else recipe
    analyzer = Analyzer(recipe=chosen, seeds=seeds, rows=rows, estimators=tuple(estimators))
    inputs, named = Inputs.of(clean, test, split, test_split, canvas), _named(outs)
    sets, tests = tested(inputs, read_back(inputs, named, run), run)
    overlap = overlap_note(tests, sets.clean, *sets.protected.values())
    check_victims([chosen], sets.clean, tests, run)
    budgets = list(sets.budgets.values())
    budget = budgets[0] if len(set(budgets)) == 1 and budgets[0].norm != "none" else Budget()
    run.say(f"training {chosen.victim} on clean, noisy and {', '.join(named)}, {seeds} seed(s) each")
    methods = {name: record.settings.attack for name, record in sets.records.items()}
    grids = {cells_of(record, sets.protected[name]) for name, record in sets.records.items()}
    if len(grids) == 1:
        analyzer = replace(analyzer, noise=replace(analyzer.noise, cells=grids.pop()))
    first = data.private_of(next(iter(named.values())))
    analysis = analyzer(sets.clean, tests, sets.protected, replace(run, keep=first), budget, methods)
    runs = {name: replace(run, keep=data.private_of(out) / "checkpoint") for name, out in named.items()}
    traces = [trace for name, at in runs.items() if (trace := generation(name, sets.records[name], at))]
    others = [f"{name} has a budget of {b}" for name, b in sets.budgets.items() if b != budget]
    notes = [f"the noise control has a budget of {budget}; {other}" for other in others]
    notes += [overlap] if overlap else []
    analysis = analysis.model_copy(update={"generation": traces, "notes": [*analysis.notes, *notes]})
    write_dated(first / "analyses", analysis)
    return analysis


def generation(name: str, record: RunRecord, run: Run) -> Generation | None:
    """Return the features that an attack with a surrogate recorded after every epoch; None if there are none."""
    try:
        method, budget = attack(record.settings.attack), record.settings.rest
    except UserError:  # a user's own attack, whose file has moved
        return None
    of_attack = replace(run, seed=record.settings.seed)
    if not (isinstance(method, Alternating) and (trace := method.trace(budget, of_attack))):
        return None
    cosine, between, within = zip(*trace, strict=True)
    return Generation(name=name, cosine=cosine, between=between, within=within)


def _named(outs: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """Outputs by the names of their folders. Raises UserError if two have the same name or one is given twice."""
    paths = [Path(out) for out in ([outs] if isinstance(outs, str | Path) else outs)]
    names = [data.readable(path.resolve().name) for path in paths]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two outputs are called {repeated[0]!r}: give each once, in folders of different names")
    return dict(zip(names, paths, strict=True))
