"""What a measurement carries, independence tests, and summaries of covariance."""

from __future__ import annotations

import math

import pytest
import torch

from miue.core.errors import UserError
from miue.core.run import Run
from miue.mi import KSG, ClassConditional, Sliced, covariance, independence_test, known, measure
from miue.mi.estimate import Estimate, Estimator
from miue.mi.measure import shuffled_rows


def test_a_measurement_of_pairs_that_share_only_the_label(run: Run):
    p = known.ClassMixture(separation_x=6.0, classes=4).sample(400, 4, run.rng("p"))
    made = measure(KSG(), p.x, p.y, run, p.labels, halves=8, shuffles=9)
    assert made.spread is not None and 0.005 < made.spread < 0.1
    assert made.null is not None and abs(made.null) < 0.05
    assert made.null_within is not None and abs(made.null_within - made.nats) < 3 * made.spread
    assert made.p is None and made.half is not None
    assert made == measure(KSG(), p.x, p.y, run, p.labels, halves=8, shuffles=9)
    line = str(made)
    assert "±" in line and "shuffled within class" in line and "ceiling 4." in line and "\n" not in line


def test_few_shuffles_give_no_p(run: Run):
    """The smallest that nine could give is 0.1."""
    p = known.gaussian_pairs(100, 1, 1.0, run.rng("p"))
    assert measure(KSG(), p.x, p.y, run, halves=2, shuffles=18).p is None
    assert measure(KSG(), p.x, p.y, run, halves=2, shuffles=19).p == 1 / 20


@pytest.mark.parametrize("estimator", [ClassConditional(), Sliced(slices=40, directions="shared")])
def test_halves_estimate_the_same_thing(run: Run, estimator: Estimator):
    """With the rank, or the bins, of the whole sample: half the rank would hold about half the information."""
    d, nats = (60, 20.0) if isinstance(estimator, ClassConditional) else (1, 3.0)
    p = known.gaussian_pairs(960, d, nats, run.rng("p"))
    made = measure(estimator, p.x, p.y, run, p.labels, halves=3, shuffles=1)
    assert made.half == pytest.approx(made.nats, rel=0.06)
    assert not any("not converged" in note for note in made.notes) or isinstance(estimator, Sliced)


def test_information_within_classes_is_lost_by_shuffling_within_them(run: Run):
    p = known.gaussian_pairs(300, 1, 1.5, run.rng("p"))
    made = measure(KSG(), p.x, p.y, run, p.labels, halves=3, shuffles=3)
    assert made.null_within is not None and abs(made.null_within) < 0.15 < made.nats
    bare = measure(KSG(), p.x, p.y, run, halves=3, shuffles=3)
    assert bare.null_within is None and bare.nats == made.nats


def test_a_saturated_measurement_says_so(run: Run):
    x = torch.randn(200, 2, generator=run.rng("x"))
    made = measure(KSG(), x, x, run, halves=3, shuffles=1)
    assert any("saturated" in note for note in made.notes) and any("not converged" in note for note in made.notes)
    with pytest.raises(UserError, match="halves=1"):
        measure(KSG(), x, x, run, halves=1)


def test_the_spread_falls_with_the_root_of_n(run: Run):
    small, large = (
        measure(Sliced(slices=2, per="gaussian"), p.x, p.y, run, halves=60, shuffles=1).spread
        for p in (known.gaussian_pairs(n, 1, 0.5, run.rng("p", n)) for n in (200, 3200))
    )
    assert small is not None and large is not None and 2 < small / large < 8


def test_a_bootstrap_would_lie(run: Run):
    """Rows that come twice look like information to nearest neighbours: the reason for half-samples."""
    p = known.gaussian_pairs(400, 2, 0.0, run.rng("p"))
    rows = torch.randint(400, (400,), generator=run.rng("boot"))
    assert KSG()(p.x[rows], p.y[rows], run).nats > 0.15 > abs(KSG()(p.x, p.y, run).nats)


def test_shuffles(run: Run):
    labels = torch.randint(5, (200,), generator=run.rng("labels"))
    order = shuffled_rows(200, labels, run.rng("order"))
    assert sorted(order.tolist()) == list(range(200)) and torch.equal(labels[order], labels)
    assert (order != torch.arange(200)).sum() > 150
    assert not torch.equal(labels[shuffled_rows(200, None, run.rng("order"))], labels)


def test_a_line_for_people():
    assert str(Estimate(1.25, "estimate")) == "1.250 nats"
    assert str(Estimate(1.25, "lower bound", 0.1, ceiling=2.0, notes=("so",))) == (
        ">= 1.250 ± 0.100 nats (ceiling 2.000); so"
    )


@pytest.mark.parametrize("statistic", ["hsic", "cka"])
def test_independence(run: Run, statistic: str):
    p = known.gaussian_pairs(150, 3, 1.0, run.rng("p"))
    found = independence_test(p.x, p.y, run, statistic, shuffles=39)  # type: ignore[arg-type]
    assert found.p == 1 / 40 and found.value > 0 and abs(found.null) < 0.1 * found.value
    order = torch.randperm(150, generator=run.rng("order"))
    assert independence_test(p.x, p.y[order], run, statistic, shuffles=39).p > 0.05  # type: ignore[arg-type]
    if statistic == "cka":
        assert independence_test(p.x, 3 - 2 * p.x, run, "cka", shuffles=1).value == pytest.approx(1)


def test_only_hsic_sees_what_is_not_linear(run: Run):
    x = torch.randn(200, 1, generator=run.rng("x"))
    assert independence_test(x, x.square(), run, "hsic", shuffles=39).p == 1 / 40
    assert independence_test(x, x.square(), run, "cka", shuffles=39).value < 0.1
    with pytest.raises(UserError, match="shuffles=0"):
        independence_test(x, x, run, shuffles=0)


def test_covariance_of_classes(run: Run):
    labels = torch.arange(300) % 3
    noise = torch.randn(300, 6, generator=run.rng("z"), dtype=torch.float64)
    corners = torch.eye(6, dtype=torch.float64)[:3][labels]
    loose, tight = (covariance(corners + s * noise, labels, run, rank=3) for s in (0.5, 0.05))
    for made in (loose, tight):
        assert made.trace == pytest.approx(1 - made.cosine, abs=1e-12)
    assert tight.trace < 0.05 < loose.trace and tight.log_det < loose.log_det - 5
    assert tight.distance == pytest.approx(math.sqrt(2), abs=0.02)
    assert loose.distance < tight.distance
    scaled = covariance(7 * (corners + 0.5 * noise).float(), labels + 4, run, rank=3)
    assert scaled.trace == pytest.approx(loose.trace, abs=1e-6) and scaled.log_det == pytest.approx(
        loose.log_det, abs=1e-4
    )
    with pytest.raises(UserError, match="more than 8 rows"):
        covariance(noise[:20].repeat(1, 2), labels[:20], run)
