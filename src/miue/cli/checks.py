"""Print what checks say: of files, of what came back, and of the trace of a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from statistics import fmean

from rich import box
from rich.table import Table

from miue import data, publish
from miue.cli import telling
from miue.cli.show import console, lines
from miue.core.files import Record
from miue.workflows.disclosure import Checked
from miue.workflows.job import MOST
from miue.workflows.trace import Judgement


class Findings(Record):
    """Findings of `verify`, as JSON."""

    checked: int
    wrong: dict[str, str]
    rights: dict[str, str]
    """The statement of each file on data mining, as a key of the PLUS vocabulary; empty for nothing."""
    signed: int = 0
    """Number of files with content credentials (C2PA)."""


def findings(checked: Sequence[publish.Finding], measured: bool, json: bool) -> None:
    """Print what is wrong with an output. measured: whether the budget was measured again."""
    wrong = {finding.path: finding.problem for finding in checked if not finding.ok}
    signed = sum(finding.signed for finding in checked)
    if json:
        rights = {finding.path: finding.rights for finding in checked}
        print(Findings(checked=len(checked), wrong=wrong, rights=rights, signed=signed).model_dump_json(indent=1))
        return
    for path, problem in wrong.items():
        lines(f"{path}: {problem}")
    lines(*telling.by_key([finding.rights for finding in checked]))
    if signed:
        lines(f"content credentials (C2PA): {signed} of {len(checked)} files; miue rights show says whose")
    lines(f"{len(checked)} checked, {len(wrong)} wrong" + ("" if measured else " (budget as measured when written)"))


def returned(back: publish.Comeback, out: Path, clean: str, json: bool) -> None:
    """Print what became of published pictures on their way. out: as it was published; clean: its originals."""
    if json:
        print(back.model_dump_json(indent=1))
        return
    table = Table("files", "what they are", "noise left", "correlation", "least", box=box.SIMPLE)
    for status, count in back.counts.items():
        left = [each.left for each in back.files if each.status == status and each.left]
        means = (
            f"{fmean(values):.2f}" for values in ([x.share for x in left], [x.correlation for x in left]) if values
        )
        table.add_row(str(count), status, *means, *([f"{min(x.share for x in left):.2f}"] if left else []))
    console.print(table)
    wrong = sorted((each for each in back.files if not each.ok), key=lambda each: each.protected)
    for each in wrong[:MOST]:
        unsigned = "content credentials gone" if each.credentials == "gone" else ""
        lines(f"{each.path}: {'; '.join(filter(None, (_became(each), each.lost, unsigned)))}")
    if len(wrong) > MOST:
        lines(f"and {len(wrong) - MOST} more (--json lists all)")
    for lost, count in Counter(each.lost for each in back.files if each.lost).most_common():
        lines(f"{lost}: {count} of {sum(bool(each.rights) for each in back.files)} files that had one")
    for name in ("metadata", "credentials"):
        states = [getattr(each, name) for each in back.files if getattr(each, name)]
        if lost := len(states) - states.count("kept"):
            lines(f"{name}: changed or gone in {lost} of {len(states)} files that had them")
    if back.missing:
        lines(f"{back.missing} published pictures did not come back")
    if not any(each.found for each in back.files):
        lines(f"None of these files shows a picture of {data.readable(str(out))}")
    if back.channel:
        count = f"{back.alike} of {back.changed} changed files look"
        lines(f"{count} like: {back.channel}. Test what that does to the protection:")
        lines(f"  miue evaluate {quote(data.readable(str(out)))} --clean {quote(clean)} --channel {back.channel}")


def twins(back: publish.Comeback, json: bool) -> None:
    """Print the files that show a picture without its noise."""
    if json:
        print(back.model_dump_json(indent=1))
        return
    clean = [each for each in back.files if each.clean]
    for each in clean:
        lines(f"{each.path}: {_became(each)}")
    known = sum(each.found for each in back.files)
    lines(f"{len(back.files)} files, {known} show a picture of the set, {len(clean)} of them without its noise")
    if unread := [f"{each.path} ({each.reason})" for each in back.files if each.status == "no picture"]:
        lines(f"{len(unread)} could not be read, so clean pictures may be in them: {data.some(unread)}")
    if clean:
        lines("Each of these helps to undo the protection: keep them where nobody else gets them.")


def _became(each: publish.Returned) -> str:
    if each.exact:
        return f"the clean {each.original}, pixel by pixel"
    if each.status == "no picture":
        return f"is not the picture of that name, and cannot be read ({each.reason})"
    if each.status == "not found":
        return "no picture of this set that is recognised"
    if each.share is None:
        return f"{each.status}, {each.original}; what is left of the noise cannot be told"
    kind = "CLEAN, " if each.clean else ""
    size = f"{each.width} x {each.height} {each.form}"
    return f"{kind}{each.status}, {each.original}, {size}; noise left {each.share:.2f}"


def judgement(judgement: Judgement, json: bool) -> None:
    """Print the verdict on a suspect, and what it does not say."""
    if json:
        print(judgement.model_dump_json(indent=1))
        return
    verdict, name = judgement.verdict, data.readable(judgement.suspect)
    if judgement.rehearsal:
        lines("REHEARSAL: nothing is counted or kept, and it is no judgement of anybody.")
    lines(f"{name}: {'EVIDENCE OF USE' if verdict.evidence else 'NO EVIDENCE'}. {verdict.reason}")
    against = f", compared with {verdict.draws:,} keys that could have been drawn" if verdict.draws else ""
    bound = " (closed bound)" if verdict.bound else ""
    lines(f"test: {verdict.test}, {verdict.asked.count} questions, {verdict.kind}, z = {verdict.z:.1f}{against}{bound}")
    if verdict.used is not None:
        lines(f"{len(verdict.used)} keys were used; the others can stay secret")
    for test, p in verdict.further.items():
        lines(f"further, decides nothing: {test}: p = {p:.2g}")
    if len(judgement.standing) > 1:
        names = [data.readable(each) for each, evidence in judgement.standing.items() if evidence]
        lines(f"of {len(judgement.standing)} suspects judged, evidence against: {', '.join(names) or 'nobody'} (Holm)")
    lines(f"commitment: {verdict.commitment}")
    if verdict.burnt:
        lines(f"Keys were shown on {verdict.burnt}: models that were trained or asked since may know them from there.")
    if verdict.evidence:
        lines("It says that the model depends on this secret, not how it came by it (docs/trace.md: what is proved).")
    else:
        lines("It does not say that the set was not used (docs/limits.md: what erases a trace).")


def checked(checked: Checked, json: bool) -> None:
    """Print whether the judgements of a disclosure were repeated with the same result, and what that does not show."""
    if json:
        print(checked.model_dump_json(indent=1))
        return
    for name, verdict in checked.verdicts.items():
        facts = ", ".join(checked.different[name])
        same = f"NOT what was disclosed ({facts})" if facts else "the same as disclosed"
        word = "evidence of use" if verdict.evidence else "no evidence"
        lines(f"{data.readable(name)}: {word}; {same}")
        lines(f"  {verdict.reason}")
        lines(f"  test: {verdict.test}, {verdict.asked.count} questions, {verdict.kind}")
        if verdict.direct:
            blind = verdict.further["blind"]
            lines(f"  answers to direct questions are the owner's word; by the blind ones alone p = {blind:.2g}")
    lines(f"commitment: {checked.commitment}, to which the keys belong")
    lines(*_left_open(checked))


def _left_open(checked: Checked) -> Iterator[str]:
    """Lines on what a check did not look at, or cannot see."""
    if checked.suspect:
        yield f"The answers that were given are those by which {data.readable(checked.suspect)!r} was judged."
    else:
        yield "The answers are those that the disclosure states: compare them with the suspect's own, --answers FILE."
    if not checked.notice:
        yield "Whether that commitment was published was not looked at: give --notice PROTECTED.md."
    when = ", and before that number was known," if checked.beacon else ""
    yield f"When it was published decides: before the suspect was trained{when} and as the only one. Look at that."
    yield "Verdicts and suspects that were left out cannot be seen here: ask the owner for all of them."
    yield "An owner who knew the suspect could choose clean pictures that fit: the other side should choose them."
    if unseen := [name for name in checked.verdicts if name not in checked.questions]:
        names = data.some([data.readable(name) for name in unseen], 3)
        yield f"The pictures that were asked of {names} were not looked at: give --questions DIR, once for each list."
    if checked.beacon:
        yield f"The signs depend on a public number: see whether {checked.named!r} is {checked.beacon}."
    elif checked.master:
        yield "There is no public number: an owner who tried many secrets multiplied p by the number of tries."
    else:
        yield "There is neither a public number nor the master: keys may have been searched for, and p proves nothing."
