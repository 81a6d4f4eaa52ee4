"""The tests are exact: p-values of keys that nobody used are uniform, for every response of a suspect."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from miue.core.errors import UserError
from miue.trace import tests


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keys(count: int, rng: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randint(2, (count, *shape), generator=rng, dtype=torch.int8) * 2 - 1


def within(values: list[float], level: float, n: int) -> bool:
    """Whether a share of small p-values is what a binomial with that level gives in 999 of 1,000 cases."""
    low, high = stats.binom.interval(0.999, n, level)
    return low <= sum(p <= level for p in values) <= high


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_sign_test_is_exact(count: int):
    rng = generator(1)
    weights = torch.randn(6, 12, generator=rng, dtype=torch.float64) * torch.rand(6, 1, generator=rng) ** 3
    p = [tests.sign_test(weights, keys(6, rng, 12), rng, draws=199).p for _ in range(count)]
    assert within(p, 0.05, count) and within(p, 0.01, count)
    if count == 10_000:
        assert 0.044 <= np.mean(np.array(p) <= 0.05) <= 0.056 and 0.007 <= np.mean(np.array(p) <= 0.01) <= 0.013


@pytest.mark.parametrize(("classes", "each"), [(10, 1), (3, 6)])
def test_assignment_test_is_exact(classes: int, each: int):
    rng, owners = generator(2), [c for c in range(classes) for _ in range(each)]
    table = torch.randn(len(owners), classes, generator=rng, dtype=torch.float64)
    p = []
    for _ in range(2_000):
        order = torch.randperm(len(owners), generator=rng)
        p.append(tests.assignment_test(table[order], owners, rng, draws=199).p)
    assert within(p, 0.05, 2_000) and within(p, 0.01, 2_000)


def test_enumeration_finds_every_assignment():
    table = torch.randn(8, 8, generator=generator(), dtype=torch.float64)
    every = [sum(float(table[k, c]) for k, c in enumerate(order)) for order in permutations(range(8))]
    result = tests.assignment_test(table, range(8), generator())
    own = float(table.diag().sum())
    assert result.draws == len(every) == 40_320
    assert result.p == pytest.approx(np.mean(np.array(every) >= own - 1e-9))
    assert result.z == pytest.approx((own - np.mean(every)) / np.std(every))


def test_enumeration_and_draws_agree_with_several_keys_a_class():
    owners = [0] * 8 + [1] * 8  # 12,870 assignments
    table = torch.randn(16, 2, generator=generator(3), dtype=torch.float64)
    exact = tests.assignment_test(table, owners, generator())
    assert exact.draws == 12_870
    order = torch.stack([torch.randperm(16, generator=generator(5)) for _ in range(1)])[0]
    shuffled = tests.assignment_test(table[order], [owners[i] for i in order.tolist()], generator())
    assert shuffled.p == pytest.approx(exact.p) and shuffled.z == pytest.approx(exact.z)


def test_too_few_assignments_are_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"2 ways.*sign test"):
        tests.assignment_test(torch.zeros(2, 2, dtype=torch.float64), [0, 1], generator())


def test_ties_count_against_us():
    nothing = torch.zeros(4, 12, dtype=torch.float64)
    assert tests.sign_test(nothing, keys(4, generator(), 12), generator(), 99).p == 1
    assert tests.assignment_test(torch.zeros(8, 8, dtype=torch.float64), range(8), generator()).p == 1
    assert (
        tests.unlabelled_test(torch.zeros(3, 12, dtype=torch.float64), keys(3, generator(), 12), generator(), 99).p == 1
    )


def test_counterfactual_sums_are_sums_over_fair_signs():
    """Tables of 256 give what a product with the signs gives, and the signs are fair."""
    weights = torch.arange(1.0, 14.0, dtype=torch.float64).numpy()
    codes = tests._codes(2, 4_000, generator())
    bits = np.unpackbits(codes.T.copy(), axis=1).reshape(4_000, 16)[:, :13] * 2.0 - 1
    assert np.allclose(tests._sums(tests._tables(weights), codes), bits @ weights)
    assert np.abs(bits.mean(0)).max() < 4 / np.sqrt(4_000)
    assert np.abs(np.corrcoef(bits.T) - np.eye(13)).max() < 5 / np.sqrt(4_000)


def test_beyond_the_draws_a_closed_bound_holds():
    weights = torch.ones(10, 48, dtype=torch.float64)
    result = tests.sign_test(weights, torch.ones(10, 48, dtype=torch.int8), generator(), 999)
    assert result.bound and result.z == pytest.approx(480**0.5) and result.p == pytest.approx(np.exp(-240))
    weaker = torch.ones(10, 48, dtype=torch.int8)
    weaker.flatten()[:210] = -1  # z = 2.7: the bound, .024, says less than the draws
    result = tests.sign_test(weights, weaker, generator(), 99)
    assert not result.bound and result.p == 0.01


def test_the_bound_is_never_below_the_exact_tail():
    """Against all 2^12 sign vectors, for every statistic that they give."""
    weights = torch.randn(12, generator=generator(4), dtype=torch.float64).numpy()
    every = np.unpackbits(np.arange(4096, dtype=">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 4:] * 2.0 - 1
    sums = np.sort(every @ weights)[::-1]
    tail = np.arange(1, 4097) / 4096
    bound = np.exp(-(np.maximum(sums, 0) ** 2) / (2 * (weights**2).sum()))
    assert (tail <= bound + 1e-12).all()


def test_unlabelled_test_is_exact():
    rng = generator(5)
    responses = torch.randn(4, 12, generator=rng, dtype=torch.float64)
    p = [tests.unlabelled_test(responses, keys(4, rng, 12), rng, draws=99).p for _ in range(1_000)]
    assert within(p, 0.05, 1_000) and within(p, 0.01, 1_000)


def test_unlabelled_test_needs_no_names():
    rng = generator(6)
    key = keys(5, rng, 27)
    responses = key[torch.tensor([3, 0, 4, 1, 2])].double() + torch.randn(5, 27, generator=rng, dtype=torch.float64)
    assert tests.unlabelled_test(responses, key, rng, draws=9_999).p == 1e-4
    assert tests.sign_test(responses, key, rng, draws=9_999).p > 1e-3


@pytest.mark.parametrize(("classes", "each"), [(10, 1), (3, 4)])
def test_wealth_is_a_fair_bet(classes: int, each: int):
    """Its mean is 1 at most, and it reaches 20 in at most one of 20 cases, wherever it is stopped."""
    rng, owners, sizes = generator(7), [c for c in range(classes) for _ in range(each)], [each] * classes
    responses = torch.randn(classes, 27, generator=rng, dtype=torch.float64)
    last, most = [], []
    for _ in range(2_000):
        order = torch.randperm(len(owners), generator=rng).tolist()
        lifts = tests.blind_lifts(responses, keys(len(owners), rng, 27))
        bet = tests.wealth(lifts, [owners[i] for i in order], sizes)
        last.append(bet.course[-1])
        most.append(max(bet.course))
    assert np.mean(last) <= 1 + 3 * np.std(last) / 2_000**0.5
    assert np.mean(np.array(most) >= 20) <= 0.05


def test_wealth_grows_where_the_keys_were_learned_and_stops():
    rng, names = generator(8), list(range(10))
    key = keys(10, rng, 48)
    lifts = tests.blind_lifts(key.double() + torch.randn(10, 48, generator=rng, dtype=torch.float64), key)
    whole, short = tests.wealth(lifts, names, [1] * 10), tests.wealth(lifts, names, [1] * 10, stop=1e3)
    assert whole.p < 1e-5 and short.used < whole.used == 10
    assert short.p == pytest.approx(1 / max(short.course)) and short.p <= 1e-3
    assert short.course == whole.course[: short.used + 1]
    assert short.p >= whole.p


def test_response_is_the_mean_product():
    rng = generator(9)
    answers, signs = torch.rand(50, 4, generator=rng, dtype=torch.float64), keys(50, rng, 3, 2, 2)
    by_hand = sum((a - answers.mean(0))[:, None] * r.flatten() for a, r in zip(answers, signs, strict=True)) / 50
    assert torch.allclose(tests.response(answers, signs), by_hand)
    assert torch.allclose(tests.response(answers + 3, signs), by_hand)


def test_holm_steps_down():
    assert tests.holm([0.02, 0.0003, 0.0004], 0.001, 3) == pytest.approx([0.001, 0.001 / 3, 0.0005])
    assert tests.holm([0.0004, 0.0009], 0.001, 3) == pytest.approx([0.001 / 3] * 2)  # 0.0004 > 0.001 / 3
    assert tests.holm([0.0001], 0.001, 10) == [0.0001]
    assert tests.holm([0.0004, 0.0009, 0.0001], 0.001, 3) == pytest.approx([0.0005, 0.001, 0.001 / 3])
    assert tests.two_stages(0.3, 0.001) == 0.002 and tests.two_stages(0.9, 0.8) == 1
