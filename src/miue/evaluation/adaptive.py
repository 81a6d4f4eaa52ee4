"""The adaptive trainer, who has read this code: tries many defenses, and keeps what is best on clean pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.defenses import combination
from miue.evaluation.records import Role, VictimRun
from miue.evaluation.victim import parted_rows, train_victim
from miue.victims.recipe import Recipe

NAME = "adaptive"
CHEAP = ("gray", "jpeg:quality=75")  # what every trainer can do; an evaluation runs it unless it is told otherwise
TRIED = (
    "none",
    "gray",
    "chroma",
    "chroma:blur=2",
    "jpeg:quality=10",
    "jpeg:quality=50",
    "jpeg:quality=75",
    "gray+jpeg:quality=50",
    "lowpass",
    "blur",
    "resize",
    "depth",
    "classmean",
    "op",
    "op+strong+cutmix",
    "cutout",
    "cutmix",
    "ueraser:mode=lite",
    "staged",
    "at:eps=2,steps=3,step_size=1",
    "at:eps=4,steps=3,step_size=2",
)


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """A victim by a recipe with each of `tried` in turn, of which the one that is best on clean pictures counts.

    No slot of a recipe can say that, because a slot sees one training. The choice is by accuracy at the best epoch on a
    part of the clean test set, about 100 pictures of every class, half of them where there are fewer than 200; equals:
    the first. The victim is then trained once more as was chosen, and measured on the rest: at its last epoch, and
    stopped at the epoch that was chosen. Every role and every seed chooses for itself, so the clean control is
    adaptive, too. Combinations that refuse a set, as `chroma` refuses greyscale ones, are left out. Raises UserError if
    a combination cannot be used at all.
    """

    recipe: Recipe
    tried: tuple[str, ...] = TRIED
    candidates: Mapping[str, Recipe] = field(init=False, repr=False, compare=False)
    """The recipes by the spelling of what they add."""

    def __post_init__(self) -> None:
        if len(set(self.tried)) < max(len(self.tried), 2):
            raise UserError(f"{NAME}: tried={', '.join(self.tried)}: give at least two combinations, each once")
        recipes = {text: defended(self.recipe, text) for text in self.tried}
        object.__setattr__(self, "candidates", recipes)

    @property
    def net(self) -> str:
        return self.recipe.net

    @property
    def defense(self) -> str:
        return "+".join(filter(None, (self.recipe.defense, NAME)))

    @property
    def victim(self) -> str:
        """The name of the victim."""
        return f"{self.net} + {self.defense}"

    def described(self) -> dict[str, Any]:
        """The recipe as plain values, and what is tried with it."""
        return self.recipe.described() | {"tried": list(self.tried)}

    def fitting(self, data: ImageSet) -> dict[str, Recipe]:
        """The candidates that do not refuse this training set. Raises UserError if all do."""
        fitting, refusal = {}, None
        for text, recipe in self.candidates.items():
            try:
                check_pictures(recipe, data)
                fitting[text] = recipe
            except UserError as error:
                refusal = error
        if not fitting and refusal:
            raise refusal
        return fitting


Victim = Recipe | Adaptive


def victim_of(recipe: Recipe, defense: str) -> Victim:
    """The victim that a recipe gives with a defense: "gray+jpeg:quality=10", "none" or "adaptive"."""
    if NAME in (parts := defense.split("+")) and len(parts) > 1:
        raise UserError(f"{defense}: {NAME} chooses among defenses of its own; give it alone")
    return Adaptive(recipe=recipe) if defense == NAME else defended(recipe, defense)


def defended(recipe: Recipe, defense: str) -> Recipe:
    """The recipe with a combination of defenses; "none" adds nothing."""
    return recipe if defense == "none" else recipe.defended(*combination(defense))


def check_pictures(recipe: Recipe, data: ImageSet) -> None:
    """Raise UserError if a purifying defense of the recipe cannot clean this training set."""
    for purify in recipe.purify:
        if check := getattr(purify, "check", None):
            check(data)


def parted(test: ImageSet, run: Run) -> tuple[ImageSet, ImageSet]:
    """The test set in two parts: what an adaptive trainer chooses by, and the rest. Classes keep their shares."""
    chosen_by, rest = parted_rows(test, run)
    return test.select(chosen_by), test.select(rest)


def train(
    role: Role, data: ImageSet, test: ImageSet, victim: Victim, run: Run, keep: Path | None, weights: bool = False
) -> VictimRun:
    """Train one victim, adaptive or not, and return its record. Arguments as for `train_victim`.

    Trials of an adaptive one are kept as any victim is, so they are trained once. `seconds` is their sum.
    """
    if isinstance(victim, Recipe):
        return train_victim(role, data, test, victim, run, keep, weights)
    validation, rest = parted(test, run)
    recipes = victim.fitting(data)
    trials = {text: train_victim(role, data, validation, recipe, run, keep) for text, recipe in recipes.items()}
    tried = {text: trial.best for text, trial in trials.items()}
    chosen = max(tried, key=lambda text: tried[text])
    result = train_victim(role, data, rest, recipes[chosen], run, keep, weights)
    seconds = result.seconds + sum(trial.seconds for trial in trials.values())
    names = {"victim": victim.victim, "defense": victim.defense, "chosen": chosen, "tried": tried, "seconds": seconds}
    epoch = trials[chosen].best_epoch
    stop = {"stopped": result.epochs.get(epoch), "stopped_epoch": epoch}  # a record of an earlier version has no epochs
    return result.model_copy(update=names | stop)
