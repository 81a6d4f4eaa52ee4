"""The workflows of a trace: questions for a suspect, the judgement, the disclosure and its check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from miue import data, publish, trace
from miue.core.errors import Damaged, UserError
from miue.core.files import Record, digest, write_atomically
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.trace import Asked, Opened, Questions, Secret, Verdict
from miue.trace.answers import Answers, ask, hardened, read
from miue.trace.judge import How, check, decided, direct_test, gradient_test, now, weigh
from miue.trace.questions import BATCH, chosen
from miue.trace.secret import COINS
from miue.trace.tests import holm, two_stages
from miue.workflows.marking import secret_file
from miue.workflows.record import RunRecord

PARTS = ("part-1", "part-2")
TABLE, LIST = "questions.csv", "questions.json"


class Mismatch(UserError):
    """A key that does not belong to its commitment."""

    code = 3


class Declaration(Record):
    """The number of suspects and the level that an owner fixed before the first judgement, and who was judged since."""

    suspects: int
    alpha: float
    when: str
    judged: Mapping[str, str] = {}
    """Digest of the answers by the name of the suspect."""


class Judgement(Record):
    """One verdict, and how all suspects of a set stand."""

    suspect: str
    verdict: Verdict
    standing: Mapping[str, bool]
    """True by suspect if there is evidence against it, by Holm's method."""


@dataclass(frozen=True)
class Standing:
    """All suspects of a set that were judged, in order."""

    declared: Declaration
    verdicts: Mapping[str, Verdict]
    """By the name of the suspect."""

    @property
    def evidence(self) -> dict[str, bool]:
        """True by suspect if there is evidence against it, by Holm's method over all that were declared."""
        values = [verdict.p for verdict in self.verdicts.values()]
        return dict(zip(self.verdicts, holm(values, self.declared.alpha, self.declared.suspects), strict=True))


class Disclosure(Record):
    """The part of a secret by which others can repeat the judgement. Keys that it shows are worthless from then on."""

    commitment: str
    opened: Opened
    verdicts: Mapping[str, Verdict]
    seed: int
    """Seed of the counterfactual keys."""


@dataclass(frozen=True)
class _Place:
    """The private records of a trace."""

    private: Path

    @property
    def folder(self) -> Path:
        return self.private / "trace"

    @property
    def secret(self) -> Secret:
        return Secret.load(secret_file(self.private))

    @property
    def lists(self) -> list[Asked]:
        return [Asked.load(path) for path in sorted((self.folder / "questions").glob("*.json"))]

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdicts by the name of the suspect."""
        declared = self.declaration
        return {name: Verdict.load(self.verdict(name)) for name in (declared.judged if declared else ())}

    @property
    def declaration(self) -> Declaration | None:
        path = self.folder / "declaration.json"
        return Declaration.load(path) if path.exists() else None

    def verdict(self, name: str) -> Path:
        return self.folder / "verdicts" / f"{digest(name)}.json"

    def keep(self, declared: Declaration, name: str, verdict: Verdict) -> None:
        verdict.save(self.verdict(name))
        declared.model_copy(update={"judged": {**declared.judged, name: verdict.answers}}).save(
            self.folder / "declaration.json"
        )


def place_of(out: Path) -> _Place:
    """The private records of an output. Raises UserError if it has no trace."""
    if not RunRecord.of(out).commitment:
        raise UserError(f"{out}: carries no trace; `miue protect ... --trace` makes a set that can be traced")
    return _Place(data.private_of(out))


def standing(out: str | Path) -> Standing | None:
    """The standing of all suspects of a set; None if nobody was judged. The secret is not read. Raises UserError."""
    place = place_of(Path(out))
    declared = place.declaration
    return Standing(declared, place.verdicts) if declared and declared.judged else None


def questions(
    out: str | Path,
    to: str | Path,
    base: str | Path,
    *,
    count: int = 1000,
    size: int | None = None,
    amplitude: int = 16,
    seed: int = 0,
    split: str | None = None,
) -> Asked:
    """Write a list of questions for suspects: lossless pictures and a table. It contains no secret.

    The list is stated in the private folder, with the time, before anybody is asked. out: a set with a trace. to: a new
    folder. base: clean pictures that were never published. size: side of the questions; None: the set's canvas.
    amplitude: grey levels of the random fields. seed: a public number. Raises UserError.
    """
    out, to = Path(out), Path(to)
    place, record = place_of(out), RunRecord.of(out)
    publish.refuse_existing(to, "another folder")
    pictures = _base(out, base, size or record.settings.canvas, count, seed, split)
    content = Questions.of(place.secret.parameters, pictures, count, amplitude, seed)
    asked = content.asked.model_copy(update={"declared": now()})
    width = len(str(count - 1))  # two folders, because a set of one class is refused when it is read
    names = tuple(f"{PARTS[2 * i // count]}/{i:0{width}d}.png" for i in range(count))
    labels, shown = torch.tensor([2 * i // count for i in range(count)]), torch.cat(list(content.batches()))
    whole = ImageSet(shown, labels, PARTS, "questions", names)
    publish.export(whole, to)
    lines = ["question,file", *(f"{i},{name}" for i, name in enumerate(names))]
    write_atomically(to / TABLE, ("\n".join(lines) + "\n").encode())
    asked.save(to / LIST)
    asked.save(place.folder / "questions" / f"{_key(asked)}.json")
    return asked


def _key(asked: Asked) -> str:
    """Digest of a list of questions; the time is no part of it."""
    return digest(sorted(asked.model_dump(exclude={"declared"}).items()))


def _base(out: Path, base: str | Path, side: int, count: int, seed: int, split: str | None) -> ImageSet:
    """Clean pictures for questions, no more than are needed. Raises UserError if one was published."""
    data.check_canvas(side)
    source = data.scan(str(base), split=split, drop_columns=["*"], canvas=0)
    _, lines = publish.finished(data.private_of(out))
    published = {pixels for line in lines for pixels in (line.pixels, line.out_pixels) if pixels}
    if taken := [entry.path for entry in source.usable if entry.pixels in published]:
        raise UserError(
            f"{base}: {len(taken)} of its pictures are among the published ones, such as {taken[0]}; give pictures "
            "that were never published"
        )
    rows = {source.rows[i] for i in chosen([entry.pixels for entry in source.usable], 2 * count, seed)}
    entries = (e if i in rows else replace(e, status="skipped") for i, e in enumerate(source.entries))
    return data.read(replace(source, entries=tuple(entries)), side, grey=False)


def _asked(place: _Place, folder: Path | None) -> Asked:
    """The list of questions that was asked. Raises UserError if it was not stated before, or if there are several."""
    lists = place.lists
    if not lists:
        raise UserError(
            "no questions were made for this set; `miue trace questions` makes them, before anybody is asked"
        )
    if folder is not None:
        asked = Asked.load(folder / LIST, "make the questions anew")
        if _key(asked) not in map(_key, lists):
            raise UserError(
                f"{folder}: these questions were not made for this set; a list is stated before it is asked"
            )
        return asked
    if len(lists) > 1:
        counts = ", ".join(f"{asked.count} of {asked.declared}" for asked in lists)
        raise UserError(f"several lists of questions were made ({counts}); say with --questions which was asked")
    return lists[0]


def _shown(folder: Path, asked: Asked) -> UInt8[Tensor, "q c h w"]:
    """The pictures of a list. Raises UserError if they are not those that were written."""
    source = data.scan(str(folder), drop_columns=["*"], canvas=asked.size)
    pictures = data.read(source, asked.size, grey=False).images
    if len(pictures) != asked.count:
        raise UserError(f"{folder}: {len(pictures)} pictures, and {asked.count} were written; make the questions anew")
    return pictures


def judge_answers(
    out: str | Path,
    answers: str | Path,
    *,
    suspect: str | None = None,
    suspects: int = 1,
    alpha: float = 1e-3,
    unknown: bool = False,
    sequential: bool = False,
    asked: str | Path | None = None,
    rehearsal: bool = False,
    run: Run | None = None,
) -> Judgement:
    """Judge the answers in a file: CSV or parquet with `question`, and `label` or one column a class.

    out: a set with a trace. suspect: a name for the records; None: that of the file. suspects, alpha: fixed by the
    first judgement. unknown: whether labels or columns mean other classes. sequential: reveal keys one by one. asked:
    folder of the questions, if several lists were made. rehearsal: a network of one's own; nothing is counted or kept.
    Raises UserError.
    """
    out, path = Path(out), Path(answers)
    place = place_of(out)
    name = suspect or path.stem
    asking = _asked(place, None if asked is None else Path(asked))
    declared = _declared(place, name, suspects, alpha, rehearsal)
    given = read(path, place.secret.parameters.classes, asking.count, unknown)
    how: How = "sequential" if sequential else "signs"
    verdict = weigh(given, asking, place.secret.opened, test=how, alpha=alpha, suspects=suspects, run=run)
    return _judged(place, declared, name, verdict, rehearsal)


def judge_weights(
    out: str | Path,
    weights: str | Path,
    net: str,
    *,
    asked: str | Path,
    suspect: str | None = None,
    suspects: int = 1,
    alpha: float = 1e-3,
    labels_only: bool = False,
    sequential: bool = False,
    gradient: bool = False,
    direct: bool = False,
    rehearsal: bool = False,
    run: Run | None = None,
) -> Judgement:
    """Ask a network whose weights lie in a file, and judge it. net: its name, or "file.py:Net".

    labels_only: as if it showed no scores. gradient: test gradients of its outputs as well. direct: ask the keys
    themselves too, at half the level each. Other arguments as for `judge_answers`. Raises UserError.
    """
    out, folder, run = Path(out), Path(asked), run or Run()
    place = place_of(out)
    name, asking, opened = suspect or Path(weights).stem, _asked(place, folder), place.secret.opened
    declared = _declared(place, name, suspects, alpha, rehearsal)
    shape, classes = (asking.channels, asking.size, asking.size), opened.parameters.classes
    network = trace.network(Path(weights), net, shape, len(classes), run)
    pictures, model = _shown(folder, asking), trace.suspect_of(network, run)
    given = ask(model, pictures.split(BATCH), classes)
    given = hardened(given) if labels_only else given
    how: How = "sequential" if sequential else "signs"
    verdict = weigh(given, asking, opened, test=how, alpha=alpha, suspects=suspects, run=run)
    further = dict(verdict.further)
    if direct:
        second = direct_test(model, opened, pictures, run, labels_only=labels_only)
        p = two_stages(verdict.p, second.p)
        further |= {"blind": verdict.p, "direct": second.p}
        verdict = decided(verdict.model_copy(update={"p": p, "test": "two stages"}), alpha / suspects)
    if gradient:
        further["gradient"] = gradient_test(network, opened, pictures, run).p
    return _judged(place, declared, name, verdict.model_copy(update={"further": further}), rehearsal)


def _declared(place: _Place, name: str, suspects: int, alpha: float, rehearsal: bool) -> Declaration:
    """The declaration of earlier, or a new one. Raises UserError if it differs, or if this suspect is one too many."""
    check(alpha, suspects)
    known = place.declaration
    new = Declaration(suspects=suspects, alpha=alpha, when=now())
    if known is None or rehearsal:
        return new
    stated = f"{known.suspects} suspects at {known.alpha:g} were declared at the first judgement ({known.when})"
    if (known.suspects, known.alpha) != (suspects, alpha):
        raise UserError(f"{stated}, and this says {suspects} at {alpha:g}; what was declared cannot change later")
    if name not in known.judged and len(known.judged) >= known.suspects:
        raise UserError(f"{stated}, and {name!r} would be one more ({', '.join(known.judged)} were judged)")
    return known


def _judged(place: _Place, declared: Declaration, name: str, verdict: Verdict, rehearsal: bool) -> Judgement:
    """Keep a verdict and put it among the others. Raises UserError if this suspect gave other answers before."""
    if rehearsal:
        return Judgement(suspect=name, verdict=verdict, standing={name: verdict.evidence})
    verdicts = place.verdicts
    if declared.judged.get(name, verdict.answers) != verdict.answers:
        raise UserError(f"{name!r} was judged by other answers before; a suspect is tested once")
    if known := verdicts.get(name):
        if known.test != verdict.test:
            raise UserError(f"{name!r} was judged by the test {known.test!r} before; a suspect is tested once")
        verdict = known
    verdicts[name] = verdict
    place.keep(declared, name, verdict)
    return Judgement(suspect=name, verdict=verdict, standing=Standing(declared, verdicts).evidence)


def reveal(out: str | Path, to: str | Path) -> Disclosure:
    """Write what others need to repeat all judgements of a set. The keys in it are burnt for later suspects.

    A sequential test needs only the keys that it used: the others stay secret. Raises UserError if nobody was judged.
    """
    place, to = place_of(Path(out)), Path(to)
    publish.refuse_existing(to, "another file")
    verdicts, opened = place.verdicts, place.secret.opened
    if not verdicts:
        raise UserError(f"{out}: nobody was judged yet, and a disclosure burns the keys; judge first")
    names = set(opened.keys) - {COINS}
    if all(verdict.used is not None for verdict in verdicts.values()):
        names = {name for verdict in verdicts.values() for name in verdict.used or ()}
    shown = Disclosure(commitment=opened.commitment, opened=opened.only(names), verdicts=verdicts, seed=Run().seed)
    shown.save(to)
    return shown


class Checked(Record):
    """The result of a check."""

    suspect: str
    verdict: Verdict
    """As it came out here."""
    same: bool
    """True if it is the one that was disclosed."""
    published: bool
    """True if the commitment was compared with a published one."""


def check_disclosure(file: str | Path, answers: str | Path, *, notice: str | Path | None = None) -> Checked:
    """Repeat a judgement from a disclosure, without the private folder.

    answers: the suspect's answers. notice: the published PROTECTED.md, or its folder. Raises Mismatch if the keys do
    not belong to the commitment, and UserError if these answers were not judged.
    """
    path, table = Path(file), Path(answers)
    try:
        shown = Disclosure.load(path, "ask for it again")
    except Damaged:
        if not path.exists():
            raise UserError(f"{path}: there is no such disclosure") from None
        raise
    opened = shown.opened
    if wrong := opened.wrong():
        raise Mismatch(
            f"{path}: the key {wrong[0]} does not belong to the commitment ({len(wrong)} of {len(opened.keys)})"
        )
    if opened.commitment != shown.commitment:
        raise Mismatch(f"{path}: parameters or leaves are not those of the commitment {shown.commitment}")
    if notice is not None:
        text = Path(notice) / publish.NOTICE if Path(notice).is_dir() else Path(notice)
        if not text.is_file() or shown.commitment not in text.read_text("utf-8", errors="replace"):
            raise Mismatch(f"{text}: does not state the commitment {shown.commitment}")
    for name, verdict in shown.verdicts.items():
        if (given := _again(table, opened, verdict)) is not None:
            mine = weigh(
                given,
                verdict.asked,
                opened,
                test="signs" if verdict.test == "two stages" else verdict.test,
                alpha=verdict.alpha,
                suspects=verdict.suspects,
                run=Run(shown.seed),
            )
            p = verdict.further["blind"] if verdict.test == "two stages" else verdict.p
            same = abs(mine.p - p) <= 1e-9 * p and mine.evidence == (p <= verdict.alpha / verdict.suspects)
            return Checked(suspect=name, verdict=mine, same=same, published=notice is not None)
    raise UserError(f"{table}: these are not the answers of any suspect that was judged")


def _again(table: Path, opened: Opened, verdict: Verdict) -> Answers | None:
    """The answers, if they are those of a verdict."""
    given = read(table, opened.parameters.classes, verdict.asked.count, verdict.test == "unlabelled")
    for each in (given, hardened(given)):
        if each.digest == verdict.answers:
            return each
    return None
