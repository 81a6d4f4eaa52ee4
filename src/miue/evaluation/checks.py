"""Checks that refuse an evaluation before hours of training."""

from __future__ import annotations

from collections.abc import Sequence

from miue import nets
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.evaluation.adaptive import Adaptive, Victim, check_pictures, parted
from miue.victims.recipe import Recipe


def check_victims(victims: Sequence[Victim], data: ImageSet, test: ImageSet, run: Run) -> int:
    """Return how many bytes the weights of these victims take.

    Raises UserError if a victim cannot be trained: its network cannot be built or takes no pictures of this size, its
    weights belong to another network, or its defense does not fit the pictures or learns from test pictures. The check
    runs before hours of work.
    """
    if any(isinstance(victim, Adaptive) for victim in victims):
        parted(test, run)
    recipes = [recipe for victim in victims for recipe in _recipes(victim, data)]
    with run.seeded("nets"):
        sizes = {net: nets.tried(net, data.shape, len(data.classes)) for net in {recipe.net for recipe in recipes}}
        starts = {repr((start, recipe.net)): (start, recipe.net) for recipe in recipes for start in recipe.start}
        for start, net in starts.values():
            if check := getattr(start, "check", None):
                check(nets.build(net, data.shape, len(data.classes)))
    for recipe in {repr(recipe.purify): recipe for recipe in recipes}.values():
        check_pictures(recipe, data)
    learning = {repr(part): part for recipe in recipes for part in (*recipe.purify, *recipe.finish)}
    for part in learning.values():
        pictures = getattr(part, "pictures", None)
        seen = pictures and pictures(data)
        if seen and (count := _common(test, seen)):
            raise UserError(
                f"{seen.name}: {count} of {len(test)} test pictures are among those that a defense learns from; "
                "give it pictures that are in no test set, or name a test set of other pictures"
            )
    return sum(sizes[victim.net] for victim in victims)


def _recipes(victim: Victim, data: ImageSet) -> Sequence[Recipe]:
    return [victim] if isinstance(victim, Recipe) else list(victim.fitting(data).values())


def _common(test: ImageSet, other: ImageSet) -> int:
    known = {hash(image.numpy().tobytes()) for image in other.images}
    return sum(hash(image.numpy().tobytes()) in known for image in test.images)


def overlap_note(test: ImageSet, *trained: ImageSet) -> str:
    """Return a note about test pictures that are also in a training set ('' if none). Raises UserError if most are."""
    count, part = max(((_common(test, part), part) for part in trained), key=lambda pair: pair[0])
    if 2 * count > len(test):
        raise UserError(
            f"{test.name}: {count} of its {len(test)} test pictures are among those that victims train on "
            f"({part.name}); test on pictures that are in no training set, or leave --test out: a part is held out"
        )
    return f"{count} of {len(test)} test pictures are training pictures, too" if count else ""
