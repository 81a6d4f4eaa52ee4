"""The section on the ownership trace: what the mark is, whether networks learn it, and who was judged.

Made from records alone; the secret is not read. A page for others names nobody who was judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from miue.evaluation.records import TraceRun
from miue.report import charts
from miue.report.content import Block, Facts, Section, Table, Text
from miue.report.evidence import Evidence
from miue.workflows.standing import Standing

LEVEL = 1e-3  # at which an evaluation looks for the trace
LEAD = (
    "Every picture carries a secret mark of its owner. Whether a classifier was trained on these pictures can be "
    "tested with it: p is the chance that a model which has nothing to do with the set gives as clear a result."
)
LEAVES_OPEN = (
    "Evidence says that a model depends on the secret, not who trained it, nor how it came by the pictures. No "
    "evidence never means that the set was not used."
)


def ownership(evidence: Evidence, public: bool) -> Section | None:
    """The trace of a set and all that is known of it; None if it carries none."""
    record, mark = evidence.record, evidence.record.settings.trace
    if not record.commitment or mark is None:
        return None
    pairs = [("commitment", record.commitment), ("it stands in", "PROTECTED.md, beside the pictures")]
    if not public:
        limit = record.settings.limit.eps
        pairs += [("strength", f"{mark.strength} of {limit:g} grey levels"), ("marks a class", str(mark.keys))]
        pairs += [("public random number", f"{record.named}: {mark.beacon}")] if mark.beacon else []
    blocks: list[Block] = [Text(LEAD), *([Text(alone())] if mark.alone else []), Facts(pairs)]
    blocks += _own(evidence, public)
    blocks += _suspects(evidence.suspects, public) if evidence.suspects else [Text("Nobody was judged yet.")]
    return Section("trace", "Who trained on it: the ownership trace", [*blocks, Text(LEAVES_OPEN, True)])


def alone() -> str:
    """A warning on a set that carries a mark without an attack."""
    return (
        "The mark stands alone: there is no attack, and networks are meant to learn from these pictures. How much the "
        "mark costs them is not known; a stronger one costs more."
    )


def _own(evidence: Evidence, public: bool) -> list[Block]:
    """The tests on networks that the owner trained, beside the controls."""
    runs = [run for each in evidence.traced for run in each.outcome.traces]
    if not runs:
        how = "" if public else f" To test it: miue evaluate {evidence.name} --clean ORIGINALS --trace."
        return [Text(f"Whether networks learn the mark was not tested.{how}", True)]
    ours, controls = ([run for run in runs if (run.role == "protected") is protected] for protected in (True, False))
    text = (
        f"Of networks that the owner trained on the published pictures, the mark was found in {_found(ours)}; of those "
        f"that were trained on the originals or on plain noise, in {_found(controls)}. The latter are the controls: "
        "nothing should be found there."
    )
    rows = []
    for each in evidence.traced:
        for victim in dict.fromkeys(run.victim for run in each.outcome.traces):
            for role in ("protected", "clean", "noise"):
                own = [run for run in each.outcome.traces if (run.victim, run.role) == (victim, role)]
                if own:
                    values = [_values(run.p for run in own), _values(run.labels for run in own)]
                    what = charts.ROLES[role][0]
                    rows.append([victim, each.outcome.channel or "none", what, *values, _found(own)])
    caption = f"The test on the owner's networks: p, one a seed, and how many are at most {LEVEL:g} by scores"
    head = ("network", "channel", "trained on", "p by scores", "p by labels alone", "found")
    return [Text(text), Table(caption, head, rows)]


def _values(p: Iterable[float]) -> str:
    return ", ".join(f"{each:.2g}" for each in p)


def _found(runs: Sequence[TraceRun]) -> str:
    return f"{sum(run.evidence for run in runs)} of {len(runs)}"


def _suspects(suspects: Standing, public: bool) -> list[Block]:
    """Who was judged, and how they stand together."""
    declared, evidence = suspects.declared, suspects.evidence
    text = (
        f"{len(evidence)} of {declared.suspects} declared suspects were judged. Against {sum(evidence.values())} of "
        f"them there is evidence of use, at a chance of {declared.alpha:g} that anybody is accused wrongly (Holm)."
    )
    if public:
        return [Text(text)]
    rows = [
        [
            name,
            "evidence of use" if evidence[name] else "no evidence",
            f"{verdict.p:.2g}",
            verdict.test,
            f"{verdict.asked.count} ({verdict.kind})",
            verdict.when[:10],
        ]
        for name, verdict in suspects.verdicts.items()
    ]
    head = ("suspect", "result", "p", "test", "questions", "judged on")
    text += f" Number and chance were fixed by the first judgement, on {declared.when[:10]}."
    return [Text(text), Table("Suspects", head, rows, (2,))]
