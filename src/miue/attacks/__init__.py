"""Attacks: methods that choose the perturbation. Adding one: a file here, a line in `KNOWN`, a line in the docs."""

from collections.abc import Mapping
from typing import Any

from miue.attacks.ar import Ar
from miue.attacks.aue import Aue
from miue.attacks.cuda import Cuda
from miue.attacks.em import Em
from miue.attacks.entf import EntF
from miue.attacks.gue import Gue
from miue.attacks.hypo import Hypo
from miue.attacks.lsp import Lsp
from miue.attacks.mi_ue import MiUe
from miue.attacks.min_min import Alternating, MinMin
from miue.attacks.noise import Noise
from miue.attacks.ops import Ops
from miue.attacks.patterns import Patterns
from miue.attacks.pil import Pil
from miue.attacks.rem import Rem
from miue.attacks.sep import Sep
from miue.attacks.tap import Tap
from miue.attacks.tue import Tue
from miue.core.method import Attack
from miue.core.spelling import parse

KNOWN: Mapping[str, type[Any]] = {
    "ar": Ar,
    "aue": Aue,
    "cuda": Cuda,
    "em": Em,
    "entf": EntF,
    "gue": Gue,
    "hypo": Hypo,
    "lsp": Lsp,
    "mi-ue": MiUe,
    "noise": Noise,
    "ops": Ops,
    "patterns": Patterns,
    "pil": Pil,
    "rem": Rem,
    "sep": Sep,
    "tap": Tap,
    "tue": Tue,
}


def list_attacks() -> list[str]:
    """Names of the attacks, for `attack`."""
    return list(KNOWN)


def attack(text: str) -> Attack:
    """An attack from its spelling: "mi-ue", "mi-ue:paper,zeta=0", "noise:per=class", "their_file.py:Theirs"."""
    return parse(text, KNOWN, "attack")


__all__ = [
    "KNOWN",
    "Alternating",
    "Ar",
    "Aue",
    "Cuda",
    "Em",
    "EntF",
    "Gue",
    "Hypo",
    "Lsp",
    "MiUe",
    "MinMin",
    "Noise",
    "Ops",
    "Patterns",
    "Pil",
    "Rem",
    "Sep",
    "Tap",
    "Tue",
    "attack",
    "list_attacks",
]
