"""Output of the command line, as text or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from miue.analysis.records import LEGEND, Analysis, flagged
from miue.core.files import Record
from miue.core.progress import write_line
from miue.evaluation.detect import Detection
from miue.evaluation.records import Outcome, Verdict, spread
from miue.grid.leaderboard import Board
from miue.grid.records import CellState
from miue.workflows.forecast import Planned, PlannedAddition
from miue.workflows.job import MOST

console = Console()


def lines(*texts: str) -> None:
    """Print lines."""
    for text in texts:
        write_line(text)


def record(record: Record, texts: Iterable[str], json: bool) -> None:
    """Print a record, as JSON or in these lines."""
    if json:
        print(record.model_dump_json(indent=1))
    else:
        lines(*texts)


def plan(planned: Planned | PlannedAddition, json: bool) -> None:
    """Print what `protect` or `add` would do."""
    if json:
        print(planned.model_dump_json(indent=1))
        return
    for key, value in planned.model_dump().items():
        value = f"{value:.1f}" if isinstance(value, float) else value
        lines = [f"{k}: {_brief(v)}" for k, v in value.items()] if isinstance(value, dict) else value
        several = isinstance(lines, list)
        if several and len(lines) > MOST:
            lines = [*lines[:MOST], f"and {len(lines) - MOST} more"]
        print("\n  ".join([f"{key}:", *map(str, lines or ["none"])]) if several else f"{key}: {lines}")
    print("nothing was written (--dry-run)")


def _brief(value: object) -> object:
    """A value; of several, those that are set."""
    return ", ".join(f"{k} {v}" for k, v in value.items() if v) if isinstance(value, dict) else value


def outcome(outcome: Outcome, json: bool) -> None:
    """Print accuracies, verdict, and what was not tested."""
    if json:
        print(outcome.model_dump_json(indent=1))
        return
    accuracies = Table("trained on", "last epoch", "stopped early", "kept", "own training set", "seeds", box=box.SIMPLE)
    accuracies.title = "accuracy on clean test pictures"
    accuracies.add_column("victim", overflow="fold")
    for victim in dict.fromkeys(r.victim for r in outcome.runs):
        for role in ("clean", "noise", "protected"):
            last, early, train = (spread(outcome.accuracies(role, victim, w)) for w in ("last", "early", "train"))
            chosen = dict.fromkeys(r.chosen for r in outcome.runs if (r.role, r.victim) == (role, victim) and r.chosen)
            name = f"{victim}: {', '.join(chosen)}" if chosen else victim
            share = outcome.kept(victim) if role == "protected" else None
            part = "" if share is None else f"{share:.0%}"
            seeds = str(len(outcome.accuracies(role, victim)))
            accuracies.add_row(role, last, early, part, train, seeds, Text(name))
    console.print(accuracies)
    if outcome.channel:
        print(f"All training pictures, the clean ones too, went through {outcome.channel}.")
    print("Stopped early: at the epoch that is best on 100 test pictures a class, at most half of them; on the others.")
    print(f"Threshold, set before: a victim may keep {outcome.threshold:.0%} of what clean pictures teach over chance.")
    print(f"Verdict: {_verdict(outcome)}")
    for reason in outcome.reason.split("; "):
        print(f"  {reason}")
    for note in outcome.notes:
        print(f"note: {note}")
    _traces(outcome)
    tried = "+".join(r.defense for r in outcome.runs if r.defense)
    usual = "compress, turn pictures grey, train adversarially, purify"
    more = {"weights:": "start from a trained network", "tune:": "have clean copies"}
    others = ["defend themselves in other ways" if tried else usual]
    others += [what for name, what in more.items() if name not in tried]
    print(f"Not tested: trainers who {'; who '.join(others)} (docs/limits.md).")


def _verdict(outcome: Outcome) -> str:
    """The verdict, and against whom: "NOT PROTECTED against gray; protected against plain training."."""
    verdicts: tuple[Verdict, ...] = ("protected", "inconclusive", "not protected")
    order = sorted(verdicts, key=lambda verdict: verdict != outcome.verdict)
    parts = [f"{verdict} against {', '.join(names)}" for verdict in order if (names := outcome.against(verdict))]
    text = "; ".join([parts[0].replace(outcome.verdict, outcome.verdict.upper(), 1), *parts[1:]])
    return f"{text}, also stopped early." if outcome.verdict == "protected" else f"{text}."


def _traces(outcome: Outcome) -> None:
    """Print the test of ownership on the victims."""
    if not outcome.traces:
        return
    for victim in dict.fromkeys(t.victim for t in outcome.traces):
        for role in ("protected", "clean", "noise"):
            own = [t for t in outcome.traces if (t.role, t.victim) == (role, victim)]
            scores, labels = (
                ", ".join(f"{p:.2g}" for p in each) for each in ([t.p for t in own], [t.labels for t in own])
            )
            print(f"trace, {victim}, trained on {role} pictures: p = {scores} by scores, {labels} by labels alone")
    result = "FOUND in every protected victim" if outcome.traced else "NOT found in every protected victim"
    print(f"Trace: {result}, by the scores of 1,000 questions at 1e-3.")
    print("p-values are one a seed. Those of clean and noisy victims are controls and may be anything.")


def detection(detection: Detection, json: bool) -> None:
    """Print accuracies of simple networks on the protected and on the clean pictures."""
    if json:
        print(detection.model_dump_json(indent=1))
        return
    table = Table("network", "pictures", "held-out pictures of the set", "own training set", box=box.SIMPLE)
    table.title = "accuracy on the same set, protected or clean"
    for net in detection.looks:
        for name, look in (("protected", detection.looks[net]), ("clean", detection.clean[net])):
            table.add_row(net, name, f"{look.held_out:.1%}", f"{look.train:.1%}")
    console.print(table)
    print(("A trainer would notice: " if detection.noticed else "Nothing to notice here: ") + detection.reason)


def board(board: Board, json: bool) -> None:
    """Print the tables of a grid, one per recipe, its verdicts, and the failed cells."""
    if json:
        print(board.model_dump_json(indent=1))
        return
    for recipe in dict.fromkeys(line.recipe for line in board.lines):
        lines = [line for line in board.lines if line.recipe == recipe]
        defenses = list(dict.fromkeys(p.defense for line in lines for p in line.places))
        n = max(p.n for line in lines for p in line.places)
        table = Table("trained on", *map(escape, defenses), "worst case", box=box.SIMPLE)
        table.title = escape(f"accuracy on clean test pictures, last epoch, victim {recipe}, n = {n}")
        for line in lines:
            places = {p.defense: p.among(n) for p in line.places}
            table.add_row(escape(line.name), *(places.get(d, "") for d in defenses), escape(line.worst_text))
        console.print(table)
        for line in lines:
            if line.size and line.size.leaves:
                print(f"{line.name}: {line.size.leaves}")
        for line in lines:
            by_verdict: dict[str, list[str]] = {}
            for place in line.places:
                if place.verdict:
                    by_verdict.setdefault(place.verdict, []).append(place.defense)
            if by_verdict:
                print(f"{line.name}: " + "; ".join(f"{v}: {', '.join(names)}" for v, names in by_verdict.items()))
    for name, error in board.failed.items():
        print(f"failed: {name}: {error}")
    print(f"{board.measured} of {board.cells} cells measured, {len(board.failed)} failed")


def cells(states: Sequence[CellState], json: bool) -> None:
    """Print what `grid` would do."""
    if json:
        console.print_json(data=[state.model_dump() for state in states])
        return
    for state in states:
        print(f"{state.state:8} {state.key}  {state.cell}")
    missing = sum(state.state == "missing" for state in states)
    print(f"{len(states)} cells, {missing} to measure; nothing was done (--dry-run)")


def analysis(analysis: Analysis, json: bool) -> None:
    """Print mutual information and covariance by depth, with their controls and calibration."""
    if json:
        print(analysis.model_dump_json(indent=1))
        return
    seeds, deepest = len(analysis.accuracies(analysis.names[0])), analysis.stages[-1]
    print(
        f"Features of {analysis.rows} pictures, clean and protected, in victims ({analysis.victim}) of {seeds} seed(s)."
    )
    print("Mutual information in nats, mean ± standard deviation over seeds; 0 is independent.")
    print(LEGEND)
    top = Table("victim of", "accuracy", *analysis.headings, "cosine", "trace", "log det", "distance", box=box.SIMPLE)
    top.title = f"the deepest features ({deepest}); covariance of protected features within classes, length 1"
    for name in analysis.names:
        cells = [flagged(analysis.found(name, e, deepest), ".3f") for e in analysis.estimators]
        parts = analysis.covariances(name, deepest)
        shape = [f"{fmean(getattr(p, key) for p in parts):.3f}" for key in ("cosine", "trace", "log_det", "distance")]
        top.add_row(Text(name), spread(analysis.accuracies(name)), *cells, *shape)
    console.print(top)
    _crossed(analysis)
    for estimator, heading in zip(analysis.estimators, analysis.headings, strict=True):
        depths = Table("victim of", *analysis.stages, box=box.SIMPLE, title=f"by depth, {heading}, shallow to deep")
        for name in analysis.names:
            estimates = [flagged(analysis.found(name, estimator, s), ".3f") for s in analysis.stages]
            depths.add_row(Text(name), *estimates)
        controls = (
            ("spread", "standard error"),
            ("ceiling", "ceiling"),
            ("itself", "pairs of a picture with itself"),
            ("null", "shuffled"),
            ("null_within", "shuffled in class"),
        )
        for key, text in controls:
            of = [
                [getattr(m, key) for n in analysis.names for m in analysis.found(n, estimator, s)]
                for s in analysis.stages
            ]
            depths.add_row(Text(text, style="dim"), *(f"{min(v):.2f} to {max(v):.2f}" for v in of))
        console.print(depths)
    traces = Table(
        "victim of", *analysis.stages, box=box.SIMPLE, title="by depth, trace of the covariance within classes"
    )
    for name in analysis.names:
        inner = [[c.trace for c in analysis.covariances(name, stage)] for stage in analysis.stages]
        traces.add_row(Text(name), *(spread(values, ".3f") for values in inner))
    console.print(traces)
    _calibration(analysis)
    _correlations(analysis)
    _statements(analysis)
    for note in analysis.notes:
        print(f"note: {note}")
    for estimator in analysis.estimators:
        notes: dict[str, list[str]] = {}  # notes that differ only in a number become one
        for name in analysis.names:
            for note in (note for m in analysis.found(name, estimator, deepest) for note in m.notes):
                notes.setdefault(note.partition(": ")[0], []).append(name)
        for text, names in notes.items():
            print(f"note: {estimator} at {deepest}: {text} ({', '.join(dict.fromkeys(names))})")


def _crossed(analysis: Analysis) -> None:
    """Print what each victim keeps on pictures that it was not trained on."""
    if not analysis.crosses:
        return
    table = Table("victim of", "clean pictures beside", *analysis.headings, box=box.SIMPLE)
    table.title = f"crossed control, the deepest features ({analysis.stages[-1]})"
    for name, shown in analysis.crosses:
        table.add_row(
            Text(name), Text(shown), *(flagged(analysis.across(name, shown, e), ".3f") for e in analysis.estimators)
        )
    for name in analysis.attacks:
        lost = [spread(analysis.interaction(name, e), ".3f") for e in analysis.estimators]
        table.add_row(Text(name, style="dim"), Text("interaction", style="dim"), *lost)
    console.print(table)
    print(
        "A victim that keeps much on noise and little on its own set answers the perturbation; its clean features are"
    )
    print(
        "not empty. Interaction: what an attack takes from its own victim beyond what it takes from that of clean ones."
    )


def _calibration(analysis: Analysis) -> None:
    """Print the estimates for samples with known mutual information."""
    known = Table("features", "truth", *analysis.estimators, box=box.SIMPLE)
    known.title = f"calibration: {analysis.rows} samples whose mutual information is known"
    for width, truth in dict.fromkeys((c.width, c.truth) for c in analysis.calibration):
        estimates = [
            c.nats
            for e in analysis.estimators
            for c in analysis.calibration
            if (c.width, c.truth, c.estimator) == (width, truth, e)
        ]
        known.add_row(str(width), f"{truth:.2f}", *(f"{nats:.2f}" for nats in estimates))
    console.print(known)


def _correlations(analysis: Analysis) -> None:
    """Print rank correlations at the last depth, with their uncertainty."""
    for c in analysis.correlations:
        if c.stage == analysis.stages[-1]:
            print(
                f"{c.of[0]} and {c.of[1]} ({c.estimator}, {c.stage}): Spearman {c.rho:+.2f}, n = {c.n}, p = {c.p:.3f}, "
                f"95% interval {c.interval}, without one of them {c.least:+.2f} to {c.most:+.2f}"
            )
    if not analysis.correlations:
        print("No rank correlation: it needs three attacks or more beside the noise control.")


def _statements(analysis: Analysis) -> None:
    """Print the statements of the theory on the deepest features of each victim of the first seed."""
    for run in analysis.runs[: len(analysis.names)]:
        failed = [s for s in run.statements if not s.holds]
        print(f"theory on {run.name}: {len(run.statements) - len(failed)} of {len(run.statements)} statements hold")
        for s in run.statements:
            print(
                f"  {'holds' if s.holds else 'DOES NOT HOLD'}: {s.text}: bound {s.bound:.3f}, measured {s.measured:.3f}"
            )
