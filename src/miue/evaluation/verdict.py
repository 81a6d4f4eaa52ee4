"""The verdict, and its thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from miue.evaluation.records import Verdict, VictimRun

LEARNT = 0.20  # a clean victim must gain at least this much over chance; otherwise nothing can be concluded
HARMLESS = 0.10  # if plain noise costs more accuracy than this, the noise alone explains the effect
FITTED = 0.50  # share of its own training set, over chance, that a protected victim must have learnt


def judge(runs: Sequence[VictimRun], chance: float, threshold: float, largest: float = 0.0) -> tuple[Verdict, str]:
    """Return the verdict over all victims and seeds, and its reason.

    One victim that breaks the protection makes it "not protected"; else one inconclusive victim makes it
    "inconclusive".

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
    """Return the verdict of one victim, and its reason. runs: by role, in the same order of seeds for each role.

    A failed control can turn "protected" into "inconclusive", never "not protected".
    """
    clean, noise = (fmean(r.last for r in runs[role]) for role in ("clean", "noise"))
    least = min(r.last for r in runs["clean"])  # not the mean: each seed's own gain is a divisor below
    if least - chance < LEARNT:
        return "inconclusive", f"{victim} reaches only {least:.1%} on clean pictures, chance is {chance:.1%}"
    shares = [(p.last - chance) / (c.last - chance) for p, c in zip(runs["protected"], runs["clean"], strict=True)]
    last = fmean(r.last for r in runs["protected"])
    text = (
        f"{victim} keeps {max(fmean(shares), 0):.0%} of what clean pictures teach ({last:.1%} instead of {clean:.1%})"
    )
    if min(shares) > threshold:
        return "not protected", text
    if clean - noise > HARMLESS:
        return "inconclusive", f"plain noise of this budget alone takes {victim} from {clean:.1%} to {noise:.1%}"
    fitted, guessed = min(r.train for r in runs["protected"]), max(chance, largest)
    if fitted - guessed < FITTED * (1 - guessed):
        return "inconclusive", f"{victim} did not even fit the protected pictures ({fitted:.1%}): trained too little"
    if max(shares) <= threshold:
        return "protected", text
    return "inconclusive", f"{text}, and its seeds lie on both sides of the threshold of {threshold:.0%}"


def notes(runs: Sequence[VictimRun]) -> list[str]:
    """Remarks that a reader needs beside the verdict."""
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
