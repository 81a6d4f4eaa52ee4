"""The verdict, and its thresholds: all are relative to what clean pictures teach above chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from miue.evaluation.records import PLAIN, Judgement, Verdict, VictimRun

SURE = 3.0  # standard errors of somebody who guesses, above chance: a clean victim below has learned nothing
HARMLESS = 0.80  # share of the clean gain that plain noise must keep; otherwise the noise explains the effect
FITTED = 0.50  # share of its own training set, over chance, that a protected victim must have learnt
ROLES = ("clean", "noise", "protected")
ROUGH = 0.10  # standard error of a kept share from which a note says that the test set is small


def guess_error(chance: float, tested: int) -> float:
    """Standard error of the accuracy of somebody who guesses: sqrt(chance (1 - chance) / tested)."""
    return math.sqrt(chance * (1 - chance) / max(tested, 1))


def least_learnt(chance: float, tested: int) -> float:
    """Accuracy from which a clean victim has learned: a tenth of what can be learned above chance, and `SURE` standard
    errors; of more than ten classes as much as two guesses give, 1 - (1 - chance)^2.

    With many test pictures 19 % of ten classes, 2 % of a hundred, 55 % of two.
    """
    return chance + max(min(chance, 0.1) * (1 - chance), SURE * guess_error(chance, tested))


def fitted(train: float, chance: float) -> bool:
    """True if a victim has learnt enough of its own training set. chance: share of its largest class."""
    return train - chance >= FITTED * (1 - chance)


def judge(
    runs: Sequence[VictimRun], chance: float, tested: int, threshold: float, largest: float = 0.0
) -> tuple[Verdict, str, list[Judgement]]:
    """Return the verdict over all victims and seeds, its reason, and the judgements of which it consists.

    One trainer who breaks the protection makes it "not protected"; else one inconclusive one makes it "inconclusive".

    chance: share of the largest class of the test set of `tested` pictures; largest: of the training set.
    """
    judgements = []
    for victim in dict.fromkeys(r.victim for r in runs):
        by_role = {role: [r for r in runs if r.victim == victim and r.role == role] for role in ROLES}
        judgements += judge_victim(by_role, chance, tested, threshold, largest)
    return *concluded(judgements), judgements


def concluded(judgements: Sequence[Judgement]) -> tuple[Verdict, str]:
    """The verdict of several judgements, and its reason: of every victim the judgement that decides."""
    every = deciding(judgements)
    verdict = every[0].verdict
    if verdict == "protected":
        return verdict, max(every, key=lambda j: j.kept or 0).reason
    return verdict, "; ".join(j.reason for j in every if j.verdict != "protected")


def deciding(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Of every victim the judgement that decides, the last epoch or stopped early: the worst verdicts first."""
    ranks: list[Verdict] = ["not protected", "inconclusive", "protected"]
    every = [
        min((j for j in judgements if j.victim == victim), key=lambda j: (ranks.index(j.verdict), -(j.kept or 0)))
        for victim in dict.fromkeys(j.victim for j in judgements)
    ]
    return sorted(every, key=lambda j: ranks.index(j.verdict))


def judge_victim(
    runs: Mapping[str, Sequence[VictimRun]], chance: float, tested: int, threshold: float, largest: float = 0.0
) -> list[Judgement]:
    """Return two judgements of one victim: trained to the last epoch, and stopped early.

    Kept share: (accuracy - chance) / (accuracy with clean pictures - chance), seed by seed. A failed control can turn
    "protected" into "inconclusive", never "not protected".

    runs: by role, in the same order of seeds for each role; otherwise arguments as for `judge`.
    """
    return [_judged(runs, early, chance, tested, threshold, largest) for early in (False, True)]


def _judged(
    runs: Mapping[str, Sequence[VictimRun]], early: bool, chance: float, tested: int, threshold: float, largest: float
) -> Judgement:
    first = runs["protected"][0]
    clean, noise, left = ([r.early if early else r.last for r in runs[role]] for role in ROLES)
    name = f"{first.victim}, stopped early," if early else first.victim

    def judgement(verdict: Verdict, reason: str, kept: float | None = None) -> Judgement:
        trainer = first.defense or PLAIN
        return Judgement(
            victim=first.victim, trainer=trainer, early=early, verdict=verdict, kept=kept, reason=f"{name} {reason}"
        )

    tested = tested // 2 if early and first.stopped is not None else tested  # at least half are left to test on
    if min(clean) < (least := least_learnt(chance, tested)):  # not the mean: each seed's own gain is a divisor below
        own = " in its worst seed" if len(clean) > 1 else ""
        return judgement(
            "inconclusive",
            f"reaches only {min(clean):.1%}{own} when it is trained on clean pictures, chance is {chance:.1%}, "
            f"{least:.1%} would be enough",
        )
    shares = _shares(left, clean, chance)
    share, ends = max(fmean(shares), 0.0), f"({fmean(left):.1%} instead of {fmean(clean):.1%})"
    text = f"keeps {share:.0%} of what clean pictures teach {ends}"
    if min(shares) > threshold:
        return judgement("not protected", text, share)
    if (noise_keeps := fmean(_shares(noise, clean, chance))) < HARMLESS:
        return judgement(
            "inconclusive",
            f"keeps only {max(noise_keeps, 0):.0%} of what clean pictures teach with plain noise of this budget "
            f"({fmean(noise):.1%} instead of {fmean(clean):.1%}): the noise alone does harm",
            share,
        )
    train, guessed = min(r.train for r in runs["protected"]), max(chance, largest)
    if not fitted(train, guessed):
        return judgement(
            "inconclusive", f"did not even fit the protected pictures ({train:.1%}): trained too little", share
        )
    if max(shares) > threshold:
        return judgement(
            "inconclusive", f"{text}, and its seeds lie on both sides of the threshold of {threshold:.0%}", share
        )
    if (beside := fmean(left) - chance) > threshold * (fmean(noise) - chance):
        return judgement(
            "inconclusive",
            f"{text}, but {beside / (fmean(noise) - chance):.0%} of what plain noise leaves, above the threshold of "
            f"{threshold:.0%}",
            share,
        )
    return judgement("protected", text, share)


def _shares(accuracies: Sequence[float], clean: Sequence[float], chance: float) -> list[float]:
    return [(a - chance) / (c - chance) for a, c in zip(accuracies, clean, strict=True)]


def notes(runs: Sequence[VictimRun], chance: float, tested: int) -> list[str]:
    """Remarks that a reader needs beside the verdict."""
    notes = []
    if len({r.seed for r in runs}) == 1:
        notes.append("one seed only: the spread is unknown")
    gain = max(r.last for r in runs if r.role == "clean") - chance
    if gain > 0 and (error := guess_error(chance, tested) / gain) > ROUGH:
        notes.append(f"the test set has {tested} pictures: kept shares are uncertain by about ± {error:.0%}")
    if any(r.stopped is None for r in runs):
        notes.append("stopped early: the best epoch was chosen on the test pictures themselves")
    if len(devices := sorted({r.device for r in runs if r.device})) > 1:
        notes.append(f"victims were trained on {' and '.join(devices)}")
    return notes
