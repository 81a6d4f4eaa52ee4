"""The description of a finished perturbation: its profile, and the reach of the attack on its own surrogate."""

from __future__ import annotations

from typing import Any

from miue.attacks.success import success
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Perturbation
from miue.evaluation.profile import profile, sample


def described(
    method: object, images: ImageSet, perturbation: Perturbation, rest: Budget, keeping: Run
) -> dict[str, Any]:
    """Fields of the record of a protection. Only the pictures that are looked at are protected for it.

    rest: budget that the attack had. keeping: its run, with the surrogate that it kept.
    """
    rows = sample(images)
    clean = images.select(rows)
    protected = perturbation.select(rows).apply(clean)
    return {
        "profile": profile(clean, protected, keeping),
        "success": success(method, clean, protected, rest, perturbation.data, keeping),
    }
