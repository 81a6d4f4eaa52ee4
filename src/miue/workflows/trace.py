"""The owner's side of a trace: questions for a suspect, and the judgement. All records of it are private."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from miue import data, publish, trace
from miue.core.errors import UserError
from miue.core.files import Record, digest, write_atomically
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data.formats import chunks
from miue.trace import Asked, Questions, Secret, Verdict
from miue.trace.answers import Kept, ask, read
from miue.trace.judge import How, ask_directly, check, decided, gradient_test, now, weigh
from miue.trace.questions import BATCH, chosen, digest_of_all
from miue.trace.tests import holm
from miue.workflows.marking import secret_file
from miue.workflows.record import RunRecord

PARTS = ("part-1", "part-2")
TABLE, LIST = "questions.csv", "questions.json"
GRADIENT = "gradient"
"""The further test that nobody can repeat without the weights."""


class Mismatch(UserError):
    """Something that does not belong to its commitment."""

    code = 3


class Altered(UserError):
    """Questions that are not those of their list."""


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
    """Evidence and reason are those by Holm's method over all suspects that were judged."""
    standing: Mapping[str, bool]
    """True by suspect if there is evidence against it, by Holm's method."""
    rehearsal: bool = False
    """True if nothing was counted or kept."""


class Given(Record):
    """The answers of a suspect."""

    blind: Kept
    direct: Kept | None = None


class Revealed(Record):
    """The keys of a secret that were shown to others."""

    when: str
    """The first time."""
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """All suspects of a set that were judged, in order."""

    declared: Declaration
    verdicts: Mapping[str, Verdict]
    """By the name of the suspect."""

    @property
    def decided(self) -> dict[str, Verdict]:
        """The verdicts by Holm's method over all suspects that were declared."""
        levels = holm([verdict.p for verdict in self.verdicts.values()], self.declared.alpha, self.declared.suspects)
        return {name: decided(self.verdicts[name], level) for name, level in zip(self.verdicts, levels, strict=True)}

    @property
    def evidence(self) -> dict[str, bool]:
        """True by suspect if there is evidence against it."""
        return {name: verdict.evidence for name, verdict in self.decided.items()}


@dataclass(frozen=True)
class Place:
    """The private records of a trace."""

    private: Path
    commitment: str
    """As it was published."""

    @property
    def folder(self) -> Path:
        return self.private / "trace" / self.commitment[:16]

    @cached_property
    def secret(self) -> Secret:
        """The secret. Raises Mismatch if it is not the one that the set was marked with."""
        path = secret_file(self.private)
        secret = Secret.load(path)
        if secret.commitment != self.commitment:
            raise Mismatch(
                f"{path}: this secret belongs to the commitment {secret.commitment}, and the set was published with "
                f"{self.commitment}; bring back the file that belongs to it"
            )
        return secret

    @property
    def lists(self) -> list[Asked]:
        return [Asked.load(path) for path in sorted((self.folder / "questions").glob("*.json"))]

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdicts by the name of the suspect."""
        declared = self.declaration
        mend = "bring it back from a copy; the verdict cannot be made anew without the answers"
        return {name: Verdict.load(self.verdict(name), mend) for name in (declared.judged if declared else ())}

    @property
    def declaration(self) -> Declaration | None:
        path = self.folder / "declaration.json"
        mend = "bring it back from a copy; what was declared cannot be declared anew"
        return Declaration.load(path, mend) if path.exists() else None

    @property
    def revealed(self) -> Revealed | None:
        """The keys that were shown; None if all are secret."""
        path = self.folder / "revealed.json"
        return Revealed.load(path) if path.exists() else None

    def verdict(self, name: str) -> Path:
        return self.folder / "verdicts" / f"{digest(name)}.json"

    def given(self, name: str) -> Path:
        return self.folder / "answers" / f"{digest(name)}.json"

    def keep(self, declared: Declaration, name: str, verdict: Verdict, given: Given) -> None:
        """Save a verdict and what it was made from; the declaration comes last, so that it never names one too many."""
        given.save(self.given(name))
        verdict.save(self.verdict(name))
        declared.model_copy(update={"judged": {**declared.judged, name: verdict.answers}}).save(
            self.folder / "declaration.json"
        )

    def reveal(self, keys: Collection[str]) -> None:
        """Note that keys will be shown."""
        known = self.revealed or Revealed(when=now(), keys=())
        every = {*known.keys, *keys}
        known.model_copy(update={"keys": tuple(sorted(every))}).save(self.folder / "revealed.json")


def place_of(out: Path) -> Place:
    """The private records of an output. Raises UserError if it has no trace."""
    if not (commitment := RunRecord.of(out).commitment):
        raise UserError(f"{out}: carries no trace; `miue protect ... --trace` makes a set that can be traced")
    return Place(data.private_of(out), commitment)


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
    content = _content(
        out, place, base, record.settings.canvas if size is None else size, count, amplitude, seed, split
    )
    shown = torch.cat(list(content.batches()))
    asked = content.asked.model_copy(update={"declared": now(), "pictures": digest_of_all(shown)})
    names = _names(count)
    labels = torch.tensor([2 * i // count for i in range(count)])
    asked.save(place.folder / "questions" / f"{_key(asked)}.json")  # first, so that no list is asked that is not stated
    publish.export(ImageSet(shown, labels, PARTS, "questions", names), to, compression=1)  # random fields stay large
    write_atomically(to / TABLE, _table(count))
    asked.save(to / LIST)
    return asked


def _names(count: int) -> tuple[str, ...]:
    """The files of questions in order: in two folders, because a set of one class is refused when it is read."""
    return tuple(f"{PARTS[2 * i // count]}/{i:0{len(str(count - 1))}d}.png" for i in range(count))


def _table(count: int) -> bytes:
    return "".join(["question,file\n", *(f"{i},{name}\n" for i, name in enumerate(_names(count)))]).encode()


def _content(
    out: Path, place: Place, base: str | Path, size: int, count: int, amplitude: int, seed: int, split: str | None
) -> Questions:
    """The questions of these settings, not yet written. Raises UserError."""
    pictures = _base(out, base, size, count, split)
    return Questions.of(place.secret.parameters, pictures, count, amplitude, seed)


def _key(asked: Asked) -> str:
    """Digest of a list of questions; the time is no part of it."""
    return digest(sorted(asked.model_dump(exclude={"declared"}).items()))


def _base(out: Path, base: str | Path, side: int, count: int, split: str | None) -> ImageSet:
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
    rows = {source.rows[i] for i in chosen([entry.pixels for entry in source.usable], 2 * count)}
    entries = (e if i in rows else replace(e, status="skipped") for i, e in enumerate(source.entries))
    return data.read(replace(source, entries=tuple(entries)), side, grey=False)


def _asked(place: Place, folder: Path | None) -> Asked:
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


def pictures_of(folder: Path, asked: Asked) -> UInt8[Tensor, "q c h w"]:
    """The pictures of a list. Raises UserError if they are not those that were written."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of questions")
    source = data.scan(str(folder), drop_columns=["*"], canvas=asked.size)
    why = _strange(folder, source, asked)
    pictures = data.read(source, asked.size, grey=False).images
    if why := why or asked.wrong(pictures):
        raise Altered(f"{folder}: {why}; bring them back from a copy, or make the questions anew")
    return pictures


def _strange(folder: Path, source: data.Source, asked: Asked) -> str:
    """The reason why files are not as they were written: other names, more than pixels. Empty if they are."""
    table = folder / TABLE
    if not table.is_file() or table.read_bytes() != _table(asked.count):
        return f"{TABLE} is missing, or it numbers the files in another way"
    if tuple(entry.path for entry in source.usable) != _names(asked.count):
        return "the files have other names"
    for entry in source.usable:
        if (entry.mode, entry.width, entry.height) != ("RGB", asked.size, asked.size):
            return f"{entry.path} is {entry.width} x {entry.height}, {entry.mode}"
        if chunks((folder / entry.path).read_bytes()) != {b"IHDR", b"IDAT", b"IEND"}:
            return f"{entry.path} is no PNG file with pixels alone"
    return ""


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
    how: How = "sequential" if sequential else "signs"
    declared = _declared(place, name, how, suspects, alpha, rehearsal)
    given = read(path, place.secret.parameters.classes, asking.count, unknown)
    verdict = weigh(given, asking, place.secret.opened, test=how, alpha=alpha, suspects=suspects, run=run)
    return _judged(place, declared, name, verdict, Given(blind=given.kept), rehearsal)


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
    base: str | Path | None = None,
    split: str | None = None,
    rehearsal: bool = False,
    run: Run | None = None,
) -> Judgement:
    """Ask a network whose weights lie in a file, and judge it. net: its name, or "file.py:Net".

    labels_only: as if it showed no scores. gradient: test gradients of its outputs as well. direct: ask the keys
    themselves too, at half the level each. base, split: for those two, the clean pictures that the questions were made
    of. Other arguments as for `judge_answers`. Raises UserError.
    """
    out, folder, run = Path(out), Path(asked), run or Run()
    place = place_of(out)
    name, asking, opened = suspect or Path(weights).stem, _asked(place, folder), place.secret.opened
    how: How = "sequential" if sequential else "two stages" if direct else "signs"
    declared = _declared(place, name, how, suspects, alpha, rehearsal)
    shape, classes = (asking.channels, asking.size, asking.size), opened.parameters.classes
    clean = _clean(out, place, asking, base, split) if direct or gradient else None
    network = trace.network(Path(weights), net, shape, len(classes), run)
    model = trace.suspect_of(network, run)
    blind = ask(model, pictures_of(folder, asking).split(BATCH), classes, labels_only)
    second = ask_directly(model, opened, clean, labels_only=labels_only) if direct and clean is not None else None
    verdict = weigh(blind, asking, opened, test=how, direct=second, alpha=alpha, suspects=suspects, run=run)
    if gradient and clean is not None:
        p = gradient_test(network, opened, clean, run).p
        verdict = verdict.model_copy(update={"further": {**verdict.further, GRADIENT: p}})
    given = Given(blind=blind.kept, direct=second.kept if second else None)
    return _judged(place, declared, name, verdict, given, rehearsal)


def _clean(
    out: Path, place: Place, asked: Asked, base: str | Path | None, split: str | None
) -> UInt8[Tensor, "n c h w"]:
    """The pictures that a list of questions was made of. Raises UserError if these are others."""
    if base is None:
        raise UserError("--direct and --gradient need the clean pictures that the questions were made of; give --base")
    content = _content(out, place, base, asked.size, asked.count, asked.amplitude, asked.seed, split)
    if content.asked.base != asked.base:
        raise UserError(f"{base}: these are not the pictures that the questions were made of")
    return content.base


def _declared(place: Place, name: str, how: How, suspects: int, alpha: float, rehearsal: bool) -> Declaration:
    """The declaration of earlier, or a new one. Raises UserError if it differs, or if this suspect is one too many."""
    check(how, place.secret.opened, alpha, suspects)
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


def _judged(
    place: Place, declared: Declaration, name: str, verdict: Verdict, given: Given, rehearsal: bool
) -> Judgement:
    """Keep a verdict and put it among the others. Raises UserError if this suspect gave other answers before."""
    revealed = place.revealed
    verdict = verdict.model_copy(update={"burnt": revealed.when if revealed else ""})
    if rehearsal:
        return Judgement(suspect=name, verdict=verdict, standing={name: verdict.evidence}, rehearsal=True)
    verdicts = place.verdicts
    if declared.judged.get(name, verdict.answers) != verdict.answers:
        raise UserError(f"{name!r} was judged by other answers before; a suspect is tested once")
    if known := verdicts.get(name):
        if (known.test, known.direct) != (verdict.test, verdict.direct):
            raise UserError(f"{name!r} was judged by the test {known.test!r} before; a suspect is tested once")
        verdict = known
    place.keep(declared, name, verdict, given)
    every = Standing(declared, {**verdicts, name: verdict})
    return Judgement(suspect=name, verdict=every.decided[name], standing=every.evidence)
