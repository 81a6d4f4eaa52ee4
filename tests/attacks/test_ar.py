"""AR: the process, its matching filter, the search, and the two budgets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeClassifier

from miue.attacks import AR
from miue.attacks.ar import apart, candidates, generated, matching, response, search, signals, stable
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget
from miue.testing import tiny


def test_the_vector_of_the_specification():
    b = torch.tensor([[0.1, -0.2, 0.3], [0.4, 0.1, -0.1], [0.2, 0.2, 0.0]])
    start = torch.tensor([[1.0, 2, 3, 4], [0, 1, 0, 1], [1, -1, 9, 9], [2, 0, 9, 9]])
    made = signals(b[None, None], start[None, None])[0, 0]
    assert torch.equal(made[:2], start[:2]) and torch.equal(made[:, :2], start[:, :2])
    assert torch.allclose(made[2:, 2:], torch.tensor([[0.70, 1.04], [0.430, 0.052]]), atol=1e-6)


@given(seed=st.integers(0, 999), height=st.integers(3, 9), width=st.integers(3, 9), channels=st.sampled_from([1, 3]))
@settings(max_examples=15)
def test_a_step_a_diagonal_is_the_raster_scan(seed: int, height: int, width: int, channels: int):
    draw = torch.Generator().manual_seed(seed)
    b = torch.randn(2, channels, 3, 3, generator=draw) / 3
    b[..., 2, 2] = 0
    start = torch.randn(2, channels, height, width, generator=draw)
    plain = start.clone()
    for i in range(2, height):
        for j in range(2, width):
            plain[:, :, i, j] = (b * plain[:, :, i - 2 : i + 1, j - 2 : j + 1]).sum((2, 3))
    assert torch.allclose(signals(b, start), plain, rtol=1e-4, atol=1e-4)


def test_candidates_sum_to_one_and_leave_out_the_value_itself():
    drawn = candidates(50, torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 1, 3, 3) and (drawn[..., 2, 2] == 0).all()
    sums = drawn.double().sum((1, 2, 3))
    assert torch.allclose(sums, torch.ones(50).double(), atol=1e-4)
    assert torch.equal(matching(drawn)[..., 2, 2], -torch.ones(50, 1))
    assert torch.equal(matching(drawn).flatten(1)[:, :8], drawn.flatten(1)[:, :8])


@pytest.mark.parametrize(("classes", "shape"), [(10, (3, 32, 32)), (4, (1, 13, 13)), (20, (3, 8, 8))])
def test_the_matching_filter_silences_its_own_class_and_no_other(run: Run, classes: int, shape: tuple[int, int, int]):
    processes = search(classes, shape, 5.0, run)
    assert processes.shape == (classes, shape[0], 3, 3)
    made = generated(processes, *shape[1:], run.rng("fresh"))
    answers = response(made, matching(processes))
    own, others = answers.diagonal(), answers[~torch.eye(classes, dtype=torch.bool)]
    assert own.max() < 1e-4 and others.median() > 1
    assert others.min() > 100 * own.max()


def answers_to_later(processes: torch.Tensor, run: Run) -> torch.Tensor:
    """What every filter answers to new signals of the processes after it."""
    answers = response(generated(processes, 32, 32, run.rng("fresh")), matching(processes))
    return answers[torch.ones_like(answers).tril(-1).bool()]


@pytest.mark.slow
def test_ten_processes_are_as_far_apart_as_published_and_stable(run: Run):
    processes = search(10, (3, 32, 32), 10.0, run)
    found = answers_to_later(processes, run)
    assert found.median() > 10 and found.min() > 8  # the search saw other signals of the same processes
    assert answers_to_later(search(10, (3, 32, 32), 0.0, run), run).min() < 5
    sizes = generated(processes.repeat(5, 1, 1, 1), 32, 32, run.rng("other")).flatten(2).norm(dim=2)
    assert sizes.isfinite().all() and (sizes <= 50 / 3**0.5).float().mean() > 0.8


def test_rows_that_are_apart():
    """Filter k answers signal k + 1 and all behind it: the chain is found; at most so many are taken."""
    signal, filters = torch.eye(5).reshape(5, 5, 1, 1).repeat(1, 1, 3, 3), torch.zeros(5, 5, 3, 3)
    for k in range(5):
        filters[k, k + 1 :, 1, 1] = 9.0
    assert torch.allclose(response(signal, filters)[4], torch.tensor([3.0, 3, 3, 3, 0]))  # 9 x 1 / 3 at one place
    assert apart(signal, filters, 5, 3.0).tolist() == [0, 1, 2, 3, 4]
    assert apart(signal, filters, 2, 3.0).tolist() == [0, 1] and apart(signal, filters, 5, 3.1).tolist() == [0]


def test_channels_that_grow_are_left_out(run: Run):
    flat, doubling = torch.zeros(2, 1, 1, 3, 3)
    flat[..., :2, :2], doubling[0, 0, 0, 2], doubling[0, 0, 2, 0] = 0.25, 1.0, 1.0  # a value's own is 0
    kept = stable(torch.cat([flat, doubling]), 32, 32, run.rng("x"))
    assert torch.equal(kept, flat)


@pytest.mark.parametrize("budget", [Budget(6.0, "l2"), Budget(200.0, "l2"), Budget(255)])
def test_a_budget_larger_than_pictures_can_hold(run: Run, budget: Budget):
    data = tiny()
    protected = AR(distance=0.0)(data, budget, run).apply(data)
    assert budget.allows(protected.images.to(torch.int16) - data.images)


@pytest.mark.parametrize("budget", [Budget(1.0, "l2"), Budget(8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_picture_has_the_full_budget(run: Run, budget: Budget, channels: int):
    data = tiny(4, 3, channels, 16, lone=True)
    delta = AR(distance=0.0)(data, budget, run).delta
    size = budget.measure(delta)
    assert (size <= budget.eps * (1 + 1e-6)).all() and (size >= 0.97 * budget.eps).all()
    assert len(delta.flatten(1).unique(dim=0)) == len(data)


def test_on_integers_a_filter_still_tells_its_class(run: Run):
    """Rounding leaves a rest; a network with the matching filters as its first layer still reads the class."""
    data = tiny(6, 5, size=32)
    delta = AR(distance=5.0)(data, Budget(1.0, "l2"), run).delta.float()
    processes = search(5, data.shape, 5.0, run)
    loud = F.conv2d(delta, matching(processes)).relu().sum((2, 3)) / matching(processes).flatten(1).norm(dim=1)
    assert (loud.argmin(1) == data.labels).all()


def test_a_linear_probe_does_not_separate_it(run: Run):
    data = tiny(40, 5, size=16)
    delta = AR(distance=0.0)(data, Budget(1.0, "l2"), run).delta.flatten(1).numpy()
    probe = RidgeClassifier().fit(delta[:100], data.labels[:100])
    assert probe.score(delta[100:], data.labels[100:]) < 0.6


def test_what_is_refused(run: Run):
    with pytest.raises(UserError, match="AR cannot keep a budget in l0, only in l2 or linf"):
        AR()(tiny(), Budget(1, "l0"), run)
    for wrong in (-1.0, 31.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match=f"distance={wrong:g} is not between 0 and 30"):
            AR(distance=wrong)
