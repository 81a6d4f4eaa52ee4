"""All that is known of a protected set: the records in its private folder, read and checked, nothing computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from miue import data, publish
from miue.analysis.records import Analysis
from miue.core.files import Record
from miue.evaluation.detect import Detection
from miue.evaluation.records import Outcome
from miue.report import names
from miue.report.content import Text
from miue.workflows.job import kept_at
from miue.workflows.record import RunRecord
from miue.workflows.standing import Standing, standing

R = TypeVar("R", bound=Record)
AWAY = "move it away, and the report is made without it"


@dataclass(frozen=True)
class Dated:
    """An outcome with the time in the name of its file ("20261126-200202"), and what is known of it."""

    outcome: Outcome
    at: str

    @property
    def day(self) -> str:
        return day(self.at)


@dataclass(frozen=True)
class Evidence:
    """The records of one output."""

    out: Path
    record: RunRecord
    lines: Sequence[publish.Line]
    """One for each input."""
    outcomes: Sequence[Dated]
    """Of this protection, oldest first; of evaluations that were repeated with the same settings only the last."""
    left_out: Sequence[str]
    """Records that are not used, each with the reason."""
    traced: Sequence[Dated]
    """Of these and of earlier ones with the same settings, those that looked for the trace, oldest first."""
    suspects: Standing | None
    """Suspects that were judged by the secret of this set."""
    detection: Detection | None
    analysis: Analysis | None
    detected: str
    """The time of the detection, as in the name of its file; empty if there is none."""
    analysed: str
    """The time of the analysis."""
    perturbation: Path
    """Its file, which may be missing."""

    @classmethod
    def of(cls, out: Path) -> Evidence:
        """Read the records beside an output. Raises UserError if it is not finished, or if a record is damaged."""
        record, private = RunRecord.of(out), data.private_of(out)
        record.check_protected(out)
        _, lines = publish.finished(private)
        every = [Dated(outcome, at) for at, outcome in _dated(private / "outcomes", Outcome)]
        reasons = [(each, _foreign(each, record)) for each in every]
        left_out = [f"the evaluation of {each.day} is left out: {reason}" for each, reason in reasons if reason]
        detections, analyses = _dated(private / "detections", Detection), _dated(private / "analyses", Analysis)
        own_records = [each for each, reason in reasons if not reason]
        own = [(at, analysis) for at, analysis in analyses if at >= record.finished]
        if len(own) < len(analyses):
            left_out.append(f"analyses that are older than the files: {len(analyses) - len(own)}")
        suspects = standing(out) if record.commitment else None
        if suspects and any(each.commitment != record.commitment for each in suspects.verdicts.values()):
            left_out.append("verdicts on suspects by the secret of another set")
            suspects = None
        looks = [(at, detection) for at, detection in detections if at >= record.finished]
        detected, detection = looks[-1] if looks else ("", None)
        analysed, analysis = own[-1] if own else ("", None)
        return cls(
            out=out,
            record=record,
            lines=lines,
            outcomes=_latest(own_records),
            left_out=left_out,
            traced=_latest([each for each in own_records if each.outcome.traces]) if record.commitment else [],
            suspects=suspects,
            detection=detection,
            analysis=analysis,
            detected=detected,
            analysed=analysed,
            perturbation=kept_at(private, record),
        )

    @property
    def protected(self) -> list[publish.Line]:
        """The lines of pictures that were published."""
        return [line for line in self.lines if line.status == "protected"]

    def added_since(self, at: str) -> int:
        """Number of pictures that were added after a time, or at a time that no record has."""
        added = [part for part in self.record.added if part.status == "finished"]
        return sum(part.protected for part in added if not "" < part.finished <= at)

    def missed(self, at: str) -> list[Text]:
        """A remark on pictures that a record of this time cannot be about."""
        count = self.added_since(at)
        text = f"Made on {day(at)}, and {count} pictures were added after that: nothing here is about them."
        return [Text(text, True)] if count else []

    @property
    def name(self) -> str:
        """The name of the output's folder."""
        return data.readable(self.out.resolve().name)

    def for_everybody(self) -> Evidence:
        """The same without places, names of the owner's, and what belongs to single pictures and to the noise."""
        record, hidden = self.record, {"location": "", "examples": {}, "notes": []}
        source = record.source.model_copy(update=hidden | {"classes": [""] * len(record.source.classes)})
        added = [part.model_copy(update={"source": part.source.model_copy(update=hidden)}) for part in record.added]
        settings = record.settings.model_copy(update={"attack": names.attack(record.settings.attack), "split": None})
        dated = [*self.outcomes, *self.traced]
        renamed = [
            replace(each, outcome=outcome)
            for each, outcome in zip(dated, names.outcomes([each.outcome for each in dated]), strict=True)
        ]
        return replace(
            self,
            out=Path("OUT"),
            record=record.model_copy(update={"source": source, "added": added, "settings": settings}),
            lines=[line.model_copy(update={"path": "", "out": "", "class_name": ""}) for line in self.lines],
            outcomes=renamed[: len(self.outcomes)],
            traced=renamed[len(self.outcomes) :],
            analysis=None,
            perturbation=Path(),
        )


def _dated(folder: Path, kind: type[R]) -> list[tuple[str, R]]:
    """The records in a folder of dated ones, oldest first, each with its time."""
    paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    return [("-".join(path.stem.split("-")[:2]), kind.load(path, AWAY)) for path in paths]


def _foreign(each: Dated, record: RunRecord) -> str:
    """Why an outcome does not belong to what was published; empty if it does."""
    outcome, settings = each.outcome, record.settings
    if (outcome.method, outcome.budget) != (settings.attack, settings.budget):
        method = names.attack(outcome.method)
        return f"it was made with {method} and {outcome.budget}, and the files are of other settings"
    if each.at < record.finished:
        return "it is older than the files"
    if not outcome.judgements:
        return (
            f"it is of an earlier version and judges the last epoch alone (its verdict: {outcome.verdict}); evaluate "
            "again, which trains nothing anew"
        )
    return ""


def _latest(outcomes: Sequence[Dated]) -> list[Dated]:
    """Outcomes without those that were made again with the same victims, seeds and channel."""
    last = {_settings(each.outcome): each for each in outcomes}
    return sorted(last.values(), key=lambda each: each.at)


def _settings(outcome: Outcome) -> str:
    runs = sorted({(run.victim, run.seed) for run in outcome.runs})
    return repr((outcome.recipe, runs, outcome.channel, outcome.threshold, sorted(outcome.data.items())))


def day(at: str) -> str:
    """A time of a record for people: "2026-11-26 20:02"; "an unknown day" if there is none."""
    if len(at) != 15 or not at.replace("-", "").isdigit():
        return "an unknown day"
    return f"{at[:4]}-{at[4:6]}-{at[6:8]} {at[9:11]}:{at[11:13]}"
