"""What the base of attacks does for an author, and that an attack needs no base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from miue.attacks import EM, attack
from miue.core.errors import UserError
from miue.core.method import Attack, AttackFacts, BaseAttack
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Perturbation
from miue.data import private_of
from miue.testing import check_attack, tiny
from miue.workflows.protect import protect
from pictures import coloured


@dataclass(frozen=True, kw_only=True)
class Flat(BaseAttack):
    """Every row is one number of grey levels, its own number further."""

    level: float = 1.0
    per: Literal["image", "class"] = "image"

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Tensor:
        rows = len(data) if self.per == "image" else len(data.classes)
        return ((self.level + torch.arange(rows) % 5) / 255).reshape(-1, 1, 1, 1).expand(-1, data.shape[0], 2, 2)


@dataclass(frozen=True)
class Returns(BaseAttack):
    """Returns what it was given."""

    value: Any

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Tensor:
        return self.value


def shuffled() -> ImageSet:
    """As many classes as pictures, in another order."""
    data = tiny(1, 5)
    return ImageSet(data.images, torch.tensor([3, 0, 4, 1, 2]), data.classes, data.name)


def test_what_craft_returns_is_rounded_and_signed(run: Run):
    made = Flat(level=1.4)(tiny(), Budget(8), run)
    assert made.delta[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5] * 2 + [1, 2] and made.delta.dtype == torch.int8
    assert made.made_by == repr(Flat(level=1.4)) and made.labels is None and made.budget == Budget(8)
    check_attack(Flat())


def test_a_row_belongs_to_a_class_where_the_attack_says_so(run: Run):
    data = shuffled()
    by_class, by_image = (Flat(per=per)(data, Budget(8), run) for per in ("class", "image"))
    assert torch.equal(by_class.delta, by_image.delta) and by_class.labels is data.labels and by_image.labels is None
    levels = [int(by_class.at(i, 8, 8)[0, 0, 0]) for i in range(5)]
    assert levels == [4, 1, 5, 2, 3]
    check_attack(Flat(per="class"))


def test_without_facts_a_budget_is_in_linf(run: Run):
    for budget in (Budget(1.0, "l2"), Budget(1, "l0"), Budget(0, "none")):
        with pytest.raises(UserError, match=f"Flat cannot keep a budget in {budget.norm}, only in linf; leave the"):
            Flat()(tiny(), budget, run)


def test_facts_say_which_norms_it_keeps(run: Run):
    @dataclass(frozen=True)
    class Few(Flat):
        facts: ClassVar[AttackFacts] = AttackFacts(
            name="few", passes=0, needs="nothing", natural=Budget(1, "l0"), norms=("l0", "l2")
        )

    assert Few(level=0.4)(tiny(), Budget(4.0, "l2"), run).budget == Budget(4.0, "l2")
    with pytest.raises(UserError, match="few cannot keep a budget in linf, only in l0 or l2"):
        Few()(tiny(), Budget(8), run)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "craft returned NoneType, not a float tensor"),
        (torch.ones(12, 3, 8, 8, dtype=torch.int8), r"craft returned \(12, 3, 8, 8\) of torch.int8, not a"),
        (torch.zeros(12, 8, 8), r"craft returned \(12, 8, 8\) of torch.float32, not"),
        (torch.zeros(3, 3, 8, 8), "craft returned 3 rows of 3 channels for 12 pictures of 3; per = .class. says"),
        (torch.zeros(12, 1, 8, 8), "craft returned 12 rows of 1 channels for 12 pictures of 3"),
    ],
)
def test_what_craft_must_not_return(run: Run, value: object, told: str):
    with pytest.raises(UserError, match=told):
        Returns(value)(tiny(), Budget(8), run)


@pytest.mark.parametrize(("value", "told"), [(9 / 255, "left its budget by 1 grey"), (torch.nan, "are not finite")])
def test_values_that_craft_must_not_return(run: Run, value: float, told: str):
    with pytest.raises(ValueError, match=told):
        Returns(torch.full((12, 3, 8, 8), value))(tiny(), Budget(8), run)


def test_a_driver_moves_in_linf_whatever_the_facts_say(run: Run):
    @dataclass(frozen=True, kw_only=True)
    class Long(EM):
        facts: ClassVar[AttackFacts] = AttackFacts(
            name="long",
            title="long",
            year=2026,
            reference="r",
            summary="s",
            passes=0,
            needs="surrogate",
            norms=("linf", "l2"),
        )

    with pytest.raises(ValueError, match="signed steps keep a budget in linf, not in l2"):
        Long(surrogate="small-cnn:width=4", epochs=1, steps=1)(tiny(), Budget(1.0, "l2"), run)


def test_kept_state_has_one_identity(keeping: Run):
    data, method, budget = tiny(), Flat(), Budget(8)
    identity = method.identity(data, budget, keeping)
    assert identity == {"plan": repr(method), "data": data.digest, "seed": keeping.seed, "budget": repr(budget)}
    keeping.save("state", {"x": torch.ones(1)}, {**identity, "epoch": 3})
    assert keeping.load("state", **identity) is not None
    others = (
        Flat(level=2.0).identity(data, budget, keeping),
        method.identity(tiny(seed=1), budget, keeping),
        method.identity(data, Budget(4), keeping),
        method.identity(data, budget, keeping.reseeded(9)),
    )
    assert all(keeping.load("state", **other) is None for other in others)


def test_the_trace_of_a_driver_is_its_own(keeping: Run):
    method = EM(surrogate="small-cnn:width=4", epochs=2, steps=1, step_size=2.0)
    assert method.trace(Budget(8), keeping) == []
    method(tiny(), Budget(8), keeping)
    trace = method.trace(Budget(8), keeping)
    assert len(trace) == 2 and all(len(row) == 3 and all(-1 <= v <= 1 for v in row) for row in trace)
    assert method.trace(Budget(4), keeping) == [] == EM(epochs=3).trace(Budget(8), keeping)


# --- an attack of somebody's own ---


@dataclass(frozen=True)
class Alone:
    """No base class: a call alone, in whatever norm."""

    def __call__(self, data: ImageSet, budget: Budget, run: Run) -> Perturbation:
        return Perturbation.rounded(torch.full((len(data), *data.shape), 0.5 / 255), budget, "alone")


def test_a_call_alone_is_an_attack():
    assert isinstance(Alone(), Attack) and isinstance(Flat(), Attack) and not isinstance(Alone(), BaseAttack)
    check_attack(Alone())
    check_attack(Alone(), Budget(2.0, "l2"))


def test_the_call_of_the_base_is_final():
    @dataclass(frozen=True)
    class Late(Flat):
        def __call__(self, data, budget, run):  # pyright: ignore
            return Alone()(data, budget, run)

    with pytest.raises(AssertionError, match="is final: write `craft`"):
        check_attack(Late())


FILE = """
from dataclasses import dataclass
import torch
from miue import BaseAttack, MinMin, Perturbation

@dataclass(frozen=True)
class Mine(BaseAttack):
    def craft(self, data, budget, run):
        return torch.full((len(data), *data.shape), budget.unit)

@dataclass(frozen=True)
class Alone:
    def __call__(self, data, budget, run):
        return Perturbation.rounded(torch.full((len(data), *data.shape), 1 / 255), budget, "alone")

@dataclass(frozen=True)
class Empty(BaseAttack):
    def kraft(self, data, budget, run):
        return torch.zeros(len(data), *data.shape)

@dataclass(frozen=True, kw_only=True)
class Aimless(MinMin):
    pass

@dataclass(frozen=True)
class Nothing:
    x: int = 1
"""


def test_an_attack_from_a_file(tmp_path: Path, run: Run):
    (tmp_path / "mine.py").write_text(FILE)
    coloured(tmp_path / "in", 2)
    place = f"{tmp_path}/mine.py"
    source, out, other = tmp_path / "in", tmp_path / "out", tmp_path / "other"
    with pytest.raises(UserError, match="Mine cannot keep a budget in l2, only in linf"):
        protect(source, out, f"{place}:Mine", budget="l2:2", canvas=8, run=run)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "mine.py"]
    settings = protect(source, out, f"{place}:Mine", canvas=8, run=run).settings
    (path,) = private_of(out).glob("perturbation-*")
    assert Perturbation.load(path).made_by == f"Mine() of {settings.code}" and settings.budget == "linf:8"
    alone = protect(source, other, f"{place}:Alone", budget="l2:2", canvas=8, run=run)
    assert alone.status == "finished" and alone.settings.budget == "l2:2"
    for name, told in (("Empty", "Empty lacks craft"), ("Aimless", "Aimless lacks loss"), ("Nothing", "is no attack")):
        with pytest.raises(UserError, match=f"mine.py.*{told}"):
            attack(f"{place}:{name}")
