"""The section on mutual information: by depth, and of victims on pictures that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from miue.analysis.records import LEGEND, Analysis, flagged
from miue.report import charts
from miue.report.content import Block, Chart, Items, Section, Table, Text


def section(analysis: Analysis | None, remarks: Sequence[Text] = ()) -> Section | None:
    """Mutual information of clean and protected features by depth."""
    if analysis is None:
        return None
    estimator = analysis.estimators[0]
    rows = [
        [name, stage, *(flagged(analysis.found(name, each, stage), ".2f") for each in analysis.estimators)]
        for name in analysis.names
        for stage in analysis.stages
    ]
    ends = "; ".join(
        f"{name} {fmean(m.nats for m in analysis.found(name, estimator, analysis.stages[-1])):.2f}"
        for name in analysis.names
    )
    alt = f"Mutual information by depth ({estimator}); at the deepest place: {ends} nats."
    table = Table(
        f"Mutual information in nats (± standard deviation over seeds). {LEGEND}",
        ("trained on", "depth", *analysis.headings),
        rows,
        tuple(range(2, 2 + len(analysis.estimators))),
        folded=True,
    )
    lead = Text(
        f"How much the features of a protected picture tell about those of its original, layer by layer in "
        f"{analysis.victim}. Noise keeps most of it; a protection that works takes it away in the deep layers."
    )
    chart = Chart(f"By depth, estimator {estimator}", alt, table, charts.depths(analysis, estimator, alt))
    notes = [Items(list(analysis.notes))] if analysis.notes else []
    return Section(
        "information", "Why it works: mutual information by depth", [lead, *remarks, chart, *_crossed(analysis), *notes]
    )


def _crossed(analysis: Analysis) -> list[Block]:
    """Victims looked at on what they were not trained on."""
    rows = [
        [name, shown, *(flagged(analysis.across(name, shown, each), ".2f") for each in analysis.estimators)]
        for name, shown in analysis.crosses
    ]
    text = (
        "A network that keeps much on noise and little on its own set answers the perturbation: its features of "
        "original pictures are not empty."
    )
    head, columns = ("trained on", "originals beside", *analysis.headings), range(2, 2 + len(analysis.estimators))
    caption = f"Deepest features, nats: networks on pictures that they were not trained on. {LEGEND}"
    return [Text(text), Table(caption, head, rows, tuple(columns), folded=True)] if rows else []
