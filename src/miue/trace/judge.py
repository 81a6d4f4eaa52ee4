"""The judgement: from answers and a secret to a verdict with an exact p-value."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import exp
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float64, Int, UInt8
from torch import Tensor

from miue.core.errors import UserError
from miue.core.files import Record, installed
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Perturbation, stretch
from miue.trace import tests
from miue.trace.answers import LABELS, SCORES, Answers, Suspect, ask, hardened
from miue.trace.marks import mark_of
from miue.trace.questions import BATCH, Asked, Direct, Questions
from miue.trace.secret import SCHEME, Opened, Secret

How = Literal["signs", "unlabelled", "sequential", "two stages"]
DIRECT_PICTURES, DIRECT_TIMES = 10, 4  # pictures of each key, and by how much the mark is stronger on them


class Verdict(Record):
    """The result of one test of one suspect."""

    scheme: str = SCHEME
    commitment: str
    """Of the secret, as in PROTECTED.md."""
    test: How
    """The test that decides."""
    asked: Asked
    """The questions."""
    kind: Literal["scores", "labels"]
    """The form of the suspect's answers."""
    answers: str
    """Digest of the answers."""
    direct: str = ""
    """Digest of the answers to direct questions; empty if there were none."""
    statistic: float
    z: float
    """The statistic in standard deviations of the null."""
    p: float
    draws: int
    """Counterfactual keys, whose seed follows from the answers; 0 where the test needs none."""
    bound: bool = False
    """True if p is the closed bound exp(-z^2 / 2)."""
    alpha: float
    """Chance of a false accusation among all suspects together, declared before."""
    suspects: int
    """Number of suspects that were declared."""
    evidence: bool
    reason: str
    further: Mapping[str, float] = {}
    """p-values of other tests. They decide nothing."""
    used: Sequence[str] | None = None
    """Keys that a sequential test revealed; None if the test used them all."""
    burnt: str = ""
    """When keys of this secret had been shown by then; empty if all were secret."""
    seconds: float
    """Without the time in which the suspect answered."""
    when: str
    miue: str


def check(test: str, opened: Opened, alpha: float, suspects: int) -> How:
    """The test. Raises UserError if it does not exist, if keys do not allow it, or if the level makes no sense."""
    if test not in get_args(How):
        raise UserError(f"test {test!r}: allowed are {', '.join(get_args(How))}")
    if not 0 < alpha <= 0.05:
        raise UserError(f"alpha {alpha:g} is not between 0 and 0.05; 1e-3 is usual for an accusation")
    if suspects < 1:
        raise UserError(f"{suspects} suspects: at least 1")
    if test == "sequential":
        least, level = exp(-tests.assignments(opened.parameters.owners)), alpha / suspects
        if least > level:
            raise UserError(
                f"with {len(opened.parameters.names)} keys, p of a sequential test is at least {least:.2g}, and "
                f"{level:.2g} is needed; the usual test works"
            )
        if not opened.first:
            raise UserError("the keys with which a sequential test begins are not shown")
    return cast(How, test)


def weigh(
    answers: Answers,
    asked: Asked,
    opened: Opened,
    *,
    test: str = "signs",
    direct: Answers | None = None,
    alpha: float = 1e-3,
    suspects: int = 1,
) -> Verdict:
    """The verdict on answers to blind questions; the first of them suspects, by Holm's method.

    test "signs", "unlabelled" (nobody knows which output is which class), "sequential" (reveals keys one by one and
    stops as soon as there is evidence) or "two stages" (with the answers to `direct` questions, half of the level
    each). The same answers and keys always give the same verdict. Raises UserError.
    """
    start, level = time.monotonic(), alpha / suspects
    run = Run(seed=int(answers.digest[:7], 16))  # nobody chooses the keys that it is compared with
    test = _fitting(check(test, opened, alpha, suspects), answers, asked, opened)
    if (direct is None) == (test == "two stages"):
        raise UserError('answers to direct questions and the test "two stages" belong together')
    further, used = dict[str, float](), None
    if test == "sequential":
        result, used = _sequential(answers, asked, opened, level)
    elif test == "unlabelled":
        responses = tests.response(answers.values, asked.signs)
        result = tests.unlabelled_test(responses, opened.stacked(), run.rng("trace", "unlabelled"))
    else:
        result = _signs(answers, asked, opened, run)
        further = _further(answers, asked, opened, run)
    if direct is not None:
        blind, second = result, direct_test(direct, opened, run)
        result = replace(blind, p=tests.two_stages(blind.p, second.p))
        further = {"blind": blind.p, "direct": second.p, **further}
    verdict = Verdict(
        commitment=opened.commitment,
        test=test,
        asked=asked,
        kind=answers.kind,
        answers=answers.digest,
        direct=direct.digest if direct else "",
        statistic=result.statistic,
        z=result.z,
        p=result.p,
        draws=result.draws,
        bound=result.bound,
        alpha=alpha,
        suspects=suspects,
        evidence=False,
        reason="",
        further=further,
        used=used,
        seconds=time.monotonic() - start,
        when=now(),
        miue=installed(),
    )
    return decided(verdict, level)


def _fitting(test: How, answers: Answers, asked: Asked, opened: Opened) -> How:
    """The test, or the one without names for answers of unknown classes. Raises UserError if answers do not fit."""
    parameters = opened.parameters
    if len(answers.values) != asked.count:
        raise UserError(f"{len(answers.values)} answers for {asked.count} questions")
    if (asked.channels, asked.cells) != (parameters.channels, parameters.cells):
        raise UserError("these questions were made for marks of another kind; make them for this set")
    if not answers.known and test not in ("signs", "unlabelled"):
        raise UserError(
            f"the test {test!r} must know which answer is which class; --labels unknown has a test of its own"
        )
    if answers.known and test != "unlabelled" and not set(answers.outputs) & set(parameters.classes):
        raise UserError(
            "no output of the suspect is named like a class of this set; --labels unknown tests without names"
        )
    return test if answers.known else "unlabelled"


def now() -> str:
    """The time in UTC, as the records of a trace state it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def decided(verdict: Verdict, level: float) -> Verdict:
    """A copy with evidence and reason by its own p-value."""
    among = f" (1 of {verdict.suspects} suspects)" if verdict.suspects > 1 else ""
    if evidence := verdict.p <= level:
        reason = f"p = {verdict.p:.2g}, at most {level:.2g}{among}: the model depends on this secret"
    else:
        reason = f"p = {verdict.p:.2g}, above {level:.2g}{among}; this does not show that the set was not used"
    return verdict.model_copy(update={"evidence": evidence, "reason": reason})


def together(verdicts: Mapping[str, Verdict], alpha: float, suspects: int) -> dict[str, Verdict]:
    """Copies with evidence and reason by Holm's method over all suspects that were declared."""
    levels = tests.holm([verdict.p for verdict in verdicts.values()], alpha, suspects)
    return {name: decided(verdict, level) for (name, verdict), level in zip(verdicts.items(), levels, strict=True)}


def _signs(answers: Answers, asked: Asked, opened: Opened, run: Run) -> tests.Test:
    parameters = opened.parameters
    columns = answers.columns(parameters.classes, range(len(parameters.classes)))
    responses = tests.response(columns, asked.signs)
    return tests.sign_test(responses[parameters.owners], opened.stacked(), run.rng("trace", "signs"))


def _further(answers: Answers, asked: Asked, opened: Opened, run: Run) -> dict[str, float]:
    """Cross-checks: the assignment test where there are enough classes, and the labels alone where scores are known."""
    parameters, further = opened.parameters, dict[str, float]()
    columns = answers.columns(parameters.classes, range(len(parameters.classes)))
    table = opened.stacked().flatten(1).double() @ tests.response(columns, asked.signs).T
    with suppress(UserError):  # too few classes: the sign test does without
        further["assignment"] = tests.assignment_test(table, parameters.owners, run.rng("trace", "assignment")).p
    if answers.kind == SCORES:
        further["labels alone"] = _signs(hardened(answers), asked, opened, run).p
    return further


def _sequential(answers: Answers, asked: Asked, opened: Opened, level: float) -> tuple[tests.Test, list[str]]:
    """The bet on the keys that are shown, in the order of their leaves."""
    parameters, names = opened.parameters, opened.first
    columns = answers.columns(parameters.classes, range(len(parameters.classes)))
    fields = torch.stack([opened.signs[name] for name in names])
    lifts = tests.blind_lifts(tests.response(columns, asked.signs), fields)
    owners = [int(name.partition("/")[0]) for name in names]
    bet = tests.wealth(lifts, owners, [parameters.keys] * len(parameters.classes), stop=1 / level)
    return tests.Test(max(bet.course), 0.0, bet.p, 0), list(names[: bet.used])


def judge(
    suspect: Suspect,
    secret: Secret | Opened | Perturbation,
    base: ImageSet,
    *,
    test: str = "signs",
    count: int = 1000,
    amplitude: int = 16,
    seed: int = 0,
    labels_only: bool = False,
    alpha: float = 1e-3,
    suspects: int = 1,
) -> Verdict:
    """Ask a suspect and judge the answers: was it trained on the pictures that carry this secret's marks?

    suspect: any callable from uint8 pictures [b c h w] to probabilities or logits [b k], in the order of the classes,
    or to labels [b] as whole numbers. base: clean pictures that were never published, at the size that the suspect
    takes. test "two stages" asks the keys themselves as well, at half the level each. alpha, suspects: see `Verdict`.
    Raises UserError.
    """
    if isinstance(secret, Perturbation):
        raise UserError(
            "a key is drawn before anything is optimised, and this is a perturbation: optimised noise looks like its "
            "class to networks that never saw it, so its p-values accuse the innocent"
        )
    opened = secret.opened if isinstance(secret, Secret) else secret
    check(test, opened, alpha, suspects)
    questions = Questions.of(opened.parameters, base, count, amplitude, seed)
    answers = ask(suspect, questions.batches(), opened.parameters.classes, labels_only)
    direct = ask_directly(suspect, opened, questions.base, labels_only=labels_only) if test == "two stages" else None
    return weigh(answers, questions.asked, opened, test=test, direct=direct, alpha=alpha, suspects=suspects)


def ask_directly(
    suspect: Suspect,
    opened: Opened,
    base: UInt8[Tensor, "n c h w"],
    *,
    pictures: int = DIRECT_PICTURES,
    times: int = DIRECT_TIMES,
    labels_only: bool = False,
) -> Answers:
    """Ask the keys themselves: `pictures` pictures with each key, `times` as strong as its mark, among decoys.

    It shows the keys to the suspect. base: pictures that were never published. Raises UserError.
    """
    strength, base = min(times * opened.parameters.strength, 127), base[:pictures]
    direct = Direct.of(opened, len(base))
    return ask(suspect, direct.batches(base, strength), opened.parameters.classes, labels_only)


def direct_test(answers: Answers, opened: Opened, run: Run | None = None) -> tests.Test:
    """The assignment test on answers of `ask_directly`. Raises UserError for too few classes, or other answers."""
    parameters = opened.parameters
    pictures, rest = divmod(len(answers.values), 2 * len(parameters.names))
    if rest or not pictures:
        raise UserError(f"{len(answers.values)} answers to direct questions for {len(parameters.names)} keys")
    columns = answers.columns(parameters.classes, range(len(parameters.classes)))
    table = Direct.of(opened, pictures).by_key(columns)
    return tests.assignment_test(table, parameters.owners, (run or Run()).rng("trace", "direct"))


def picture_test(
    suspect: Suspect, secret: Secret, data: ImageSet, digests: Sequence[str], run: Run | None = None
) -> tests.Test:
    """Ask with the original pictures, each with its own key and with the other one of its class.

    D_i = log p_y(x_i + its mark) - log p_y(x_i + the other mark), summed over equal files, which share a coin, and
    tested by sign flips, because the coins are ours. It sees that single pictures were memorised. data: the originals.
    digests: SHA-256 of their files. Raises UserError unless the secret has two keys a class, and for a suspect without
    scores.
    """
    if secret.parameters.keys != 2:
        raise UserError("the test by pictures needs two keys a class: protect with --trace-keys 2")
    coins = torch.tensor(secret.coins(digests))
    mark = mark_of(secret, *data.shape[1:])

    def scores(coin: Int[Tensor, "n"]) -> Float64[Tensor, "n"]:
        chosen = Perturbation(mark, Budget(secret.parameters.strength), "trace", 2 * data.labels + coin)
        batches = chosen.apply(data).images.split(BATCH)
        answers = ask(suspect, batches, data.classes)
        if answers.kind == LABELS:
            raise UserError("the test by pictures needs scores, and the suspect gives labels")
        logs = answers.values.log_softmax(1)
        return logs[torch.arange(len(data)), data.labels]

    places = {digest: place for place, digest in enumerate(dict.fromkeys(digests))}
    difference = torch.zeros(len(places), 1, dtype=torch.float64)
    difference.index_add_(
        0, torch.tensor([places[each] for each in digests]), (scores(coins) - scores(1 - coins))[:, None]
    )
    ones = torch.ones(len(places), 1, dtype=torch.int8)
    return tests.sign_test(difference, ones, (run or Run()).rng("trace", "coins"))


def gradient_test(
    network: Any, opened: Opened, base: UInt8[Tensor, "n c h w"], run: Run | None = None, pictures: int = 300
) -> tests.Test:
    """The sign test on gradients of a network's outputs by the cells, through `stretch`. Needs the weights.

    network: a module from float pictures in [0, 1] to logits [b k], in the order of the classes. base: pictures that
    were never published.
    """
    run, parameters = run or Run(), opened.parameters
    total = torch.zeros(len(parameters.classes), parameters.channels * parameters.cells**2, dtype=torch.float64)
    base = base[:pictures]
    for part in base.split(BATCH):
        total += _gradients(network, run.put(part).float() / 255, parameters.shape, len(parameters.classes))
    return tests.sign_test((total / len(base))[parameters.owners], opened.stacked(), run.rng("trace", "gradient"))


def _gradients(network: Any, x: Tensor, shape: tuple[int, int, int], classes: int) -> Float64[Tensor, "l d"]:
    cells = torch.zeros(len(x), *shape, device=x.device, requires_grad=True)
    logits = network(x + stretch(cells, x.shape[2], x.shape[3]))
    logits = logits - logits.mean(1, keepdim=True)
    sums = [
        torch.autograd.grad(logits[:, c].sum(), cells, retain_graph=c + 1 < classes)[0].sum(0) for c in range(classes)
    ]
    return torch.stack(sums).flatten(1).cpu().double()
