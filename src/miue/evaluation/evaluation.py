"""The worth of a protection: the same victims on clean, noisy and protected pictures, and a verdict with doubts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from miue.attacks import Noise
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.data import measure, through
from miue.data.quality import Size
from miue.evaluation.adaptive import Victim
from miue.evaluation.checks import check_victims, overlap_note
from miue.evaluation.forecast import told_cost
from miue.evaluation.records import Outcome, Role
from miue.evaluation.several import Job, trained
from miue.evaluation.verdict import judge, notes

KEPT = 100_000_000  # bytes: weights of one evaluation are kept by default up to this size


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Settings of an evaluation: recipes (one per victim), seeds and threshold, all declared before the run.

    threshold: largest share of the clean victim's gain over chance that a protected victim may keep; chance is the
    share of the largest class of the test set. noise: the control, on the same grid as the attack's. keep_victims:
    whether the trained networks are kept, so that an analysis need not train them again; None: if they take at most
    KEPT bytes in all.
    """

    recipes: Sequence[Victim]
    seeds: int = 3
    threshold: float = 0.25
    noise: Noise = field(default_factory=Noise)
    keep_victims: bool | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1 or not self.recipes:
            raise UserError(f"{self.seeds} seeds, {len(self.recipes)} recipes: at least 1 of each")
        names = [recipe.victim for recipe in self.recipes]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UserError(
                f"two victims are called {repeated[0]}: their results could not be told apart; leave one out"
            )
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
        """Train every victim on the clean, noisy and protected pictures and return the outcome with a verdict.

        Rows of the three sets correspond. Victims that were trained before on the same content are not trained again.
        channel: processing of all three sets before victims train on them; the noise goes through it as if published.
        """
        if clean.classes != protected.classes or clean.classes != test.classes:
            raise UserError("the clean, the test and the protected set do not have the same classes in the same order")
        if not torch.equal(clean.labels, protected.labels):
            raise UserError("the clean and the protected set do not have the same labels, row by row")
        overlap = overlap_note(test, clean, protected)
        too_large = 3 * self.seeds * check_victims(self.recipes, clean, test, run) > KEPT
        weights = not too_large if self.keep_victims is None else self.keep_victims
        size = measure(clean, protected)
        control = _matched(budget, size)
        sets = self._roles(clean, protected, control, run, channel)
        if channel:
            size = measure(sets["clean"], sets["protected"])
        jobs = {
            f"{recipe.victim}, {role}, seed {run.seed + seed}": Job(role, recipe, run.seed + seed, weights)
            for recipe in self.recipes
            for seed in range(self.seeds)
            for role in sets
        }
        if cost := told_cost({**sets, "test": test}, jobs, run):
            run.say(cost)
        runs = trained({**sets, "test": test}, jobs, run)
        verdict, reason, judgements = judge(runs, test.chance, len(test), self.threshold, clean.chance)
        return Outcome(
            name=sets["protected"].name,
            method=method,
            channel=channel,
            budget=str(budget),
            classes=len(clean.classes),
            chance=test.chance,
            images=len(clean),
            tested=len(test),
            data={role: data.digest for role, data in sets.items()} | {"test": test.digest},
            recipe={r.victim: r.described() for r in self.recipes},
            threshold=self.threshold,
            size=size,
            runs=runs,
            verdict=verdict,
            reason=reason,
            judgements=judgements,
            notes=[
                *notes(runs, test.chance, len(test)),
                *([f"as victims see them, {size.leaves}"] if size and size.leaves else []),
                *([] if control == budget else [f"the noise control has a budget of {control}"]),
                *([overlap] if overlap else []),
            ],
            machine=run.machine,
        )

    def roles(
        self, clean: ImageSet, protected: ImageSet, budget: Budget, run: Run, channel: str | None = None
    ) -> dict[Role, ImageSet]:
        """The training sets by role, as victims get them."""
        return self._roles(clean, protected, _matched(budget, measure(clean, protected)), run, channel)

    def _roles(
        self, clean: ImageSet, protected: ImageSet, control: Budget, run: Run, channel: str | None
    ) -> dict[Role, ImageSet]:
        noisy = self.noise(clean, control, run.reseeded(0)).apply(clean)
        sets: dict[Role, ImageSet] = {"clean": clean, "noise": noisy, "protected": protected}
        return {role: through(data, channel) for role, data in sets.items()} if channel else sets


def _matched(budget: Budget, size: Size | None) -> Budget:
    """Budget of the noise control: the attack's own, or the measured mean L2 if the attack has no bound."""
    return Budget(max(size.l2, 1 / 255), "l2") if size and budget.norm == "none" else budget
