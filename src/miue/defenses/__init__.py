"""Defenses: what a trainer does to learn anyway. Each fills one slot of a recipe: purify, augment or loss.

Adding one: a file here, a line in `KNOWN`, a line in the docs.
"""

import re
from collections.abc import Mapping
from typing import Any

from miue.defenses.adversarial import Adversarial
from miue.defenses.displace import Coin
from miue.defenses.dvae import Dvae
from miue.defenses.erase import Cutout
from miue.defenses.jitter import GaussianNoise
from miue.defenses.library import Plasma, RandAugment, Strong, TrivialAugment
from miue.defenses.mix import CutMix, MixUp
from miue.defenses.projection import Projection
from miue.defenses.smooth import Blur, Resize
from miue.defenses.squeeze import Depth, Gray, Jpeg
from miue.defenses.ueraser import UEraser
from miue.spec import parse
from miue.types import Augment, Loss, Purify, UserError

KNOWN: Mapping[str, type[Any]] = {
    cls.spelling: cls
    for cls in (
        Adversarial,
        Blur,
        Coin,
        CutMix,
        Cutout,
        Depth,
        Dvae,
        GaussianNoise,
        Gray,
        Jpeg,
        MixUp,
        Plasma,
        Projection,
        RandAugment,
        Resize,
        Strong,
        TrivialAugment,
        UEraser,
    )
}
SLOTS = ("purify", "augment", "loss")


def defense(text: str) -> Purify | Augment | Loss:
    """A defense from its spelling: "jpeg:quality=10", "gray", "their_file.py:Theirs"."""
    made: Any = parse(text, KNOWN, "defense")
    if getattr(made, "slot", None) not in SLOTS:
        raise UserError(f"{text}: its class attribute `slot` must be one of {', '.join(SLOTS)}")
    return made


def combination(text: str) -> tuple[Purify | Augment | Loss, ...]:
    """Several at once, in their order: "gray+jpeg:quality=10". For `Recipe.defended`."""
    return tuple(defense(part) for part in re.split(r"\+(?=[A-Za-z_./~])", text))


__all__ = [
    "KNOWN",
    "Adversarial",
    "Blur",
    "Coin",
    "CutMix",
    "Cutout",
    "Depth",
    "Dvae",
    "GaussianNoise",
    "Gray",
    "Jpeg",
    "MixUp",
    "Plasma",
    "Projection",
    "RandAugment",
    "Resize",
    "Strong",
    "TrivialAugment",
    "UEraser",
    "combination",
    "defense",
]
