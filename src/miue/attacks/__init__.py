"""Attacks: methods that choose the perturbation. Adding one: a file here, a line in `KNOWN`, a line in the docs."""

from collections.abc import Mapping
from typing import Any

from miue.attacks._alternate import MinMin
from miue.attacks.ar import Ar
from miue.attacks.cuda import Cuda
from miue.attacks.lsp import Lsp
from miue.attacks.mi_ue import MiUe
from miue.attacks.noise import Noise
from miue.attacks.ops import Ops
from miue.attacks.patterns import Patterns
from miue.spec import parse
from miue.types import Attack

KNOWN: Mapping[str, type[Any]] = {
    "ar": Ar,
    "cuda": Cuda,
    "lsp": Lsp,
    "mi-ue": MiUe,
    "noise": Noise,
    "ops": Ops,
    "patterns": Patterns,
}


def attack(text: str) -> Attack:
    """An attack from its spelling: "mi-ue", "mi-ue:paper,zeta=0", "noise:per=class", "their_file.py:Theirs"."""
    return parse(text, KNOWN, "attack")


__all__ = ["KNOWN", "Ar", "Cuda", "Lsp", "MiUe", "MinMin", "Noise", "Ops", "Patterns", "attack"]
