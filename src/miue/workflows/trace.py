"""The judgement of suspects by a trace: by their answers in a file, or by their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from miue import trace
from miue.core.errors import UserError
from miue.core.files import Record
from miue.core.run import Run
from miue.trace import Asked, Verdict
from miue.trace.answers import ask, read
from miue.trace.judge import How, ask_directly, check, gradient_test, now, weigh
from miue.trace.questions import BATCH
from miue.workflows.questions import asked_of, content_of, pictures_of
from miue.workflows.standing import Declaration, Given, Place, Standing, place_of

GRADIENT = "gradient"
"""The further test that nobody can repeat without the weights."""


class Judgement(Record):
    """One verdict, and how all suspects of a set stand."""

    suspect: str
    verdict: Verdict
    """Evidence and reason are those by Holm's method over all suspects that were judged."""
    standing: Mapping[str, bool]
    """True by suspect if there is evidence against it, by Holm's method."""
    rehearsal: bool = False
    """True if nothing was counted or kept."""


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
    asking = asked_of(place, None if asked is None else Path(asked))
    how: How = "sequential" if sequential else "signs"
    declared = _declared(place, name, how, suspects, alpha, rehearsal)
    given = read(path, place.secret.parameters.classes, asking.count, unknown)
    verdict = weigh(given, asking, place.secret.opened, test=how, alpha=alpha, suspects=suspects)
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
    name, asking, opened = suspect or Path(weights).stem, asked_of(place, folder), place.secret.opened
    how: How = "sequential" if sequential else "two stages" if direct else "signs"
    declared = _declared(place, name, how, suspects, alpha, rehearsal)
    shape, classes = (asking.channels, asking.size, asking.size), opened.parameters.classes
    clean = _clean(out, place, asking, base, split) if direct or gradient else None
    network = trace.network(Path(weights), net, shape, len(classes), run)
    model = trace.suspect_of(network, run)
    blind = ask(model, pictures_of(folder, asking).split(BATCH), classes, labels_only)
    second = ask_directly(model, opened, clean, labels_only=labels_only) if direct and clean is not None else None
    verdict = weigh(blind, asking, opened, test=how, direct=second, alpha=alpha, suspects=suspects)
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
    content = content_of(out, place, base, asked.size, asked.count, asked.amplitude, asked.seed, split)
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
