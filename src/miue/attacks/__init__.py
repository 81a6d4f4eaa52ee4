"""Attacks: methods that choose the perturbation. Adding one: a file here, a line in `KNOWN`, a line in the docs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from miue import nets
from miue.attacks.ar import AR
from miue.attacks.aue import AUE
from miue.attacks.cuda import CUDA
from miue.attacks.em import EM
from miue.attacks.entf import EntF
from miue.attacks.gue import GUE
from miue.attacks.hypo import HYPO
from miue.attacks.lsp import LSP
from miue.attacks.mi_ue import MIUE
from miue.attacks.min_min import Alternating, MinMin
from miue.attacks.noise import Noise
from miue.attacks.ops import OPS
from miue.attacks.patterns import Patterns
from miue.attacks.pil import PIL
from miue.attacks.rem import REM
from miue.attacks.sep import SEP
from miue.attacks.tap import TAP
from miue.attacks.tue import TUE
from miue.core.errors import UserError
from miue.core.files import file_digest
from miue.core.method import Attack, AttackFacts, by_name
from miue.core.spelling import parse, split

KNOWN: Mapping[str, type[Any]] = by_name(
    AR,
    AUE,
    CUDA,
    EM,
    EntF,
    GUE,
    HYPO,
    LSP,
    MIUE,
    Noise,
    OPS,
    Patterns,
    PIL,
    REM,
    SEP,
    TAP,
    TUE,
)

T = TypeVar("T")


def list_attacks() -> list[str]:
    """Names of the attacks, for `attack`."""
    return list(KNOWN)


def attack(text: str) -> Attack:
    """Return an attack from its spelling: "mi-ue", "mi-ue:paper,zeta=0", "noise:per=class", "their_file.py:Theirs"."""
    method: Any = parse(text, KNOWN, "attack")
    if not isinstance(facts := getattr(method, "facts", None), AttackFacts | None):
        raise UserError(f"{text}: its `facts` are {type(facts).__name__}; an attack's are miue.AttackFacts, or none")
    if not isinstance(method, Attack):
        raise UserError(f"{text}: {type(method).__name__} is no attack; it needs `craft`, and BaseAttack as its base")
    return method


def code_of(spelling: str, method: object) -> str:
    """Digest of the code of a method and its surrogate from users' files, or of the file that a built-in one reads.

    Empty for most methods.
    """
    file, own, _ = split(spelling)[0].partition(".py:")
    code = file_digest(Path(f"{file}.py").expanduser()) if own else getattr(method, "content", "")
    surrogate = getattr(method, "surrogate", None)
    net = nets.code(nets.named(surrogate)) if isinstance(surrogate, str) else ""
    return f"{code}+{net}" if net else code


def entry_of(table: Mapping[str, T], method: object) -> T | None:
    """The entry of a table by spelling that is this attack, however both are spelled; None if there is none."""
    return next((entry for spelling, entry in table.items() if attack(spelling) == method), None)


__all__ = [
    "AR",
    "AUE",
    "CUDA",
    "EM",
    "GUE",
    "HYPO",
    "KNOWN",
    "LSP",
    "MIUE",
    "OPS",
    "PIL",
    "REM",
    "SEP",
    "TAP",
    "TUE",
    "Alternating",
    "EntF",
    "MinMin",
    "Noise",
    "Patterns",
    "attack",
    "code_of",
    "entry_of",
    "list_attacks",
]
