"""The disclosure of a trace, by which others repeat the judgements, and its check, which needs nothing private."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from miue import publish
from miue.core.errors import Damaged, UserError
from miue.core.files import Record
from miue.trace import Asked, Opened, Verdict
from miue.trace.answers import hardened, read
from miue.trace.judge import together, weigh
from miue.workflows.questions import Altered, pictures_of
from miue.workflows.standing import Given, Mismatch, place_of
from miue.workflows.trace import GRADIENT

LOOSE = 1e-9  # share by which sums of floats may differ between machines
PASSING = ("seconds", "when", "miue", "burnt")  # facts about a judgement that do not come out again


class Disclosure(Record):
    """The part of a secret by which others can repeat judgements. Keys that it shows are worthless from then on."""

    commitment: str
    opened: Opened
    verdicts: Mapping[str, Verdict]
    """By the name of the suspect."""
    answers: Mapping[str, Given]
    """By the name of the suspect, as they were judged."""


class Checked(Record):
    """The result of a check."""

    verdicts: Mapping[str, Verdict]
    """By the name of the suspect, as they came out here."""
    different: Mapping[str, Sequence[str]]
    """Facts of each verdict that were disclosed otherwise; empty for the same."""
    commitment: str
    notice: bool
    """True if the commitment was compared with a published one."""
    questions: Sequence[str]
    """The suspects the pictures of whose questions were looked at."""
    suspect: str = ""
    """The suspect whose own answers were given; empty if the disclosed ones were taken as they are."""
    master: bool
    """True if all keys were shown to follow from one secret; else they may have been searched for one by one."""
    beacon: str
    """The value of the public number; empty if there is none."""
    named: str
    """The number, as it was named in the commitment."""

    @property
    def same(self) -> bool:
        """True if every verdict came out as it was disclosed."""
        return not any(self.different.values())


def reveal(out: str | Path, to: str | Path, *, suspect: str | None = None) -> Disclosure:
    """Write what others need to repeat the judgements of a set. The keys in it are burnt for later suspects.

    suspect: this one alone; None: all. A sequential test needs only the keys that it used: the others stay secret.
    Raises UserError if nobody was judged.
    """
    place, to = place_of(Path(out)), Path(to)
    publish.refuse_existing(to, "another file")
    verdicts, opened = place.verdicts, place.secret.opened
    if not verdicts:
        raise UserError(f"{out}: nobody was judged yet, and a disclosure burns the keys; judge first")
    if suspect is not None:
        if suspect not in verdicts:
            raise UserError(f"{suspect!r} was not judged; {', '.join(verdicts)} were")
        verdicts = {suspect: verdicts[suspect]}
    if all(verdict.used is not None for verdict in verdicts.values()):
        used = {name for verdict in verdicts.values() for name in verdict.used or ()}
        opened = opened.only(used) if used != {*opened.parameters.names} else opened
    verdicts = _standing(verdicts)
    answers = {name: Given.load(place.given(name)) for name in verdicts}
    shown = Disclosure(commitment=opened.commitment, opened=opened, verdicts=verdicts, answers=answers)
    place.reveal(opened.keys)
    shown.save(to)
    return shown


def check_disclosure(
    file: str | Path,
    answers: str | Path | None = None,
    *,
    notice: str | Path | None = None,
    questions: str | Path | Sequence[str | Path] = (),
) -> Checked:
    """Repeat all judgements of a disclosure, without the private folder.

    answers: a suspect's own answers, which must be among those that were judged. notice: the published PROTECTED.md, or
    its folder. questions: the folders of pictures that were asked, one for each list. Raises Mismatch if keys do not
    belong to the commitment, or pictures to no list, and UserError if these answers were not judged.
    """
    shown = _read(Path(file))
    if not shown.verdicts:
        raise Mismatch(f"{file}: there is no verdict in it")
    _belongs(Path(file), shown)
    if notice is not None:
        _stated(Path(notice), shown)
    folders = [questions] if isinstance(questions, str | Path) else questions
    lists = [_list_in(Path(folder), shown) for folder in folders]
    suspect = _whose(Path(answers), shown) if answers is not None else ""
    verdicts = _standing({name: _again(shown, name) for name in shown.verdicts})
    opened = shown.opened
    return Checked(
        verdicts=verdicts,
        different={name: list(_different(verdicts[name], shown.verdicts[name])) for name in verdicts},
        commitment=shown.commitment,
        notice=notice is not None,
        questions=[name for name, verdict in shown.verdicts.items() if verdict.asked in lists],
        suspect=suspect,
        master=bool(opened.master),
        beacon=opened.beacon,
        named=opened.parameters.beacon,
    )


def _read(path: Path) -> Disclosure:
    try:
        return Disclosure.load(path, "ask for it again")
    except Damaged:
        if not path.exists():
            raise UserError(f"{path}: there is no such disclosure") from None
        raise


def _belongs(path: Path, shown: Disclosure) -> None:
    """Raise Mismatch if keys or beacon do not belong to the commitment."""
    opened = shown.opened
    if wrong := opened.wrong():
        raise Mismatch(f"{path}: the key {wrong[0]} does not belong to the commitment ({len(wrong)} do not)")
    if opened.commitment != shown.commitment:
        raise Mismatch(f"{path}: parameters or leaves are not those of the commitment {shown.commitment}")
    if bool(opened.beacon) != bool(opened.parameters.beacon):
        raise Mismatch(f"{path}: a public number and its value belong together, and one of the two is missing")


def _stated(notice: Path, shown: Disclosure) -> None:
    """Raise Mismatch if a published text does not state commitment and beacon."""
    file = notice / publish.NOTICE if notice.is_dir() else notice
    if not file.is_file():
        raise UserError(f"{file}: there is no such file; give the PROTECTED.md that was published, or its folder")
    lines = [line.strip() for line in file.read_text("utf-8", errors="replace").splitlines()]
    opened = shown.opened
    facts = {"commitment": shown.commitment, "value": opened.beacon, "public number": opened.parameters.beacon}
    for name, value in facts.items():
        if value and value not in lines:
            raise Mismatch(f"{file}: does not state the {name} {value}")
    others = {line for line in lines if re.fullmatch("[0-9a-f]{32,}", line)} - {shown.commitment, opened.beacon}
    if others:
        raise Mismatch(f"{file}: states other commitments, too ({min(others)}), so that one could be chosen later")


def _list_in(folder: Path, shown: Disclosure) -> Asked:
    """The list of questions whose pictures lie in a folder. Raises Mismatch if nobody was asked these."""
    lists = list(dict.fromkeys(verdict.asked for verdict in shown.verdicts.values()))
    for asked in lists:
        try:
            pictures_of(folder, asked)
        except Altered as error:
            if len(lists) == 1:
                raise Mismatch(str(error)) from None
        else:
            return asked
    raise Mismatch(f"{folder}: these are the questions of nobody who was judged")


def _whose(table: Path, shown: Disclosure) -> str:
    """The suspect that gave these answers. Raises UserError if none of those that were judged did."""
    foreign = UserError(f"{table}: these are not the answers of any suspect that was judged")
    problem = foreign
    for name, verdict in shown.verdicts.items():
        unknown = verdict.test == "unlabelled"
        try:
            given = read(table, shown.opened.parameters.classes, verdict.asked.count, unknown)
        except UserError as error:  # they may be the answers to another list
            problem = error
            continue
        if verdict.answers in (given.digest, hardened(given).digest):
            return name
        problem = foreign
    raise problem


def _standing(verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Verdicts as they stand together, by Holm's method, at the level and number of suspects that they state."""
    levels = {(verdict.suspects, verdict.alpha) for verdict in verdicts.values()}
    if len(levels) > 1:
        raise Mismatch("the verdicts state different levels or numbers of suspects")
    ((suspects, alpha),) = levels
    return together(verdicts, alpha, suspects)


def _again(shown: Disclosure, name: str) -> Verdict:
    """A verdict, computed from keys and answers. Raises Mismatch if there are none that could be judged."""
    verdict, given = shown.verdicts[name], shown.answers.get(name)
    if given is None:
        raise Mismatch(f"the disclosure has no answers of {name!r}, so the verdict cannot be repeated")
    options: dict[str, Any] = {"test": verdict.test, "alpha": verdict.alpha, "suspects": verdict.suspects}
    try:
        direct = given.direct.answers if given.direct else None
        return weigh(given.blind.answers, verdict.asked, shown.opened, direct=direct, **options)
    except UserError as error:
        raise Mismatch(f"the verdict on {name!r} cannot be repeated: {error}") from None


def _different(here: Verdict, there: Verdict) -> Iterator[str]:
    """The names of facts that differ. What needs the weights is left out."""
    for name in Verdict.model_fields.keys() - {*PASSING, "further"}:
        if not _close(getattr(here, name), getattr(there, name)):
            yield name
    further = {name: p for name, p in there.further.items() if name != GRADIENT}
    if further.keys() != here.further.keys() or not all(_close(p, here.further[name]) for name, p in further.items()):
        yield "further"


def _close(here: object, there: object) -> bool:
    if isinstance(here, float) and isinstance(there, float):
        return abs(here - there) <= LOOSE * max(abs(here), abs(there), 1e-300)
    return here == there
