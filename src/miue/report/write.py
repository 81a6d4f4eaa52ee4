"""The report of an output as one file of HTML or Markdown: made from records, the same bytes for the same records."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from statistics import fmean
from typing import Any, Literal

import jinja2
from markupsafe import Markup, escape

from miue import attacks, data, publish
from miue.core.errors import UserError
from miue.core.files import write_atomically
from miue.core.run import Run
from miue.core.spelling import spell
from miue.core.types import Budget
from miue.evaluation.records import ALONE
from miue.grid.bench import standing
from miue.grid.leaderboard import Board
from miue.grid.plan import Grid
from miue.publish.manifest import Line
from miue.report import charts, information, judged, names, ownership, repeat, sections
from miue.report.content import Block, Chart, Facts, Page, Picture, Pictures, Section, Table
from miue.report.evidence import Evidence, day
from miue.workflows.originals import opened

Form = Literal["html", "md"]
MARK = "miue report"
SIGNS = (f'<meta name="generator" content="{MARK}">', f"<!-- {MARK} -->")  # of a report: only such files are replaced
EXAMPLES, SMALL = 3, 96  # pictures on the first screen; longest side that is shown as squares
WITHOUT = (
    "Protected pictures only. Originals beside them would be clean copies, which undo the protection wherever the page "
    "goes; with the option --clean the report shows them, for the owner's eyes."
)
WITH = "This page shows clean originals: keep it as private as the originals themselves."


def write_report(
    out: str | Path,
    to: str | Path | None = None,
    *,
    format: Form = "html",
    public: bool = False,
    clean: str | Path | None = None,
    split: str | None = None,
    grid: str | Path | None = None,
) -> Path:
    """Write what is known of a protected set for people, as one file, and return its path.

    out: a folder that `protect` wrote. to: the file; None: in the private folder, or beside `out` if `public`. format:
    "html" (no network and no script) or "md". public: without all that helps to undo the protection: pictures, names,
    manifest, seeds, settings, the structure of the noise. clean: the originals, of which a few are then shown before
    and after. split: their part, if they have several. grid: the plan of a grid whose cells are shown, too. Raises
    UserError if the output is not finished, if a record is damaged, or if `to` is a file of something else.
    """
    out = Path(out)
    if public and clean is not None:
        raise UserError("--public and --clean: a public report shows no originals; leave one of them out")
    evidence, path = Evidence.of(out), _target(out, to, format, public)
    plan = Grid.from_file(Path(grid)) if grid is not None else None
    board = standing(plan, Run()) if plan else None
    originals = None if clean is None else opened(evidence.record, clean, split)
    page = _page(evidence, public, originals, board)
    write_atomically(path, _rendered(page, format).encode())
    return path


def _target(out: Path, to: str | Path | None, form: Form, public: bool) -> Path:
    private = data.private_of(out)
    path = (
        Path(to)
        if to is not None
        else (out.with_name(f"{out.resolve().name}.report") if public else private / "report")
    )
    path = path if to is not None else path.with_name(f"{path.name}.{form}")
    if path.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{path}: lies in {out}, the published pictures; write the report elsewhere")
    head = path.read_bytes()[:2000] if path.is_file() else b""
    if path.exists() and not any(sign.encode() in head for sign in SIGNS):
        raise UserError(f"{path}: exists and is no report of miue; give --to another file")
    return path


def _page(evidence: Evidence, public: bool, originals: publish.Originals | None, board: Board | None) -> Page:
    if public:
        evidence, board = evidence.for_everybody(), names.board(board) if board else None
    outcomes, record = [each.outcome for each in evidence.outcomes], evidence.record
    lines = judged.kept(evidence.outcomes)
    verdict = judged.judge(lines, evidence.outcomes)
    after: list[Section | None] = [
        sections.accuracy(outcomes) if outcomes else None,
        sections.defenses(lines, board) if lines or board else None,
        sections.quality_in_short(evidence)
        if public
        else sections.quality(evidence.protected, _worst(evidence, originals)),
    ]
    if not public:
        after += [
            sections.structure(evidence),
            information.section(evidence.analysis, evidence.missed(evidence.analysed)),
        ]
    after += [
        ownership.ownership(evidence, public),
        sections.detected(evidence),
        sections.inputs(evidence, public),
        sections.limits(bool(lines or board), record.settings.rights),
        repeat.repeat(evidence, public),
    ]
    examples = None if public else _examples(evidence, originals)
    classes = f"{len(record.source.classes)} classes"
    return Page(
        title="Protection report" if public else f"Protection report: {evidence.name}",
        subtitle=f"{len(evidence.protected):,} pictures in {classes}, protected with miue",
        verdict=verdict.word,
        tone=verdict.tone,
        sentence=verdict.sentence,
        remarks=_remarks(evidence, lines, verdict, public),
        figures=_figures(verdict.main),
        chart=_controls(verdict.main),
        untested=[*judged.untested(lines, evidence.outcomes), *_unseen(evidence)],
        examples=examples,
        examples_note="" if public else WITH if originals else WITHOUT,
        published=_published(evidence, public),
        sections=[section for section in after if section],
        public=public,
    )


def _remarks(evidence: Evidence, lines: Sequence[judged.Kept], verdict: judged.Judged, public: bool) -> list[str]:
    mark = evidence.record.settings.trace
    remarks = [*([ownership.alone()] if mark and mark.alone else []), *evidence.left_out]
    remarks += [
        f"Not shown either way, {line.way}: {line.judgement.reason}."
        for line in lines
        if line.judgement.verdict == "inconclusive" and line.judgement.reason not in verdict.sentence
    ]
    for part in evidence.record.added:
        if part.status != "finished":
            how = "" if public else f" To finish it: {repeat.added(evidence, part)}"
            remarks.append(f"Adding {part.protected} pictures was interrupted; nothing here is about them.{how}")
    if not (evidence.outcomes or public):
        remarks.append(f"To test them: miue evaluate {quote(evidence.name)} --clean ORIGINALS")
    if not charts.ready():
        remarks.append(
            'This report has tables instead of charts: matplotlib is missing; pip install "miue[figures]" adds it.'
        )
    return remarks


def _unseen(evidence: Evidence) -> list[str]:
    """Open questions about pictures that came later, and about the trace, if there is one."""
    counts = {each.day: count for each in evidence.outcomes if (count := evidence.added_since(each.at))}
    gaps = [f"the {count} pictures that were added after the evaluation of {when}" for when, count in counts.items()]
    mark = evidence.record.commitment and not evidence.traced
    return [*gaps, *(["whether networks learn the owner's mark"] if mark else [])]


def _figures(main: judged.Kept | None) -> list[tuple[str, str]]:
    if main is None:
        return []
    means = [(f"{fmean(values):.1%}", text) for values, text in (
        (main.protected, "trained on the protected pictures"), (main.clean, "trained on the originals"),
        (main.noise, "trained on plain noise of the same size"))]  # fmt: skip
    return [*means, (f"{main.chance:.1%}", "guessing")]


def _controls(main: judged.Kept | None) -> Chart | None:
    if main is None:
        return None
    figures = _figures(main)
    alt = "New pictures named correctly: " + "; ".join(f"{text} {value}" for value, text in figures) + "."
    table = Table(
        "New, clean pictures named correctly", ("a network", "share"), [[text, value] for value, text in figures], (1,)
    )
    title = "New pictures named correctly, beside the controls" + (", stopped early" if main.judgement.early else "")
    return Chart(title, alt, table, charts.controls(main, alt))


def _published(evidence: Evidence, public: bool) -> Facts:
    record, written = evidence.record, evidence.record.written
    assert written is not None  # of a finished protection
    method = _method(record.settings.attack, public)
    pairs = [
        ("pictures", f"{written.counts.get('protected', 0):,} in {len(record.source.classes)} classes"),
        ("finished", day(record.finished) if record.finished else "not recorded"),
        ("method", method),
        ("change", f"{_budget(record.settings.limit)}; largest in the files: {written.worst}"),
        ("files", f"{record.settings.format.upper()}, {written.bytes_out / 1e6:.1f} MB"),
        ("evaluated", ", ".join(each.day for each in evidence.outcomes) or "never"),
    ]
    if added := [part for part in record.added if part.status == "finished"]:
        count = sum(part.protected for part in added)
        pairs.insert(1, ("added later", f"{count:,} of them, the last ones {day(added[-1].finished)}"))
    if record.commitment:
        pairs.append(("ownership trace", _trace(evidence)))
    if record.settings.rights.value != "none":
        pairs.append(("rights", record.settings.rights.value))
    if signed := sum(line.signed for line in evidence.protected):
        pairs.append(("content credentials", f"in {signed} of {len(evidence.protected)} files"))
    return Facts(pairs if public else [*pairs, ("seed", str(record.settings.seed))])


def _trace(evidence: Evidence) -> str:
    """In a few words: whether the mark is learnt, and how many were judged."""
    states = {each.outcome.traced for each in evidence.traced}
    learnt = "found in every network of the owner's" if states else "not tested on networks"
    learnt = "not found in every network of the owner's" if False in states else learnt
    count = len(evidence.suspects.verdicts) if evidence.suspects else 0
    return f"a secret mark, {learnt}" + (f"; {count} suspects judged" if count else "")


def _method(spelling: str, public: bool) -> str:
    """A method for people: by its preset where it has one; in a public report it is a name already."""
    if spelling == ALONE:
        return "a mark without an attack"
    if public:
        return spelling
    name, of = spelling.partition(":")[0], attacks.KNOWN.get(spelling.partition(":")[0])
    presets = (f"{name}:{preset}" for preset in getattr(of, "presets", ()))
    return next((preset for preset in presets if spell(attacks.attack(preset)) == spelling), spelling)


def _budget(budget: Budget) -> str:
    unit = {"linf": "of 255 grey levels a value", "l2": "in L2", "l0": "pixels", "none": ""}[budget.norm]
    return f"at most {budget.eps:g} {unit}" if budget.norm != "none" else "no bound"


# --- pictures ---


def _examples(evidence: Evidence, originals: publish.Originals | None) -> Pictures | None:
    lines = evidence.protected
    count = min(EXAMPLES, len(lines))
    return _pictures(evidence, [lines[(2 * i + 1) * len(lines) // (2 * count)] for i in range(count)], originals)


def _worst(evidence: Evidence, originals: publish.Originals | None) -> list[Block]:
    rated = sorted(
        (line for line in evidence.protected if line.ssim is not None), key=lambda line: (line.ssim or 0.0, line.out)
    )
    pictures = _pictures(evidence, rated[:5], originals)
    return [pictures] if pictures else []


def _pictures(evidence: Evidence, lines: Sequence[Line], originals: publish.Originals | None) -> Pictures | None:
    pictures = []
    for each in publish.shown(evidence.out, lines, originals):
        line, parts = each.line, [("protected", each.after)]
        if each.before is not None and each.change is not None:
            parts = [("original", each.before), *parts, ("difference, ten times", each.change)]
        small = max(line.width, line.height) <= SMALL
        pictures += [
            Picture(
                address="data:image/png;base64," + base64.b64encode(content).decode(),
                alt=f"{line.out}, class {line.class_name}: {text}",
                caption=f"{line.class_name}, {text}" if originals else line.class_name,
                small=small,
            )
            for text, content in parts
        ]
    columns = 3 if originals else min(len(pictures), 5)
    return Pictures(pictures, columns) if pictures else None


# --- form ---


def _rendered(page: Page, form: Form) -> str:
    html = form == "html"
    settings: dict[str, Any] = {"autoescape": True} if html else {"autoescape": False, "finalize": _plain_text}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("miue.report"), undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, **settings,
    )  # fmt: skip
    environment.filters["soft"] = _breakable
    text = environment.get_template(f"report.{form}").render(page=page, mark=MARK, raw=Markup)
    return text if html else re.sub(r"\n{3,}", "\n\n", text)


def _breakable(text: str) -> Markup:
    """The text with places after commas and slashes at which a line may end."""
    return Markup(re.sub(r"([,/])(?=\S)", r"\1<wbr>", str(escape(text))))


def _plain_text(value: Any) -> Any:
    """A text that means nothing to Markdown, on one line; what is marked as safe stays."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*_{}\[\]<>#|~!&$])", r"\\\1", " ".join(value.split()))
