"""The contract suite over every attack, and whether the suite itself catches what it should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from probes import TINY
from torch import Tensor

from miue.attacks import KNOWN, MIUE, REM, MinMin, Noise, attack
from miue.core.errors import UserError
from miue.core.method import AttackFacts
from miue.core.method import facts as told
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Perturbation
from miue.testing import check_attack, check_net, tiny


def small(text: str) -> Any:
    """An attack with hyper-parameters that take no time."""
    made = attack(text)
    quick = (
        TINY
        if isinstance(made, MIUE)
        else TINY | {"steps": 1, "inner_steps": 1, "views": 2, "checkpoints": 2, "distance": 0.0}
    )
    quick = quick | {"width": 4}
    return replace(made, **{name: value for name, value in quick.items() if hasattr(made, name)})  # type: ignore[type-var]


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_exported_attack(name: str):
    check_attack(small(name))


FACTS = told(KNOWN)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_every_attack_says_what_it_is(name: str):
    facts, name = FACTS[name], name.partition(":")[0]
    assert isinstance(facts, AttackFacts) and "facts" not in {f.name for f in fields(KNOWN[name])}
    assert all(facts.title and "\n" not in text and "|" not in text for text in (facts.title, facts.summary))
    assert str(facts.year) in facts.reference and 2017 <= facts.year <= 2030
    assert len(facts.summary) <= 110 and not facts.summary.endswith(".")
    assert facts.needs == "surrogate" if issubclass(KNOWN[name], MinMin) else True
    assert facts.passes >= 0 and (facts.passes == 0 or facts.needs == "surrogate")
    refused = next(n for n in ("l2", "linf", "l0", "none") if n not in facts.norms)
    with pytest.raises(UserError, match=f"not {refused}|in {refused}"):
        small(name)(tiny(), Budget(1, refused), Run(seed=1))


def test_facts_of_another_kind_are_refused_before_anything_runs(tmp_path: Path):
    file = tmp_path / "theirs.py"
    file.write_text(
        "from miue import Facts\nfrom miue.attacks import Noise as Ours\n"
        "class Noise(Ours):\n    facts = Facts(name='noise')\n"
    )
    with pytest.raises(UserError, match=r"theirs\.py:Noise: its `facts` are Facts; an attack's are miue\.AttackFacts"):
        attack(f"{file}:Noise")


@pytest.mark.parametrize("name", ["em", "mi-ue:per=class", "tap", "pil", "gue"])
def test_a_surrogate_that_diverged_is_told_and_makes_no_perturbation(name: str):
    with pytest.raises(UserError, match=r"training of the network diverged in epoch .*a smaller lr than 1e\+30 helps"):
        replace(small(name), lr=1e30, epochs=3)(tiny(per_class=8), Budget(8), Run(seed=1))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("em:momentum=-1", "momentum=-1 is not between 0 and 1"),
        ("tap:momentum=1", "momentum=1 is not between 0 and 1"),
        ("em:weight_decay=-1", "weight_decay=-1.0 is too small"),
        ("tap:weight_decay=-1", "weight_decay=-1.0 is too small"),
        ("em:step_size_end=-5", "step_size_end=-5.0 is too small"),
        ("em:step_size=inf", "em: step_size=inf is not a finite number"),
        ("lsp:separation=nan", "lsp: separation=nan is not a finite number"),
        ("noise:cells=-3", "cells=-3 is too small"),
    ],
)
def test_settings_that_no_method_can_use(text: str, told: str):
    with pytest.raises(UserError, match=told):
        attack(text)


def test_more_cells_than_pixels():
    with pytest.raises(UserError, match=r"cells=9 is not between 0 \(pixel-wise\) and 8"):
        Noise(cells=9)(tiny(), Budget(8), Run(seed=1))


def test_the_cost_that_is_told_is_that_of_the_fields():
    method, rem = MIUE(), REM()
    assert MIUE.facts.passes == method.epochs * (1 + method.steps)
    adversary = rem.inner_steps + 1  # the surrogate always meets it; SEM's noise does not
    assert FACTS["rem"].passes == rem.epochs * (adversary + rem.steps * rem.views * adversary)
    assert FACTS["rem:sem"].passes == rem.epochs * (adversary + rem.steps * rem.views)
    assert attack("rem:sem") == replace(rem, inner="uniform")


@pytest.mark.parametrize(
    "options",
    [
        "per=class,augment=none",
        "cells=4,augment=flip",
        "per=class,cells=4,step_size_end=0.4",
        "augment=flip-first,zeta=0",
        "augment=flip-first,per=class,per_dimension=true",
        "batch=6,noise_batch=6,companions=2",
    ],
)
def test_configurations(options: str):
    check_attack(small(f"mi-ue:{options}"))


@pytest.mark.parametrize("preset", sorted(MIUE.presets))
def test_every_preset(preset: str):
    check_attack(small(f"mi-ue:{preset}"))


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("noise:per=class", None),
        ("noise:cells=4", None),
        ("noise:per=class,cells=1", None),
        ("noise", Budget(0.7, "l2")),
        ("noise:per=class", Budget(3, "l0")),
        ("lsp:patch=3", Budget(3.0, "l2")),
        ("lsp:patch=1,separation=1", None),
        ("ar:distance=0", Budget()),
        ("ar:distance=0", Budget(0.1, "l2")),
        ("ops", Budget(3, "l0")),
        ("cuda:blur=1", None),
        ("patterns:colour", None),
        ("patterns:region-4", Budget(2)),
        ("patterns:region-16", Budget(200)),
        ("patterns:regions=64", None),
    ],
)
def test_attacks_without_a_model(text: str, budget: Budget | None):
    check_attack(attack(text), budget)


@pytest.mark.parametrize("eps", [pytest.param(1, marks=pytest.mark.slow), 200])
def test_budgets(eps: int):
    check_attack(replace(small("mi-ue"), epochs=1), Budget(eps))
    check_attack(Noise(), Budget(eps))


@pytest.mark.parametrize("surrogate", ["small-resnet:width=4", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_surrogates(surrogate: str):
    made = replace(small("mi-ue"), surrogate=surrogate, epochs=1, steps=1)
    check_attack(made)


def test_noise_is_uniform_and_refuses_other_norms(run: Run):
    data = ImageSet(torch.zeros(50, 3, 16, 16, dtype=torch.uint8), torch.arange(50) % 5, tuple("abcde"), "black")
    delta = Noise()(data, Budget(8), run).delta
    assert set(delta.unique().tolist()) == set(range(-8, 9)) and delta.float().mean().abs() < 0.1
    with pytest.raises(UserError, match="cannot keep a budget in none, only in linf or l2 or l0"):
        Noise()(data, Budget(0, "none"), run)
    with pytest.raises(UserError, match="does not survive stretching"):
        Noise(cells=4)(data, Budget(1.0, "l2"), run)


def test_noise_in_other_norms_has_the_size_of_the_budget(run: Run):
    data = ImageSet(torch.zeros(50, 3, 16, 16, dtype=torch.uint8), torch.arange(50) % 5, tuple("abcde"), "black")
    long = Budget(2.0, "l2")
    size = long.measure(Noise()(data, long, run).delta)
    assert (size <= 2).all() and (size > 1.99).all()
    few = Noise()(data, Budget(4, "l0"), run).delta
    assert (Budget(4, "l0").measure(few) == 4).all() and few.abs().max() > 200
    places = (few != 0).any(1).flatten(1).float()
    assert (places.sum(0) > 0).sum() > 100  # each picture has places of its own


# --- attacks that break the contract ---


@dataclass(frozen=True)
class Bad:
    """A call of its own, that of noise, which goes on to do something that it must not."""

    sin: Callable[[ImageSet, Budget, Run, Perturbation], Perturbation] = lambda data, budget, run, made: made

    def __call__(self, data: ImageSet, budget: Budget, run: Run) -> Perturbation:
        with run.progress("noise", 2) as tick:
            tick()
            tick()
        return self.sin(data, budget, run, Noise()(data, budget, run))


class Loose(Perturbation):
    """A perturbation that checks nothing and does what it likes."""

    def __post_init__(self) -> None:
        pass

    def apply(self, data: ImageSet) -> ImageSet:
        if self.made_by == "relabels":
            return ImageSet(data.images, data.labels.flip(0), data.classes, data.name)
        return super().apply(data)


def loose(made: Perturbation, delta: Tensor | None = None, budget: Budget | None = None, made_by: str = "") -> Loose:
    return Loose(made.delta if delta is None else delta, budget or made.budget, made_by, made.labels)


def class_rows(data, budget):
    """One row a class, and the classes of the pictures from last to first."""
    return Perturbation(torch.zeros(len(data.classes), *data.shape, dtype=torch.int8), budget, "x", data.labels.flip(0))


def reorders_data(data, budget, run, made):
    data.labels.copy_(data.labels.flip(0))
    return made


def brightens_data(data, budget, run, made):
    data.images[0, 0, 0, 0] ^= 1
    return made


def draws_globally(data, budget, run, made):
    return Perturbation(torch.randint_like(made.delta, -8, 9), budget, "global")


def forgets_where_it_was(data, budget, run, made):
    """Keeps how often it was called, and lets that decide."""
    if run.keep is None:
        return made
    run.keep.mkdir(exist_ok=True)
    (run.keep / "again").write_text("x")
    return Perturbation(-made.delta, budget, "again")


SINS = [
    (lambda d, b, r, m: loose(m, delta=m.delta + 8), "in a budget of 8"),
    (lambda d, b, r, m: loose(m, budget=Budget(16)), "the budget became"),
    (lambda d, b, r, m: loose(m, delta=m.delta[:-1]), "rows for"),
    (lambda d, b, r, m: loose(m, made_by="relabels"), "labels or their order changed"),
    (lambda d, b, r, m: class_rows(d, b), "rows a class that are not those of the labels"),
    (reorders_data, "the pictures were changed|labels or their order"),
    (brightens_data, "the pictures were changed"),
    (draws_globally, "the same seed gave another perturbation"),
    (forgets_where_it_was, "an interrupted run ended in another perturbation"),
]


def test_the_well_behaved_one_passes():
    check_attack(Bad())


@pytest.mark.parametrize(("sin", "told"), SINS, ids=[told[:24] for _, told in SINS])
def test_a_sin_is_found(sin, told: str):
    with pytest.raises(AssertionError, match=told):
        check_attack(Bad(sin=sin))


@pytest.mark.parametrize("value", [float("nan"), 9 / 255])
def test_no_attack_gets_past_the_noun(value: float):
    """The framework keeps the promise, not the method's author."""

    def leaves(data, budget, run, made):
        return Perturbation.rounded(torch.full(made.delta.shape, value), budget, "leaves")

    with pytest.raises(ValueError, match=r"leaves (left its budget|made values)"):
        check_attack(Bad(sin=leaves))


def test_a_method_that_is_not_frozen():
    @dataclass
    class Soft:
        def __call__(self, data, budget, run):
            return Noise()(data, budget, run)

    class Plain:
        __call__ = Soft.__call__

    for method in (Soft(), Plain()):
        with pytest.raises(AssertionError, match="frozen dataclass"):
            check_attack(method)


def test_a_net_that_breaks_its_contract(monkeypatch: pytest.MonkeyPatch):
    from miue import nets
    from miue.nets.base import Classifier

    class Wrong(Classifier):
        def forward(self, x):
            return self.head(self.embed(x)) + 1

    real = nets.build

    def wrong(*a):
        net = real("small-cnn:width=4", *a[1:])
        return Wrong(net.trunk, net.head, net.points)

    monkeypatch.setattr(nets, "build", wrong)
    with pytest.raises(AssertionError, match="forward is not head of embed"):
        check_net("small-cnn", (8,))
    count = iter(range(100))

    def other_weights(*a):
        torch.manual_seed(next(count))
        return real("small-cnn:width=4", *a[1:])

    monkeypatch.setattr(nets, "build", other_weights)
    with pytest.raises(AssertionError, match="weights do not follow the seed"):
        check_net("small-cnn", (8,))
