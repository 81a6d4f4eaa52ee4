"""The theory as statements: those that hold, on random and adversarial cases, and those that are false."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from miue.core.run import Run
from miue.mi import gaussian, known, theory
from miue.mi.agreement import fano
from miue.mi.known import ClassMixture
from miue.mi.sliced import isotropic_ceiling

seeds = st.integers(0, 2**32)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def table(seed: int, *shape: int) -> Tensor:
    """Probabilities, most of them tiny, some 0: a power of uniform numbers. The worst cases lie at the edges."""
    p = torch.rand(*shape, generator=generator(seed), dtype=torch.float64)
    p = p ** [1, 4, 20][seed % 3]
    return torch.where(p > 1e-6, p, 0.0) + 1e-300


def positive(seed: int, d: int) -> Tensor:
    """A covariance, now and then almost singular."""
    scales = 10.0 ** -(torch.arange(d, dtype=torch.float64) * (seed % 4))
    a = normal(seed, d, d) * scales.sqrt()
    return a @ a.T + 1e-9 * torch.eye(d, dtype=torch.float64)


@given(seeds, st.integers(1, 8))
def test_entropy_chain(seed: int, d: int):
    assert all(check.holds for check in theory.entropy_chain(positive(seed, d)))


def test_entropy_chain_is_tight_for_equal_independent_features():
    for check in theory.entropy_chain(3 * torch.eye(4, dtype=torch.float64)):
        assert check.bound == pytest.approx(check.measured, abs=1e-12)


@given(
    seeds,
    st.sampled_from([2, 3, 50]),
    st.sampled_from([1, 3, 200]),
    st.booleans(),
    st.floats(-8, 8, allow_subnormal=False),
)
def test_cosine_and_trace_are_the_same(seed: int, n: int, d: int, self_pairs: bool, scale: float):
    z = normal(seed, n, d) * 10**scale + (seed % 2) * 10**scale
    assert theory.cosine_trace(z, self_pairs).holds


@given(seeds, st.integers(1, 4), st.integers(2, 6), st.sampled_from([0.05, 0.1, 1.0]))
def test_similarity_loss_is_bounded_by_the_trace(seed: int, classes: int, each: int, tau: float):
    assert theory.similarity_bound(normal(seed, classes * each, 5), classes, tau).holds


def test_a_small_similarity_loss_leaves_the_trace_open():
    """Classes in orthogonal blocks of directions, spread out within them: no loss, large trace."""
    block = torch.eye(20, dtype=torch.float64) * 0.9 + 0.6
    z = torch.block_diag(block, block, block)
    loss = theory.similarity_bound(z, 3, 0.1)
    assert loss.holds and loss.measured < 0.05
    trace = (loss.bound - math.log(3)) * 0.1
    assert trace > 0.04


MIXTURES = [ClassMixture(separation_x=s, rho=r) for s, r in ((0.0, 0.0), (1.0, 0.5), (4.2, 0.0), (8.0, 0.646))]


@pytest.mark.parametrize("model", MIXTURES, ids=repr)
def test_the_covariance_bound_with_label(model: ClassMixture):
    check = theory.covariance_bound(model, generator(0))
    assert check.holds
    # the gap is H(Y) - I(z'; Y), next to nothing when classes of z' lie 8 deviations apart
    assert check.bound - check.measured < 0.05


def test_the_covariance_bound_without_the_label_is_false():
    check = theory.covariance_bound_without_label(MIXTURES[2], generator(0))
    assert not check.holds and check.bound < 0 < check.measured


def test_the_covariance_bound_with_the_other_sign_is_false():
    check = theory.covariance_bound_with_plus(1e-4)
    assert not check.holds
    assert check.measured == pytest.approx(4.605, abs=1e-3) and check.bound == pytest.approx(-1.767, abs=1e-3)
    assert theory.covariance_bound_with_plus(1.0).holds  # large noise hides the error


@given(seeds, st.integers(1, 6), st.floats(0.01, 10), st.floats(0, 50, allow_subnormal=False))
def test_the_noise_floor_bound(seed: int, d: int, floor: float, strength: float):
    assert all(check.holds for check in theory.noise_floor(positive(seed, d), floor, strength * normal(seed + 1, d, d)))


def test_at_a_noise_floor_less_covariance_is_less_information():
    sigma, gain = positive(4, 8), 30 * normal(5, 8, 8)
    found = [theory.noise_floor(t * sigma, 0.5, gain)[0].measured for t in (1.0, 0.3, 0.1, 0.03, 0.01, 0.001, 1e-9)]
    assert found == sorted(found, reverse=True) and found[0] > 1 and found[-1] < 1e-3


@given(seeds, st.sampled_from([1.0, 0.1, 1e-3, 1e6]))
def test_scaling_changes_nothing(seed: int, scale: float):
    x = normal(seed, 60, 4)
    assert theory.scaling(x, x @ normal(seed + 1, 4, 3) + normal(seed + 2, 60, 3), scale).holds


def test_collapse_raises_the_information():
    """Less covariance, more mutual information: the counter-example to the claim in its general form."""
    found = [theory.collapse(s, generator(1)) for s in (1.0, 2.0, 4.0, 8.0, 16.0)]
    traces, nats = zip(*found, strict=True)
    assert list(traces) == sorted(traces, reverse=True) and traces[0] > 0.85 and traces[-1] < 0.12
    assert nats[0] < 0.1 and nats[1] < nats[2] < nats[3] and nats[-1] == pytest.approx(math.log(10), abs=0.01)


@given(seeds, st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))
def test_decomposition(seed: int, a: int, b: int, c: int):
    assert all(check.holds for check in theory.decomposition(table(seed, a, b, c)))


def test_decomposition_on_the_exclusive_or():
    """Pairwise independent, yet dependent given the label: the term that is subtracted is needed."""
    p = torch.zeros(2, 2, 2, dtype=torch.float64)
    for i in range(2):
        for j in range(2):
            p[i, j, i ^ j] = 0.25
    identity, through, _ = theory.decomposition(p)
    assert identity.holds and through.holds
    assert identity.measured == pytest.approx(0) and through.bound == pytest.approx(math.log(2))


@given(seeds, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_data_processing(seed: int, a: int, b: int, c: int, d: int):
    f, g = table(seed + 1, a, c), table(seed + 2, b, d)
    p = table(seed, a, b)
    maps = (f / f.sum(1, keepdim=True), g / g.sum(1, keepdim=True))
    assert theory.data_processing(p / p.sum(), *maps).holds


@given(seeds, st.integers(1, 5), st.integers(1, 5), st.integers(2, 5))
def test_fano(seed: int, a: int, b: int, c: int):
    assert theory.fano_bound(table(seed, a, b, c)).holds


def test_fano_is_tight_when_everything_is_told():
    p = torch.zeros(3, 3, 3, dtype=torch.float64)
    p[range(3), range(3), range(3)] = 1 / 3
    check = theory.fano_bound(p)
    assert check.bound == pytest.approx(math.log(3)) == pytest.approx(check.measured)


@pytest.mark.parametrize(
    ("accuracy", "classes", "line"),
    [(0.0995, 10, 0.0), (0.1121, 10, 0.001), (0.2417, 10, 0.083), (0.9445, 10, 1.966), (0.7665, 100, 2.989)],
)
def test_the_line_of_fano(accuracy: float, classes: int, line: float):
    assert fano(1 - accuracy, classes) == pytest.approx(line, abs=1e-3)


@pytest.mark.parametrize(("n", "gap", "bound"), [(4, 0.1875, 0.2786), (8, 0.1367, 0.2024), (12, 0.1128, 0.1668)])
def test_the_bound_by_weights_and_sample(n: int, gap: float, bound: float):
    check = theory.xu_raginsky(n)
    assert check.holds
    assert (check.measured, check.bound) == (pytest.approx(gap, abs=1e-4), pytest.approx(bound, abs=1e-4))


@given(st.integers(1, 20), st.floats(0, 1, allow_subnormal=False))
def test_the_bound_by_weights_and_sample_everywhere(n: int, p: float):
    assert theory.xu_raginsky(n, p).holds


def test_a_shift_of_distribution_is_not_covered_by_it():
    assert not theory.xu_raginsky(12, p=1.0, q=0.0).holds  # training tells nothing, and everything is wrong


@given(seeds, st.integers(1, 4), st.integers(1, 5))
def test_the_bound_with_a_shift(seed: int, w: int, s: int):
    test = table(seed + 1, s)
    assume(float(test.min() / test.sum()) > 1e-12)  # else the divergence is infinite and says nothing
    loss = torch.rand(w, s, generator=generator(seed + 2), dtype=torch.float64)
    bound, identity = theory.shift_bound(table(seed, w, s), test, loss)
    assert bound.holds and identity.holds


@pytest.mark.parametrize(("rho", "d"), [(0.9, 3), (0.6, 10), (0.99, 64)])
def test_sliced_closed_form(rho: float, d: int):
    """By Monte Carlo: a slice of two isotropic Gaussians is a Gaussian of correlation rho <a, b>."""
    a, b = (normal(seed, 40_000, d) for seed in (1, 2))
    r = rho * torch.nn.functional.cosine_similarity(a, b)
    values = -0.5 * torch.log1p(-r.square())
    assert theory.isotropic_sliced(rho, d) == pytest.approx(float(values.mean()), abs=5 * float(values.std()) / 200)


def test_sliced_closed_form_has_the_ceiling_as_its_limit():
    assert theory.isotropic_sliced(1 - 1e-9, 64) == pytest.approx(isotropic_ceiling(64), rel=1e-6)
    assert isotropic_ceiling(64) == pytest.approx(0.00800, abs=1e-5)
    assert isotropic_ceiling(512) == pytest.approx(0.00098, abs=1e-5)


def test_a_mixture_is_above_its_line(run: Run):
    """I(z; z') >= log C - h(P_e) - P_e log(C - 1) - H(Y|z') with the Bayes error, by Monte Carlo."""
    model = known.LEVELS[2]
    x, y, labels = model.latent(20_000, run.rng("x"))
    error = float((model.log_parts(x).argmax(1) != labels).double().mean())
    lost = -float(model.log_parts(y=y).log_softmax(1).gather(1, labels[:, None]).mean())
    nats, se = model.nats(run.rng("mc"), 20_000)
    assert fano(error, model.classes, lost) <= nats + 4 * se


def test_one_gaussian_over_ten_classes_says_too_much(run: Run):
    x, y, _ = known.LEVELS[3].latent(20_000, run.rng("x"))
    assert gaussian(x, y) > 1.5 * known.LEVELS[3].nats(run.rng("mc"), 20_000)[0]
