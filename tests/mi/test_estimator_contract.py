"""The contract suite over every estimator, spellings, and whether the suite itself catches what it should."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from miue.core.errors import UserError
from miue.core.method import Facts, summary
from miue.core.run import Run
from miue.core.spelling import spell
from miue.mi import KNOWN, KSG, estimator, known
from miue.mi._critic import Critic
from miue.mi.estimate import Estimate, KnownPairs
from miue.testing import check_estimator


@cache
def cases() -> tuple[KnownPairs, ...]:
    return tuple(known.suite(Run(seed=1, device_name="cpu"), n=600))


def quick(text: str):
    made = estimator(text)
    if isinstance(made, Critic):
        return replace(made, width=32, out=16, steps=60)
    return replace(made, slices=20) if hasattr(made, "slices") else made


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_exported_estimator(name: str):
    check_estimator(quick(name), cases())


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_estimator_has_its_facts(name: str):
    own = vars(KNOWN[name])["facts"]
    assert isinstance(own, Facts) and own.name == name and len(own.reference) > 10
    assert own.year is None or str(own.year) in own.reference
    assert len(summary(KNOWN[name])) > 20 and spell(estimator(name)) == name


@pytest.mark.parametrize(
    "text", ["ksg:rank=None,k=3", "class-conditional:noise=0", "sliced:correct=false", "sliced:bins_of=widths"]
)
def test_configurations(text: str):
    check_estimator(quick(text), cases())


@pytest.mark.parametrize("text", ["sliced:per=gaussian", "sliced:per=kde", "sliced:per=ksg", "sliced:per=mine"])
def test_slices(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("miue.mi._critics.STEPS", 100)
    check_estimator(replace(quick(text), slices=4), cases())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ksg:k=0", "k=0"),
        ("ksg:rank=0", "rank=0"),
        ("knn", "allowed: agreement, class-conditional, infonce, ksg, mine, sliced, smile"),
        ("sliced:dims=2", "needs ksg, gaussian or mine"),
        ("sliced:per=parzen", "histogram, kde, ksg, gaussian, mine"),
        ("sliced:slices=1", "slices=1"),
        ("class-conditional:noise=-1", "noise=-1"),
        ("infonce:steps=0", "steps=0"),
        ("mine:lr=0", "lr=0"),
        ("smile:tau=0", "tau=0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(text: str, told: str):
    with pytest.raises(UserError, match=told):
        estimator(text)


def test_spellings():
    assert estimator("ksg:k=3,rank=None") == KSG(k=3, rank=None)


@pytest.mark.parametrize("name", ["agreement", "class-conditional"])
def test_labels_are_asked_for(name: str, run: Run):
    x = torch.randn(50, 2, generator=run.rng("x"))
    with pytest.raises(UserError, match="pass labels="):
        estimator(name)(x, x, run)
    with pytest.raises(UserError, match="two rows or more"):
        estimator(name)(x, x, run, torch.arange(50))


# --- estimators that break the contract ---


@dataclass(frozen=True)
class Wrong(KSG):
    """The default, going wrong in one way."""

    way: str = ""

    def __call__(self, x, y, run, labels=None):
        if self.way == "accepts anything" and (len(x) < 10 or x.isnan().any()):
            return Estimate(0.0, "estimate")
        if self.way == "breaks on dead features" and (x.std(0) == 0).any():
            return Estimate(math.nan, "estimate")
        made = super().__call__(x, y, run, labels)
        if self.way == "works in place":
            x += 1
        if self.way == "breaks on rows that coincide" and len(x.unique(dim=0)) < len(x):
            return Estimate(math.inf, "estimate")
        change = {
            "bits": {"nats": made.nats / math.log(2)},
            "half": {"nats": made.nats / 2},
            "constant": {"nats": 0.0, "kind": "lower bound"},
            "a bound above the truth": {"nats": made.nats + 0.5, "kind": "lower bound"},
            "a low ceiling": {"ceiling": made.nats - 0.1},
            "draws globally": {"nats": made.nats + 1e-3 * float(torch.rand(()))},
        }
        return replace(made, **change.get(self.way, {}))


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("bits", "too much"),
        ("half", "too little"),
        ("constant", "shuffled pairs give as much"),
        ("a bound above the truth", "too much"),
        ("a low ceiling", "above its own ceiling"),
        ("draws globally", "the same seed gave another value"),
        ("works in place", "the features were changed"),
        ("breaks on dead features", "never fire"),
        ("breaks on rows that coincide", "rows that coincide"),
        ("accepts anything", "no UserError"),
    ],
)
def test_a_sin_is_found(way: str, told: str):
    fresh = [replace(case, x=case.x.clone()) for case in cases()]
    with pytest.raises(AssertionError, match=told):
        check_estimator(Wrong(way=way), fresh)


def test_an_estimator_that_is_not_frozen():
    with pytest.raises(AssertionError, match="frozen dataclass"):
        check_estimator(lambda x, y, run, labels=None: Estimate(0.0, "estimate"), cases())
