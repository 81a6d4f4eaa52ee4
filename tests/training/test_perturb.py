"""Moves inside a budget."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from miue.core.types import Budget
from miue.training.perturb import add, class_mean, direction, keep_in_range, random_start, signed_step


def drawn(seed: int, low: float, high: float, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


@given(seed=st.integers(0, 999), eps=st.integers(1, 255))
def test_the_sum_is_a_picture_and_its_gradient_that_of_a_plain_sum(seed: int, eps: int):
    x = drawn(seed, -0.2, 1.2, 2, 3, 5, 5).clamp(0, 1).requires_grad_()
    delta = (drawn(seed + 1, -1, 1, 2, 3, 5, 5) * eps / 255).requires_grad_()
    weight = drawn(seed + 2, -1, 1, 2, 3, 5, 5)
    seen = add(x, delta)
    assert torch.allclose(seen, (x + delta).clamp(0, 1), atol=1e-6) and seen.min() >= 0 and seen.max() <= 1
    (seen * weight).sum().backward()
    assert torch.equal(delta.grad, weight) and torch.equal(x.grad, weight)  # also where the clamp cut


@given(seed=st.integers(0, 999), eps=st.integers(1, 255), step=st.floats(0, 2, allow_subnormal=False))
def test_a_signed_step_descends_and_stays_in_the_ball(seed: int, eps: int, step: float):
    budget = Budget(eps)
    delta = drawn(seed, -1, 1, 2, 3, 4, 4) * budget.unit
    gradient = drawn(seed + 1, -1, 1, 2, 3, 4, 4)
    gradient[0, 0, 0, 0] = 0
    moved = signed_step(delta, gradient, step, budget)
    assert moved.abs().max() <= budget.unit
    assert ((moved - delta) * gradient <= 0).all()
    assert (moved - delta).abs().max() <= step + 1e-6
    free = moved.abs() < budget.unit
    expected = delta - step * gradient.sign()
    assert torch.equal(moved[free], expected[free])
    assert moved[0, 0, 0, 0] == delta[0, 0, 0, 0]


@given(seed=st.integers(0, 999), eps=st.integers(1, 255))
def test_what_a_picture_can_hold(seed: int, eps: int):
    x = drawn(seed, -0.3, 1.3, 2, 3, 4, 4).clamp(0, 1)
    delta = drawn(seed + 1, -1, 1, 2, 3, 4, 4) * eps / 255
    kept = keep_in_range(delta, x)
    assert torch.allclose(x + kept, (x + delta).clamp(0, 1), atol=1e-6)
    assert (kept.abs() <= delta.abs()).all() and (kept * delta >= 0).all()
    assert torch.equal(keep_in_range(kept, x), kept)


def test_a_random_start_fills_the_ball_and_follows_its_generator():
    start = random_start((4, 3, 16, 16), Budget(8), torch.Generator().manual_seed(0))
    assert start.abs().max() <= 8 / 255 and start.max() > 7.8 / 255 and start.min() < -7.8 / 255
    assert start.mean().abs() < 0.3 / 255
    assert torch.equal(start, random_start((4, 3, 16, 16), Budget(8), torch.Generator().manual_seed(0)))
    assert not torch.equal(start, random_start((4, 3, 16, 16), Budget(8), torch.Generator().manual_seed(1)))


@given(seed=st.integers(0, 999), scale=st.floats(1e-12, 1e6))
def test_a_direction_forgets_the_size_of_its_row(seed: int, scale: float):
    gradient = drawn(seed, -1, 1, 3, 2, 4, 4)
    gradient[1] = 0
    rows = direction(gradient * torch.tensor([scale, 1.0, 1.0])[:, None, None, None])
    assert torch.allclose(rows.abs().mean((1, 2, 3)), torch.tensor([1.0, 0.0, 1.0]), rtol=1e-4)
    assert torch.equal(rows.sign(), gradient.sign())


def test_a_class_mean_is_taken_over_the_rows_of_a_class():
    rows, y = drawn(0, -1, 1, 5, 1, 2, 2), torch.tensor([7, 0, 7, 3, 0])
    means = class_mean(rows, y, 8)
    for label in (0, 3, 7):
        assert torch.allclose(means[y == label], rows[y == label].mean(0).expand_as(rows[y == label]), atol=1e-6)
