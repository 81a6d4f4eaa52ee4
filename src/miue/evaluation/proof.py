"""What a protection is worth: the same victims on clean, noisy and protected pictures, and a verdict with doubts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import torch

from miue import nets
from miue.analysis.records import Outcome, Role, Size, Verdict, VictimRun
from miue.attacks import Noise
from miue.core.run import Run, locked, write_atomically
from miue.core.spelling import digest, read_record
from miue.core.types import Budget, ImageSet, UserError
from miue.data import measure, through
from miue.nets import Classifier
from miue.training.batches import Batches
from miue.training.loop import accuracy
from miue.victims.fit import FITTED, HARMLESS, LEARNT, TRAINED, Recipe, fit, keep_victim, prepare

VERSION = 1  # of what a victim run means; a higher number makes kept ones void
CHECKS = 10  # how often a victim is tested while it trains, for its best epoch
EARLY = 3  # epochs at the beginning that are tested besides: there many are at their best
KEPT = 100_000_000  # bytes of weights of one evaluation that are kept unasked


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How a proof is made: the recipes (one a victim), the seeds and the threshold, all declared before the run.

    threshold: largest share of the clean victim's gain over chance that a protected victim may keep; chance is the
    share of the largest class of the test set. noise: the control, on the same grid as the attack's. keep_victims:
    whether the trained networks stay, so that an analysis need not train them again; None: below KEPT bytes in all.
    """

    recipes: Sequence[Recipe]
    seeds: int = 3
    threshold: float = 0.25
    noise: Noise = field(default_factory=Noise)
    keep_victims: bool | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1 or not self.recipes:
            raise UserError(f"{self.seeds} seeds, {len(self.recipes)} recipes: at least 1 of each")
        names = [recipe.victim for recipe in self.recipes]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"two victims are called {twice[0]}: their results could not be told apart; leave one out")
        if not 0 < self.threshold < 1:
            raise UserError(f"threshold {self.threshold:g}: allowed is what lies between 0 and 1, 0.25 for a quarter")

    def __call__(
        self,
        clean: ImageSet,
        test: ImageSet,
        protected: ImageSet,
        budget: Budget,
        run: Run,
        method: str = "unknown",
        channel: str | None = None,
    ) -> Outcome:
        """Train every victim on clean, noise and protected; rows of the three sets correspond. Resumes by content.

        channel: what all three go through on their way to the victims, the noise as it would be published.
        """
        if clean.classes != protected.classes or clean.classes != test.classes:
            raise UserError("the clean, the test and the protected set do not have the same classes in the same order")
        if not torch.equal(clean.labels, protected.labels):
            raise UserError("the clean and the protected set do not have the same labels, row by row")
        twins = told_twice(test, clean, protected)
        heavy = 3 * self.seeds * check_victims(self.recipes, clean, test, run) > KEPT
        weights = not heavy if self.keep_victims is None else self.keep_victims
        size = measure(clean, protected)
        control = _matched(budget, size)
        noisy = self.noise(clean, control, run.reseeded(0)).apply(clean)
        sets: dict[Role, ImageSet] = {"clean": clean, "noise": noisy, "protected": protected}
        if channel:
            sets = {role: through(data, channel) for role, data in sets.items()}
            size = measure(sets["clean"], sets["protected"])
        runs = [
            train_victim(role, data, test, recipe, run.reseeded(run.seed + seed), run.keep, weights)
            for recipe in self.recipes
            for seed in range(self.seeds)
            for role, data in sets.items()
        ]
        verdict, reason = judge(runs, test.chance, self.threshold, clean.chance)
        return Outcome(
            name=sets["protected"].name,
            method=method,
            channel=channel,
            budget=str(budget),
            classes=len(clean.classes),
            chance=test.chance,
            images=len(clean),
            data={role: data.digest for role, data in sets.items()} | {"test": test.digest},
            recipe={r.victim: r.described() for r in self.recipes},
            threshold=self.threshold,
            size=size,
            runs=runs,
            verdict=verdict,
            reason=reason,
            notes=[
                *_notes(runs),
                *([f"as victims see them, {size.leaves}"] if size and size.leaves else []),
                *([] if control == budget else [f"the noise control has a budget of {control}"]),
                *([twins] if twins else []),
            ],
            machine=run.machine,
        )


def check_victims(recipes: Sequence[Recipe], data: ImageSet, test: ImageSet, run: Run) -> int:
    """Bytes that the weights of one victim of each recipe take. Raises UserError for victims that cannot be had.

    That is asked before hours of work on others: for a network that cannot be built or takes no pictures of this size,
    for weights that are another network's, and where a defense learns from pictures that are to test it.
    """
    with run.seeded("nets"):
        sizes = {net: nets.tried(net, data.shape, len(data.classes)) for net in {recipe.net for recipe in recipes}}
        starts = {repr((start, recipe.net)): (start, recipe.net) for recipe in recipes for start in recipe.start}
        for start, net in starts.values():
            if check := getattr(start, "check", None):
                check(nets.build(net, data.shape, len(data.classes)))
    for finish in {repr(finish): finish for recipe in recipes for finish in recipe.finish}.values():
        if pictures := getattr(finish, "pictures", None):
            seen = pictures(data)
            if count := _common(test, seen):
                raise UserError(
                    f"{seen.name}: {count} of {len(test)} test pictures are among those that a defense learns from; "
                    "give it pictures that are in no test set, or name a test set of other pictures"
                )
    return sum(sizes[recipe.net] for recipe in recipes)


def repeated(test: ImageSet, trained: ImageSet) -> int:
    """How many test pictures are among those to train on. UserError where most are: nothing would be tested."""
    count = _common(test, trained)
    if 2 * count > len(test):
        raise UserError(
            f"{test.name}: {count} of its {len(test)} test pictures are among those that victims train on "
            f"({trained.name}); test on pictures that are in no training set, or leave --test out: a part is held out"
        )
    return count


def _common(test: ImageSet, other: ImageSet) -> int:
    known = {hash(image.numpy().tobytes()) for image in other.images}
    return sum(hash(image.numpy().tobytes()) in known for image in test.images)


def told_twice(test: ImageSet, *trained: ImageSet) -> str:
    """What is said of test pictures that victims also train on; empty where there are none. UserError for most."""
    count = max(repeated(test, part) for part in trained)
    return f"{count} of {len(test)} test pictures are training pictures, too" if count else ""


def _matched(budget: Budget, size: Size | None) -> Budget:
    """The budget of the noise control: that of the attack; where it has no bound, the mean L2 that was measured."""
    return Budget(max(size.l2, 1 / 255), "l2") if size and budget.norm == "none" else budget


def train_victim(
    role: Role,
    data: ImageSet,
    test: ImageSet,
    recipe: Recipe,
    run: Run,
    keep: Path | None,
    weights: bool = False,
) -> VictimRun:
    """One victim, or its record where the same one was trained before, perhaps by another process meanwhile.

    weights: whether its weights are kept beside the record, for an analysis.
    """
    if keep is None:
        return _trained(role, data, test, recipe, replace(run, keep=None))[0]
    key = digest(VERSION, recipe, data.digest, test.digest, run.seed)
    record = keep / "victims" / f"{key}.json"
    with locked(keep, f"victim-{key}"):
        if record.is_file():
            names = {"role": role, "victim": recipe.victim, "defense": recipe.defense}
            return read_record(VictimRun, record).model_copy(update=names)
        run = replace(run, keep=keep / "victims" / key)
        done, net = _trained(role, data, test, recipe, run)
        if weights:
            keep_victim(net, data, recipe, replace(run, keep=keep / TRAINED))
        write_atomically(record, done.model_dump_json(indent=1).encode())
        run.forget()
        return done


def _trained(role: Role, data: ImageSet, test: ImageSet, recipe: Recipe, run: Run) -> tuple[VictimRun, Classifier]:
    tests, start = Batches(test, run), time.monotonic()
    every = 1 if recipe.hold_out else max(recipe.epochs // CHECKS, 1)

    def watch(epoch: int, net: Classifier) -> float | None:
        return accuracy(net, tests, run) if epoch <= EARLY or epoch % every == 0 or epoch == recipe.epochs else None

    ready = prepare(data, recipe, run)
    net, seen = fit(ready, recipe, run, watch)
    last = accuracy(net, tests, run) if recipe.hold_out or recipe.finish else seen[recipe.epochs]
    if recipe.finish:  # what came after the last epoch counts as a part of it
        seen[recipe.epochs] = last
    best = max(seen, key=lambda epoch: (seen[epoch], -epoch))
    record = VictimRun(
        role=role,
        victim=recipe.victim,
        defense=recipe.defense,
        seed=run.seed,
        data=data.digest,
        last=last,
        best=seen[best],
        best_epoch=best,
        train=accuracy(net, ready.train, run),
        seconds=time.monotonic() - start,
        device=f"{run.machine['device']}, {run.numerics.precision}",
    )
    return record, net


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


def _notes(runs: Sequence[VictimRun]) -> list[str]:
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
