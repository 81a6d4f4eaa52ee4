"""Mutual information in nats: estimators, and what to judge them by. Adding one: a file here, a line in `KNOWN`."""

from collections.abc import Mapping
from typing import Any

from miue.core.method import by_name
from miue.core.spelling import parse
from miue.mi import known, theory
from miue.mi.agreement import Agreement
from miue.mi.class_conditional import ClassConditional
from miue.mi.covariance import Covariance, covariance
from miue.mi.estimate import Estimator
from miue.mi.gaussian import gaussian, gaussian_copula
from miue.mi.independence import Independence, independence_test
from miue.mi.infonce import InfoNCE
from miue.mi.ksg import KSG
from miue.mi.measure import measure
from miue.mi.mine import MINE
from miue.mi.sliced import Sliced
from miue.mi.smile import SMILE
from miue.mi.statements import statements

KNOWN: Mapping[str, type[Any]] = by_name(
    KSG,
    Sliced,
    ClassConditional,
    InfoNCE,
    MINE,
    SMILE,
    Agreement,
)


def list_estimators() -> list[str]:
    """Names of the estimators, for `estimator`."""
    return list(KNOWN)


def estimator(text: str) -> Estimator:
    """Return an estimator from its spelling: "ksg", "ksg:k=3,rank=None", "sliced:per=kde", "their_file.py:Theirs"."""
    return parse(text, KNOWN, "estimator")


__all__ = [
    "KNOWN",
    "KSG",
    "MINE",
    "SMILE",
    "Agreement",
    "ClassConditional",
    "Covariance",
    "Independence",
    "InfoNCE",
    "Sliced",
    "covariance",
    "estimator",
    "gaussian",
    "gaussian_copula",
    "independence_test",
    "known",
    "list_estimators",
    "measure",
    "statements",
    "theory",
]
