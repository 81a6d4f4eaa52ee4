"""Attacks: methods that choose the perturbation. Adding one: a file here, a line in `KNOWN`, a line in the docs."""

from collections.abc import Mapping
from typing import Any

from miue.attacks._alternate import Alternating, MinMin
from miue.attacks.aue import Aue
from miue.attacks.em import Em
from miue.attacks.entf import EntF
from miue.attacks.gue import Gue
from miue.attacks.hypo import Hypo
from miue.attacks.mi_ue import MiUe
from miue.attacks.noise import Noise
from miue.attacks.pil import Pil
from miue.attacks.rem import Rem
from miue.attacks.sep import Sep
from miue.attacks.tap import Tap
from miue.attacks.tue import Tue
from miue.spec import parse
from miue.types import Attack

KNOWN: Mapping[str, type[Any]] = {
    "aue": Aue,
    "em": Em,
    "entf": EntF,
    "gue": Gue,
    "hypo": Hypo,
    "mi-ue": MiUe,
    "noise": Noise,
    "pil": Pil,
    "rem": Rem,
    "sep": Sep,
    "tap": Tap,
    "tue": Tue,
}


def attack(text: str) -> Attack:
    """An attack from its spelling: "mi-ue", "mi-ue:paper,zeta=0", "noise:per=class", "their_file.py:Theirs"."""
    return parse(text, KNOWN, "attack")


__all__ = [
    "KNOWN",
    "Alternating",
    "Aue",
    "Em",
    "EntF",
    "Gue",
    "Hypo",
    "MiUe",
    "MinMin",
    "Noise",
    "Pil",
    "Rem",
    "Sep",
    "Tap",
    "Tue",
    "attack",
]
