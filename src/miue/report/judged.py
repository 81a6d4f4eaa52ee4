"""The evaluations taken together, by their own judgements: kept shares, one verdict, and what was not tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from scipy.stats import t

from miue.defenses import parts
from miue.evaluation.records import PLAIN, Judgement, Outcome
from miue.evaluation.verdict import deciding
from miue.report.evidence import Dated

CONFIDENCE = 0.95
WAYS: Mapping[str, tuple[str, ...]] = {
    "grey pictures, or colour alone": ("gray", "chroma"),
    "compression and scaling": ("jpeg", "webp", "resize", "depth"),
    "blur, filters, more noise": ("blur", "lowpass", "coin", "noise"),
    "simple patterns or class means taken out": ("op", "classmean"),
    "strong augmentation": ("cutout", "cutmix", "mixup", "randaugment", "trivial", "strong", "plasma", "ueraser"),
    "adversarial training": ("at",),
    "training in stages": ("staged",),
    "cleaning by a learnt model": ("dvae", "diffpure"),
    "a network that was trained before": ("weights",),
    "learning without the labels first": ("simclr",),
    "clean copies of some of the pictures": ("tune", "inverse"),
}
"""Ways around a protection, each with the defenses and channels that try it."""


@dataclass(frozen=True)
class Kept:
    """One victim, by the judgement of the evaluation that decides: to the last epoch, or stopped early."""

    victim: str
    net: str
    defense: str
    """Spelling; empty for plain training."""
    channel: str
    threshold: float
    chance: float
    clean: Sequence[float]
    noise: Sequence[float]
    protected: Sequence[float]
    """Accuracies by what it was trained on, one a seed, at the epoch that the judgement is about."""
    judgement: Judgement
    last: float | None
    early: float | None
    """The kept shares of both judgements: at the last epoch, and stopped early."""
    chosen: Sequence[str] = ()
    """The choices of an adaptive trainer, if it is one."""

    @property
    def share(self) -> float | None:
        """Of the gain of clean pictures over guessing, the mean over seeds; None if the clean victim learnt nothing."""
        return self.judgement.kept

    @property
    def rank(self) -> float:
        """The share for comparisons; one that is not known is below all others, and never the worst."""
        return -1.0 if self.share is None else self.share

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's interval for the share, from 0; None for fewer than two seeds."""
        n = len(self.protected)
        if n < 2 or self.share is None:
            return None
        pairs = zip(self.protected, self.clean, strict=True)
        shares = [(own - self.chance) / (clean - self.chance) for own, clean in pairs]
        half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * stdev(shares) / n**0.5
        return max(fmean(shares) - half, 0.0), max(fmean(shares) + half, 0.0)

    @property
    def way(self) -> str:
        """Text for what was done to the pictures or in the training."""
        parts = [f"with {self.defense}"] if self.defense else [PLAIN]
        return ", ".join([*parts, *([f"after {self.channel}"] if self.channel else [])])


def kept(outcomes: Sequence[Dated]) -> list[Kept]:
    """One line for each victim of each evaluation: plain training first, then by what is kept."""
    lines = [line for each in outcomes for line in _of(each.outcome)]
    return sorted(lines, key=lambda line: (bool(line.defense or line.channel), -line.rank, line.victim))


def _of(outcome: Outcome) -> list[Kept]:
    lines = []
    for judgement in deciding(outcome.judgements):
        victim, which = judgement.victim, "early" if judgement.early else "last"
        own = [run for run in outcome.runs if run.victim == victim and run.role == "protected"]
        shares = {each.early: each.kept for each in outcome.judgements if each.victim == victim}
        defense = own[0].defense
        lines.append(
            Kept(
                victim=victim,
                net=victim.removesuffix(f" + {defense}"),
                defense=defense,
                channel=outcome.channel or "",
                threshold=outcome.threshold,
                chance=outcome.chance,
                clean=outcome.accuracies("clean", victim, which),
                noise=outcome.accuracies("noise", victim, which),
                protected=outcome.accuracies("protected", victim, which),
                judgement=judgement,
                last=shares[False],
                early=shares[True],
                chosen=tuple(dict.fromkeys(run.chosen for run in own if run.chosen)),
            )
        )
    return lines


@dataclass(frozen=True)
class Judged:
    """One verdict over all evaluations, in a sentence."""

    word: str
    tone: Literal["good", "bad", "open"]
    sentence: str
    main: Kept | None
    """The victim that the sentence is about."""


def judge(lines: Sequence[Kept], outcomes: Sequence[Dated]) -> Judged:
    """The verdict over all evaluations: one that broke the protection decides; else what was shown; else nothing was.

    An inconclusive evaluation shows nothing, so it does not weaken one that did; it stands in the table.
    """
    if not outcomes:
        return Judged("Not tested", "open", "Nothing is proven: no evaluation of these pictures was made yet.", None)
    verdicts = {each.outcome.verdict for each in outcomes}
    worst = max(lines, key=lambda line: (line.judgement.verdict == "not protected", line.rank))
    plain = next((line for line in lines if not line.defense and not line.channel), None)
    if "not protected" in verdicts:
        sentence = f"A{_told(worst)[1:]}."
        if plain and plain is not worst and plain.share is not None:
            sentence += f" With plain training it keeps {plain.share:.0%}."
        return Judged("Not protected", "bad", sentence, worst)
    if "protected" in verdicts:
        shown = [line for line in lines if line.judgement.verdict == "protected"]
        worst = max(shown, key=lambda line: line.rank)
        ways = (
            "In the one way that was tested"
            if len(shown) == 1
            else f"In the worst of {len(shown)} ways that were tested"
        )
        return Judged("Protected", "good", f"{ways}, {_told(worst)}.", worst)
    reason = outcomes[-1].outcome.reason
    return Judged("Not shown", "open", f"Nothing is proven, in either direction: {reason}.", plain or worst)


def _told(line: Kept) -> str:
    if line.share is None:
        return line.judgement.reason
    how = f"with {line.defense} " if line.defense else ""
    where = f" on pictures that went through {line.channel}" if line.channel else ""
    end = " and stopped early" if line.judgement.early else ""
    means = f"{fmean(line.protected):.1%} of new pictures correctly instead of {fmean(line.clean):.1%}"
    return (
        f"a network that is trained {how}on the published pictures{where}{end} keeps {line.share:.0%} of what the "
        f"originals teach. It names {means}; guessing gives {line.chance:.1%}"
    )


def untested(lines: Sequence[Kept], outcomes: Sequence[Dated]) -> list[str]:
    """The gaps of the evidence, in words: ways of training that no evaluation tried, and other gaps."""
    if not lines:
        return ["everything: no network was trained on these pictures yet"]
    words = {word for line in lines for text in (line.defense, line.channel) for word in _names(text)}
    words |= {name for each in outcomes for run in each.outcome.runs for way in run.tried for name in _names(way)}
    gaps = [way for way, names in WAYS.items() if not words & set(names)]
    gaps.append(f"networks other than {', '.join(dict.fromkeys(line.net for line in lines))}")
    gaps.append("pictures at other sizes than the networks saw")
    seeds = min(len(line.protected) for line in lines)
    return [*gaps, *(["more than one seed: the spread is not known"] if seeds == 1 else [])]


def _names(spelling: str) -> list[str]:
    """The names in a combination: "gray+jpeg:quality=10" gives gray and jpeg, "tune (2)" gives tune."""
    return [part.partition(":")[0].partition(" ")[0] for part in parts(spelling)]
