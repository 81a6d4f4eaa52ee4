"""Budget algebra, rounding, and what the nouns refuse."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import AttackFacts
from miue.core.types import Budget, ImageSet, Perturbation, stretch
from miue.evaluation.records import Outcome, VictimRun
from miue.testing import tiny


def made(delta: Tensor, eps: float = 8, labels: Tensor | None = None) -> Perturbation:
    return Perturbation(delta, Budget(eps), "ours", labels)


def grids(seed: int, n: int, side: int, eps: float) -> Tensor:
    """Uniform in [-eps, eps] grey levels, on the [0,1] scale, with saturated values among them."""
    values = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2.4 - 1.2
    return values.clamp(-1, 1) * eps / 255


# --- ImageSet ---


def test_an_image_set_refuses_what_does_not_fit_together():
    images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    with pytest.raises((TypeCheckError, ValueError)):  # shapes are checked twice: by annotation and by message
        ImageSet(images, labels[:3], ("a", "b"), "x")
    for arguments, told in (
        ((images, labels, ("a",), "x"), "labels must lie in 0..0"),
        ((images, labels - 1, ("a", "b"), "x"), "labels must lie"),
        ((images, labels, ("a", "b"), "x", ("only one",)), "1 sources"),
        ((images[:, :2], labels, ("a", "b"), "x"), "2 channels"),
    ):
        with pytest.raises(ValueError, match=told):
            ImageSet(*arguments)
    with pytest.raises(TypeCheckError):
        ImageSet(images.float(), labels, ("a", "b"), "x")


def test_an_image_set_is_frozen_and_says_what_it_is():
    data = tiny()
    with pytest.raises(FrozenInstanceError):
        data.name = "other"  # pyright: ignore
    assert "12 images 3x8x8" in repr(data) and "3 classes" in repr(data)


def test_the_digest_follows_pixels_labels_and_classes_and_nothing_else():
    data = tiny()
    pixels = data.images.clone()
    pixels[3, 1, 2, 2] ^= 1
    others = {
        data.with_images(pixels).digest,
        ImageSet(data.images, data.labels.flip(0), data.classes, "tiny").digest,
        ImageSet(data.images, data.labels, ("x", "y", "z"), "tiny").digest,
        ImageSet(data.images.reshape(12, 3, 4, 16), data.labels, data.classes, "tiny").digest,
    }
    assert data.digest not in others and len(others) == 4
    assert data.with_images(data.images.clone(), "renamed").digest == data.digest
    assert tiny(seed=1).digest != data.digest == tiny().digest


@pytest.mark.parametrize("by_class", [False, True])
def test_a_part_of_a_perturbation_is_that_of_the_same_pictures(by_class: bool):
    data, rows = tiny(), torch.tensor([7, 2, 3])
    labels = data.labels if by_class else None
    delta = torch.arange(-6, 6)[: 3 if by_class else 12, None, None, None].expand(-1, 3, 8, 8).to(torch.int8)
    whole = Perturbation(delta.contiguous(), Budget(8), "test", labels)
    assert torch.equal(whole.select(rows).apply(data.select(rows)).images, whole.apply(data).images[rows])


def test_select_keeps_the_asked_order_and_class_indices():
    data = ImageSet(tiny().images, tiny().labels, tiny().classes, "x", tuple(f"f{i}" for i in range(12)))
    part = data.select(torch.tensor([5, 2]))
    assert part.labels.tolist() == [2, 2] and part.sources == ("f5", "f2") and part.classes == data.classes
    assert torch.equal(part.images, data.images[[5, 2]])
    assert data.select(data.labels == 1).sources == ("f1", "f4", "f7", "f10")


def test_first_per_class_takes_the_first_rows_of_every_class():
    data = tiny(per_class=4, lone=True)
    part = data.first_per_class(2)
    assert part.labels.bincount().tolist() == [1, 2, 2]
    first = [i for label in range(3) for i in (data.labels == label).nonzero().flatten().tolist()[:2]]
    assert torch.equal(part.images, data.images[sorted(first)])


# --- Budget ---


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("8", Budget(8)),
        ("8/255", Budget(8)),
        ("8.0", Budget(8)),
        ("linf:16", Budget(16)),
        ("linf:4/255", Budget(4)),
        ("255", Budget(255)),
        ("l2:1.3", Budget(1.3, "l2")),
        ("l0:1", Budget(1, "l0")),
        ("none", Budget(0, "none")),
    ],
)
def test_budget_texts(text: str, budget: Budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "-1", "7.5", "0.03", "256", "nan", "inf", "l2:0", "l2:-1", "l0:0.5", "l1:8", "8/256", "8:l2",
     "l2:128/255", "l0:3/255"],
)  # fmt: skip
def test_budget_texts_that_are_refused(text: str):
    with pytest.raises(UserError) as told:
        Budget.parse(text)
    assert "\n" not in str(told.value) and len(str(told.value)) > 20


@pytest.mark.parametrize("norm", ["linf", "l2", "l0"])
@pytest.mark.parametrize("eps", [float("nan"), float("inf"), -float("inf"), 0, -1])
def test_numbers_that_are_no_budget(norm: Literal["linf", "l2", "l0"], eps: float | int):
    with pytest.raises(UserError, match="a budget of"):
        Budget(eps, norm)


def test_what_a_budget_measures():
    delta = torch.zeros(2, 3, 4, 4, dtype=torch.int8)
    delta[0, :, 0, 0] = torch.tensor([3, -4, 0])
    delta[0, 2, 3, 3] = -12
    assert Budget(12).measure(delta).tolist() == [12, 0]
    assert Budget(1, "l0").measure(delta).tolist() == [2, 0]  # pixels, not values
    assert torch.allclose(Budget(1.0, "l2").measure(delta), torch.tensor([13 / 255, 0.0]))
    assert Budget(12).allows(delta) and not Budget(11).allows(delta)
    assert Budget(2, "l0").allows(delta) and not Budget(1, "l0").allows(delta)
    assert Budget(13 / 255, "l2").allows(delta) and not Budget(12.9 / 255, "l2").allows(delta)
    assert Budget(0, "none").allows(delta) and Budget(8).allows(delta[:0])


def test_the_lowest_int8_value_has_a_size():
    lowest = torch.full((1, 3, 2, 2), -128, dtype=torch.int8)
    assert Budget(127).measure(lowest).tolist() == [128] and not Budget(127).allows(lowest)


# --- rounding ---


@given(seed=st.integers(0, 999), side=st.integers(1, 9), eps=st.sampled_from([1, 4, 8, 127, 128, 200, 255]))
def test_rounding_is_to_nearest_and_keeps_the_budget(seed: int, side: int, eps: int):
    exact = grids(seed, 2, side, eps)
    delta = Perturbation.rounded(exact, Budget(eps), "ours").delta
    assert delta.dtype == (torch.int8 if eps < 128 else torch.int16)
    assert delta.abs().max() <= eps
    assert (delta.double() - exact.double() * 255).abs().max() <= 0.5 + 1e-4


def test_rounding_has_no_bias():
    exact = grids(0, 40, 32, 8)
    error = Perturbation.rounded(exact, Budget(8), "ours").delta.double() - exact.double() * 255
    for half in (error[exact > 0], error[exact < 0]):
        assert half.mean().abs() < 0.01  # truncating towards zero shifts either by 0.4
    for value, level in ((7.6, 8), (-7.4, -7), (0.4, 0), (-0.6, -1)):
        assert Perturbation.rounded(torch.full((1, 1, 1, 1), value / 255), Budget(8), "x").delta.item() == level


def test_saturated_values_survive_exactly():
    for eps in range(1, 256):
        edge = torch.full((1, 1, 1, 1), eps / 255)
        assert Perturbation.rounded(edge, Budget(eps), "x").delta.item() == eps
        assert Perturbation.rounded(-edge, Budget(eps), "x").delta.item() == -eps


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 8.1 / 255, -9 / 255, 1.0])
def test_one_bad_value_refuses_the_whole(bad: float):
    delta = torch.zeros(3, 3, 4, 4)
    delta[1, 2, 3, 0] = bad
    with pytest.raises(ValueError, match=r"ours (made values that are not finite|left its budget)"):
        Perturbation.rounded(delta, Budget(8), "ours")


def test_integers_outside_the_budget_are_refused():
    with pytest.raises(ValueError, match="left its budget: 9 > 8"):
        made(torch.full((1, 3, 2, 2), 9, dtype=torch.int8))
    with pytest.raises(ValueError, match="left its budget"):
        Perturbation(torch.full((1, 3, 2, 2), 1, dtype=torch.int16), Budget(3, "l0"), "ours")
    with pytest.raises(TypeCheckError):
        Perturbation(torch.zeros(1, 3, 2, 2), Budget(8), "ours")  # pyright: ignore


def test_a_class_without_a_row_is_refused():
    with pytest.raises(ValueError, match="fewer than there are classes"):
        made(torch.zeros(2, 3, 2, 2, dtype=torch.int8), labels=torch.tensor([0, 1, 2]))


@given(
    seed=st.integers(0, 999),
    eps=st.sampled_from([0.05, 0.3, 1.0, 6.0]),
    side=st.sampled_from([1, 2, 9]),
    step=st.sampled_from([1, 3]),
)
def test_an_l2_budget_holds_after_rounding_without_slack(seed: int, eps: float, side: int, step: int):
    """Flat squares are the hard case: their rounding errors do not cancel."""
    raw = torch.randn(6, 3, side, side, generator=torch.Generator().manual_seed(seed))
    raw = raw.repeat_interleave(step, 2).repeat_interleave(step, 3)
    budget = Budget(eps, "l2")
    exact = (raw * (eps / raw.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)).clamp(-1, 1)
    delta = Perturbation.rounded(exact, budget, "ours").delta
    assert (delta.double().flatten(1).norm(dim=1) / 255 <= eps * (1 + 1e-6)).all()
    short = exact.double() * 255
    assert ((delta - short).abs() <= 0.5 + 1e-4 + 0.5 * short.abs()).all()
    assert (delta.double() * short >= 0).all()


def test_an_l2_budget_loses_little_to_rounding():
    raw = torch.randn(50, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact = raw / raw.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    plain = (exact * 255).round().double().flatten(1).norm(dim=1) / 255
    assert (plain > 1).any()  # rounding alone leaves the budget
    size = Budget(1.0, "l2").measure(Perturbation.rounded(exact, Budget(1.0, "l2"), "ours").delta)
    assert size.max() <= 1 + 1e-6 and size.min() > 0.998
    within = Perturbation.rounded(exact * 0.9, Budget(1.0, "l2"), "ours").delta
    assert torch.equal(within, (exact * 0.9 * 255).round().to(torch.int8))  # what fits is not touched


def test_an_l2_norm_that_was_not_projected_is_refused():
    with pytest.raises(ValueError, match=r"ours left its budget: 1.1\d* > 1 \(l2\)"):
        Perturbation.rounded(torch.full((1, 3, 2, 2), 1.1 / 12**0.5), Budget(1.0, "l2"), "ours")


def test_16_bits_only_where_a_value_needs_them():
    for value, norm, dtype in ((0.4, "l2", torch.int8), (0.6, "l2", torch.int16), (-1.0, "none", torch.int16)):
        delta = Perturbation.rounded(torch.full((1, 1, 1, 1), value), Budget(2.0, norm), "ours").delta
        assert delta.dtype == dtype and abs(delta.item() - value * 255) <= 0.5


@pytest.mark.parametrize("text", ["linf:8", "l2:1.304145145", "l0:3", "none"])
def test_a_budget_is_written_as_it_is_read(text: str):
    assert str(Budget.parse(text)) == text


def test_facts_are_consistent():
    same = {"name": "x", "title": "x", "year": 2020, "reference": "r", "summary": "s", "passes": 0, "needs": "nothing"}
    with pytest.raises(ValueError, match="its own budget is in l2"):
        AttackFacts(**same, natural=Budget(1.0, "l2"))
    facts = AttackFacts(**same, natural=Budget(1.0, "l2"), norms=("l2", "linf"))
    assert facts.budget((3, 96, 96)).eps == pytest.approx(3.0) and facts.budget((3, 32, 32)) == Budget(1.0, "l2")
    facts.check(Budget(4))
    with pytest.raises(UserError, match=r"x cannot keep a budget in l0, only in l2 or linf; leave the budget out"):
        facts.check(Budget(1, "l0"))


# --- stretching ---


@given(
    seed=st.integers(0, 99),
    side=st.integers(1, 12),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    eps=st.sampled_from([1, 8, 127, 255]),
)
def test_stretching_never_exceeds_the_budget(seed: int, side: int, height: int, width: int, eps: int):
    exact = grids(seed, 2, side, eps)
    assert stretch(exact, height, width).abs().max() <= exact.abs().max() * (1 + 1e-6)
    delta = Perturbation.rounded(exact, Budget(eps), "ours")
    at = delta.at(1, height, width)
    assert at.shape == (3, height, width) and at.abs().max() <= eps
    if side == height == width:
        assert torch.equal(at, delta.delta[1])


def test_stretching_keeps_orientation_and_constants():
    grid = torch.tensor([[[[-8.0, 8.0], [-8.0, 8.0]]]])
    wide = stretch(grid, 3, 9)
    assert wide.shape == (1, 1, 3, 9)
    assert (wide.diff(dim=-1) >= 0).all() and (wide.diff(dim=-2).abs() < 1e-5).all()
    assert wide[..., 0].allclose(torch.tensor(-8.0)) and wide[..., -1].allclose(torch.tensor(8.0))
    assert stretch(torch.full((1, 3, 4, 4), 5.0), 17, 3).allclose(torch.full((1, 3, 17, 3), 5.0))


def test_stretching_is_differentiable_and_the_same_for_attack_and_writer():
    grid = grids(3, 1, 4, 8).requires_grad_()
    stretch(grid, 11, 7).sum().backward()
    assert grid.grad is not None and torch.allclose(grid.grad.sum(), torch.tensor(3 * 77.0), rtol=1e-5)
    delta = Perturbation.rounded(grid.detach(), Budget(8), "ours")
    float_way = stretch(delta.delta.float(), 11, 7)[0]
    assert (delta.at(0, 11, 7) - float_way).abs().max() <= 0.5


def test_large_budgets_stay_in_16_bits_when_stretched():
    delta = Perturbation.rounded(torch.full((1, 3, 2, 2), 250 / 255), Budget(250), "ours")
    assert delta.at(0, 5, 3).dtype == torch.int16 and delta.at(0, 5, 3).eq(250).all()


# --- applying ---


def test_apply_adds_and_clamps():
    images = torch.tensor([0, 3, 100, 252, 255], dtype=torch.uint8).reshape(1, 1, 1, 5)
    data = ImageSet(images, torch.tensor([0]), ("a",), "x")
    for sign, expected in ((8, [8, 11, 108, 255, 255]), (-8, [0, 0, 92, 244, 247])):
        out = made(torch.full((1, 1, 1, 5), sign, dtype=torch.int8)).apply(data)
        assert out.images.flatten().tolist() == expected
        assert out.labels is data.labels and "ours" in out.name
    assert data.images.flatten().tolist() == [0, 3, 100, 252, 255]


@given(seed=st.integers(0, 99), side=st.integers(1, 9), eps=st.integers(1, 255))
def test_the_protected_set_is_within_the_budget(seed: int, side: int, eps: int):
    data = tiny(size=9, seed=seed)
    delta = Perturbation.rounded(grids(seed, len(data), side, eps), Budget(eps), "ours")
    change = delta.apply(data).images.to(torch.int16) - data.images
    assert Budget(eps).allows(change)
    exact = data.images.int() + delta.stretched(torch.arange(len(data)), 9, 9)
    assert torch.equal(delta.apply(data).images.int(), exact.clamp(0, 255))


def test_apply_refuses_another_number_of_pictures():
    for delta in (
        made(torch.zeros(11, 3, 8, 8, dtype=torch.int8)),
        made(torch.zeros(3, 3, 8, 8, dtype=torch.int8), labels=torch.zeros(13, dtype=torch.long)),
    ):
        with pytest.raises(ValueError, match="for 12 images"):
            delta.apply(tiny())


def test_one_row_a_class_goes_to_every_picture_of_the_class():
    data = tiny()
    delta = made(torch.tensor([1, -2, 3], dtype=torch.int8)[:, None, None, None].expand(3, 3, 8, 8), labels=data.labels)
    assert len(delta) == 12
    assert delta.at(4, 8, 8).unique().tolist() == [-2]
    assert delta.rows(torch.tensor([0, 4, 11])).tolist() == [0, 1, 2]


# --- on disk ---


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 0, 1, 1])])
@pytest.mark.parametrize("budget", [Budget(8), Budget(200), Budget(2.5, "l2")])
def test_saved_and_loaded(tmp_path: Path, labels: Tensor | None, budget: Budget):
    rows = 4 if labels is None else 2
    delta = Perturbation.rounded(grids(0, rows, 5, 1), budget, "ours(a=1)", labels)
    delta.save(tmp_path / "delta.safetensors")
    again = Perturbation.load(tmp_path / "delta.safetensors")
    assert torch.equal(again.delta, delta.delta) and again.delta.dtype == delta.delta.dtype
    assert again.budget == budget and again.made_by == "ours(a=1)" and len(again) == 4
    assert (again.labels is None) == (labels is None)
    assert torch.equal(again.stretched(torch.arange(4), 7, 6), delta.stretched(torch.arange(4), 7, 6))


def test_a_loaded_perturbation_is_checked_again(tmp_path: Path):
    from safetensors.torch import save_file

    meta = {"made_by": "theirs", "eps": "8", "norm": "linf"}
    save_file({"delta": torch.full((1, 3, 2, 2), 9, dtype=torch.int8)}, str(tmp_path / "bad.safetensors"), meta)
    with pytest.raises(UserError, match="theirs left its budget"):
        Perturbation.load(tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="no perturbation"):
        Perturbation.load(tmp_path / "none.safetensors")


# --- records ---


def test_records_survive_json_and_refuse_unknown_fields():
    victim = VictimRun(
        role="clean", victim="n", seed=0, data="d", last=0.5, best=0.75, best_epoch=2, train=1.0, seconds=1
    )
    outcome = Outcome(
        name="n", method="m", budget="linf:8", classes=2, chance=0.5, images=4, data={}, recipe={}, threshold=0.25,
        runs=[victim, victim.model_copy(update={"role": "protected", "last": 0.25})], verdict="inconclusive",
        reason="r", machine={},
    )  # fmt: skip
    again = Outcome.model_validate_json(outcome.model_dump_json())
    assert again.model_dump_json() == outcome.model_dump_json() and again.runs == outcome.runs
    assert outcome.accuracies("clean") == [0.5] and outcome.accuracies("protected", "n", "best") == [0.75]
    assert outcome.accuracies("noise") == [] == outcome.accuracies("clean", "other")
    for change in ({"extra": 1}, {"version": 2}, {"verdict": "perhaps"}):
        with pytest.raises(ValueError):
            Outcome.model_validate(outcome.model_dump() | change)
