"""A set that a tiny network learns in a few epochs, and a recipe that is enough for it."""

from __future__ import annotations

from miue.core.types import ImageSet
from miue.testing import tiny
from miue.victims.recipe import Recipe

FAST = Recipe(net="small-cnn:width=4", epochs=4, batch=16, augment=())


def easy(per_class: int = 12, size: int = 8, seed: int = 0) -> ImageSet:
    """Three classes that differ in colour, on noise."""
    data = tiny(per_class=per_class, size=size, seed=seed)
    images = data.images // 2
    for label in range(3):
        images[data.labels == label, label] += 127
    return data.with_images(images)
