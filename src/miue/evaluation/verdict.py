"""The verdict, and the thresholds that it is made by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from miue.evaluation.records import Verdict, VictimRun

LEARNT = 0.20  # a clean victim must gain this much over chance, or nothing can be concluded from it
HARMLESS = 0.10  # plain noise that costs more than this hides the pictures by itself
FITTED = 0.50  # share of its own training set, over chance, that a protected victim must have learnt


def judge(runs: Sequence[VictimRun], chance: float, threshold: float, largest: float = 0.0) -> tuple[Verdict, str]:
    """The verdict over all victims and seeds: one that breaks the protection decides, then one that proves nothing.

    chance: share of the largest class of the test set; largest: of the training set.
    """
    verdicts = []
    for victim in dict.fromkeys(r.victim for r in runs):
        by_role = {
            role: [r for r in runs if r.victim == victim and r.role == role] for role in ("clean", "noise", "protected")
        }
        verdicts.append(judge_victim(victim, by_role, chance, threshold, largest))
    broken = [reason for verdict, reason in verdicts if verdict == "not protected"]
    unsure = [reason for verdict, reason in verdicts if verdict == "inconclusive"]
    if broken or unsure:
        return "not protected" if broken else "inconclusive", "; ".join([*broken, *unsure])
    return "protected", "; ".join(reason for _, reason in verdicts)


def judge_victim(
    victim: str, runs: Mapping[str, Sequence[VictimRun]], chance: float, threshold: float, largest: float = 0.0
) -> tuple[Verdict, str]:
    """The verdict of one victim by itself: its runs by role, those of one seed at one place.

    What it has learned decides first: controls that failed can excuse a success of the protection, no failure.
    """
    clean, noise = (fmean(r.last for r in runs[role]) for role in ("clean", "noise"))
    least = min(r.last for r in runs["clean"])  # of every seed: a share is taken of each one's gain below
    if least - chance < LEARNT:
        return "inconclusive", f"{victim} reaches only {least:.1%} on clean pictures, chance is {chance:.1%}"
    kept = [(p.last - chance) / (c.last - chance) for p, c in zip(runs["protected"], runs["clean"], strict=True)]
    last = fmean(r.last for r in runs["protected"])
    text = f"{victim} keeps {max(fmean(kept), 0):.0%} of what clean pictures teach ({last:.1%} instead of {clean:.1%})"
    if min(kept) > threshold:
        return "not protected", text
    if clean - noise > HARMLESS:
        return "inconclusive", f"plain noise of this budget alone takes {victim} from {clean:.1%} to {noise:.1%}"
    fitted, guessed = min(r.train for r in runs["protected"]), max(chance, largest)
    if fitted - guessed < FITTED * (1 - guessed):
        return "inconclusive", f"{victim} did not even fit the protected pictures ({fitted:.1%}): trained too little"
    if max(kept) <= threshold:
        return "protected", text
    return "inconclusive", f"{text}, and its seeds lie on both sides of the threshold of {threshold:.0%}"


def notes(runs: Sequence[VictimRun]) -> list[str]:
    """What a reader must know beside the verdict."""
    notes = []
    for victim in dict.fromkeys(r.victim for r in runs):
        mine = [r for r in runs if r.victim == victim and r.role == "protected"]
        best, last = fmean(r.best for r in mine), fmean(r.last for r in mine)
        if best - last > 0.05:
            notes.append(f"{victim} was at {best:.1%} in its best epoch: whoever can watch clean pictures stops there")
    if len({r.seed for r in runs}) == 1:
        notes.append("one seed only: the spread is unknown")
    if len(devices := sorted({r.device for r in runs if r.device})) > 1:
        notes.append(f"victims were trained on {' and '.join(devices)}")
    return notes
