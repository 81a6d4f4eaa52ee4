"""Defenses: methods of a trainer to learn despite a protection. Each fills one of the `SLOTS` of a recipe.

Adding one: a file here, a line in `KNOWN`, a line in the docs.
"""

import re
from collections.abc import Mapping
from typing import Any

from miue.core.errors import UserError
from miue.core.method import by_name
from miue.core.spelling import parse
from miue.defenses.augment.coin import Coin
from miue.defenses.augment.cutout import Cutout
from miue.defenses.augment.library import Plasma, RandAugment, Strong, TrivialAugment
from miue.defenses.augment.mix import CutMix, MixUp
from miue.defenses.augment.noise import GaussianNoise
from miue.defenses.loss.adversarial import Adversarial
from miue.defenses.loss.staged import Staged
from miue.defenses.loss.ueraser import UEraser
from miue.defenses.network.simclr import SimCLR
from miue.defenses.network.tune import Tune
from miue.defenses.network.weights import Weights
from miue.defenses.purify.chroma import Chroma
from miue.defenses.purify.classmean import ClassMean
from miue.defenses.purify.diffpure import DiffPure
from miue.defenses.purify.dvae import DVAE
from miue.defenses.purify.inverse import Inverse
from miue.defenses.purify.lowpass import LowPass
from miue.defenses.purify.projection import Projection
from miue.defenses.purify.smooth import Blur, Resize
from miue.defenses.purify.squeeze import JPEG, Depth, Gray
from miue.victims.slots import Defense

KNOWN: Mapping[str, type[Any]] = by_name(
    Adversarial,
    Blur,
    Chroma,
    ClassMean,
    Coin,
    CutMix,
    Cutout,
    Depth,
    DiffPure,
    DVAE,
    GaussianNoise,
    Gray,
    Inverse,
    JPEG,
    LowPass,
    MixUp,
    Plasma,
    Projection,
    RandAugment,
    Resize,
    SimCLR,
    Staged,
    Strong,
    TrivialAugment,
    Tune,
    UEraser,
    Weights,
)
SLOTS = ("start", "purify", "augment", "loss", "finish")


def list_defenses() -> list[str]:
    """Names of the defenses, for `defense`."""
    return list(KNOWN)


def defense(text: str) -> Defense:
    """Return a defense from its spelling: "jpeg:quality=10", "gray", "their_file.py:Theirs"."""
    method: Any = parse(text, KNOWN, "defense")
    if getattr(method, "slot", None) not in SLOTS:
        raise UserError(f"{text}: its class attribute `slot` must be one of {', '.join(SLOTS)}")
    return method


def combination(text: str) -> tuple[Defense, ...]:
    """Return the defenses of a combination, in their order: "gray+jpeg:quality=10". For `Recipe.defended`."""
    return tuple(defense(part) for part in parts(text))


def parts(text: str) -> list[str]:
    """The spellings in a combination; none in an empty text.

    A plus inside a value ("weights:file=net+ema.pt") does not separate, unless the name of a defense follows.
    """
    spellings: list[str] = []
    for piece in re.split(r"\+(?=[A-Za-z_./~])", text):
        begins = piece.partition(":")[0] in KNOWN or ".py:" in piece
        if spellings and ":" in spellings[-1] and not begins:
            spellings[-1] += f"+{piece}"
        else:
            spellings.append(piece)
    return spellings if text else []


__all__ = [
    "DVAE",
    "JPEG",
    "KNOWN",
    "Adversarial",
    "Blur",
    "Chroma",
    "ClassMean",
    "Coin",
    "CutMix",
    "Cutout",
    "Depth",
    "DiffPure",
    "GaussianNoise",
    "Gray",
    "Inverse",
    "LowPass",
    "MixUp",
    "Plasma",
    "Projection",
    "RandAugment",
    "Resize",
    "SimCLR",
    "Staged",
    "Strong",
    "TrivialAugment",
    "Tune",
    "UEraser",
    "Weights",
    "combination",
    "defense",
    "list_defenses",
    "parts",
]
