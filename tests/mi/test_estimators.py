"""Known answers, an independent implementation, invariances, and the ways in which estimators fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.feature_selection import mutual_info_regression

from miue.core.errors import UserError
from miue.core.run import Run
from miue.mi import KSG, MINE, Sliced, estimator, gaussian, gaussian_copula, known
from miue.mi._critics import mine_nats
from miue.mi._slices import histogram_nats
from miue.mi._tables import counts, plug_in
from miue.mi.estimate import KnownPairs
from miue.mi.infonce import InfoNCE
from miue.mi.ksg import ksg_ceiling, ksg_nats
from miue.mi.smile import SMILE
from miue.mi.theory import isotropic_sliced


def pairs(run: Run, nats: float, d: int = 1, n: int = 1000, seed: int = 0) -> KnownPairs:
    return known.gaussian_pairs(n, d, nats, run.rng("pairs", nats, d, seed))


# --- KSG ---


@pytest.mark.parametrize("nats", [0.5, 1.0, 3.0])
def test_ksg_is_that_of_scikit_learn(run: Run, nats: float):
    p = pairs(run, nats, n=400)
    x, y = (v / v.std(0, correction=0) for v in (p.x, p.y))  # as scikit-learn scales
    theirs = mutual_info_regression(x.numpy(), y[:, 0].numpy(), n_neighbors=3, random_state=0)[0]
    # scikit-learn adds noise of 1e-10 to break ties
    assert ksg_nats(x, y, 3) == pytest.approx(theirs, abs=1e-8)


@pytest.mark.parametrize(("nats", "tolerance"), [(0.0, 0.08), (0.5, 0.08), (2.0, 0.12)])
def test_ksg_in_one_dimension(run: Run, nats: float, tolerance: float):
    p = pairs(run, nats)
    assert KSG()(p.x, p.y, run).nats == pytest.approx(nats, abs=tolerance)
    warped = known.warped(p)
    assert KSG()(warped.x, warped.y, run).nats == pytest.approx(nats, abs=tolerance + 0.05)


def test_ksg_errs_downwards_with_dimension_and_truth(run: Run):
    found = [KSG(rank=None)(p.x, p.y, run).nats for p in (pairs(run, 2.0, d) for d in (1, 10, 64))]
    assert found[0] > 1.8 and 0.7 < found[1] < 1.1 and found[2] < 0.4
    assert found == sorted(found, reverse=True)


def test_ksg_has_a_ceiling(run: Run):
    """A pair of equal sides has no finite value; what comes out is the sample size."""
    x = torch.randn(500, 3, generator=run.rng("x"))
    made = KSG()(x, x, run)
    assert made.nats <= made.ceiling == ksg_ceiling(500, 5) == pytest.approx(math.log(500) - 1.506, abs=0.01)
    assert made.nats > 0.9 * made.ceiling


def test_ksg_of_discrete_values_is_the_plug_in(run: Run):
    a = torch.randint(3, (900,), generator=run.rng("a"))
    b = torch.where(torch.rand(900, generator=run.rng("b")) < 0.8, a, torch.randint(3, (900,), generator=run.rng("c")))
    told = ksg_nats(a[:, None].double(), b[:, None].double(), 5)
    assert told == pytest.approx(plug_in(counts(a, b, 3, 3)), abs=0.01)


@pytest.mark.parametrize("k", [1, 5])
def test_ksg_blocks_change_nothing(run: Run, monkeypatch: pytest.MonkeyPatch, k: int):
    p = pairs(run, 1.0, d=3, n=150)
    whole = ksg_nats(p.x, p.y, k)
    monkeypatch.setattr("miue.mi.ksg.ELEMENTS", 1000)
    assert ksg_nats(p.x, p.y, k) == pytest.approx(whole, abs=1e-12)


def test_invariances(run: Run):
    """Order of rows, swap of the sides, scale, shift and sign of features."""
    p = pairs(run, 1.0, d=3, n=300)
    whole = KSG()(p.x, p.y, run).nats
    order = torch.randperm(300, generator=run.rng("order"))
    scale = torch.tensor([1e-2, 1.0, 1e2], dtype=torch.float64)
    for x, y in ((p.x[order], p.y[order]), (p.y, p.x), (p.x * scale + 7, p.y), (p.x, -p.y)):
        assert KSG()(x, y, run).nats == pytest.approx(whole, abs=1e-9)


# --- Gaussians ---


def test_the_correction_is_needed(run: Run):
    """At d = 64 and n = 600 the plain plug-in says several nats of independent sides."""
    found = [pairs(run, 0.5, d=64, n=600, seed=seed) for seed in range(4)]
    corrected = sum(gaussian(p.x, p.y) for p in found) / 4
    assert corrected == pytest.approx(0.5, abs=0.15)
    assert gaussian(found[0].x, found[0].y, correct=False) > 3


def test_gaussian_refuses_and_says_unbounded(run: Run):
    x = torch.randn(50, 30, generator=run.rng("x"), dtype=torch.float64)
    with pytest.raises(UserError, match="too few for 30"):
        gaussian(x, x)
    assert gaussian(x[:, :1], x[:, :1]) > 15
    with pytest.raises(UserError, match="linearly dependent"):
        gaussian(torch.zeros(50, 2, dtype=torch.float64), x[:, :2])


def test_the_copula_does_not_see_monotone_maps(run: Run):
    p = pairs(run, 1.0, d=4)
    w = known.warped(p)
    assert gaussian_copula(w.x, w.y) == pytest.approx(gaussian_copula(p.x, p.y), abs=1e-12)
    assert gaussian_copula(w.x, w.y) == pytest.approx(1.0, abs=0.12) and gaussian(w.x, w.y) < 0.9


# --- slices ---


@pytest.mark.parametrize("per", ["histogram", "kde", "ksg", "gaussian"])
def test_one_dimension_is_one_slice(run: Run, per: str):
    p = pairs(run, 0.5, n=600)
    made = Sliced(slices=2, per=per)(p.x, p.y, run)  # type: ignore[arg-type]
    assert made.nats == pytest.approx(0.5, abs=0.12) and made.parts["slice error"] < 1e-9


def test_independent_pairs_give_nothing(run: Run):
    p = pairs(run, 0.0, d=8)
    for per in ("histogram", "gaussian"):
        assert abs(Sliced(slices=60, per=per)(p.x, p.y, run).nats) < 0.005
    # where the boundary point is counted by rounding, every slice loses 0.02
    assert abs(Sliced(slices=20, per="ksg")(p.x, p.y, run).nats) < 0.015


def test_slices_follow_the_closed_form_and_shrink(run: Run):
    for d, slices in ((2, 100), (10, 150)):
        p = pairs(run, d * 0.8, d=d, n=2000)
        made = Sliced(slices=slices, per="gaussian")(p.x, p.y, run)
        rho = math.sqrt(-math.expm1(-1.6))
        assert made.nats == pytest.approx(isotropic_sliced(rho, d), abs=5 * made.parts["slice error"] + 0.002)


def test_shared_directions_see_more_and_miss_a_quarter_turn(run: Run):
    p = pairs(run, 2.0, d=10)
    shared, independent = (Sliced(slices=50, directions=w)(p.x, p.y, run).nats for w in ("shared", "independent"))
    assert shared > 3 * independent
    x = torch.randn(1000, 2, generator=run.rng("x"), dtype=torch.float64)
    turned = torch.stack([-x[:, 1], x[:, 0]], 1)
    assert abs(Sliced(slices=40, directions="shared")(x, turned, run).nats) < 0.01
    assert Sliced(slices=40)(x, turned, run).nats > 0.2


def test_more_dimensions_to_a_slice_see_more(run: Run):
    p = pairs(run, 2.0, d=6, n=500)
    one, three = (Sliced(slices=8, per="gaussian", dims=dims)(p.x, p.y, run).nats for dims in (1, 3))
    assert one < three < 2.0
    with pytest.raises(UserError, match="dims=7"):
        Sliced(per="gaussian", dims=7)(p.x, p.y, run)
    with pytest.raises(UserError, match="one space"):
        Sliced(directions="shared")(p.x, p.y[:, :2], run)


def test_bins_alone_make_information(run: Run):
    p = pairs(run, 0.0)
    raw, corrected = (histogram_nats(p.x, p.y, 20, correct)[0] for correct in (False, True))
    assert raw > 0.15 and abs(corrected) < raw / 3
    assert "bins alone" in Sliced(slices=2, correct=False)(p.x, p.y, run).notes[0]


def test_raw_slices_are_the_histogram_of_numpy(run: Run):
    """Bins of one width from the least to the largest value, nothing subtracted, in nats."""
    p = pairs(run, 0.5, n=700)
    raw = estimator("sliced:raw,slices=2,bins=30")
    table, _, _ = np.histogram2d(p.x[:, 0].numpy(), p.y[:, 0].numpy(), bins=30)
    joint = table / table.sum()
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    plain = float((joint[joint > 0] * np.log(joint[joint > 0] / product[joint > 0])).sum())
    made = raw(p.x, p.y, run)
    assert made.nats == pytest.approx(plain, abs=1e-9) and made.ceiling == pytest.approx(math.log(30))
    assert plain > 0.6 and "bins alone" in made.notes[0]  # 0.5, and what 30 x 30 bins add
    counts = estimator("sliced:slices=2,bins=30,correct=false")(p.x, p.y, run).nats
    assert counts != pytest.approx(plain, abs=0.01)


def test_bins_of_equal_width_take_what_is_constant(run: Run):
    x = torch.randn(100, 1, generator=run.rng("x"), dtype=torch.float64)
    assert histogram_nats(x, torch.zeros_like(x), 10, False, "widths")[0] == pytest.approx(0, abs=1e-12)


def test_mine_by_slice_sees_what_is_there(run: Run):
    none, some = pairs(run, 0.0, n=1000), pairs(run, 1.0, n=1000)
    mine = Sliced(slices=2, per="mine")
    made = mine(some.x, some.y, run)
    assert 0.6 < made.nats < 1.25 and made.kind == "lower bound" and made.ceiling == math.inf
    assert abs(mine(none.x, none.y, run).nats) < 0.1
    assert made == mine(some.x, some.y, run)
    wide = pairs(run, 2.0, d=6, n=1000)
    one, three = (Sliced(slices=4, per="mine", dims=dims)(wide.x, wide.y, run).nats for dims in (1, 3))
    assert one < three < 2.2


def test_mine_by_slice_gives_each_slice_its_own(run: Run, monkeypatch: pytest.MonkeyPatch):
    """A slice has the same value whatever others train beside it, as far as its critic starts the same."""
    p = pairs(run, 1.0, n=400)
    x = torch.stack([p.x, torch.randn(400, 1, generator=run.rng("other"), dtype=torch.float64)], 1)
    y = torch.stack([p.y, p.y], 1)
    both = mine_nats(x, y, run)
    assert both[0] > 0.5 and abs(both[1]) < 0.15
    alone = mine_nats(x[:, :1], y[:, :1], run)
    assert alone[0] == pytest.approx(both[0], abs=0.3)
    monkeypatch.setattr("miue.mi._critics.ELEMENTS", 1)  # one slice at a time
    assert mine_nats(x, y, run)[0] == pytest.approx(alone[0], abs=1e-9)


def test_ties_are_no_dependence(run: Run):
    """Features of a rectifier are 0 half of the time: equal values must not be told apart by their rows."""
    x, y = (torch.randn(2000, generator=run.rng(name), dtype=torch.float64).clamp_min(0) for name in "xy")
    assert abs(histogram_nats(x[:, None], y[:, None], 12, True)[0]) < 0.01
    assert abs(ksg_nats(x[:, None], y[:, None], 5)) < 0.06


# --- with labels ---


@pytest.mark.parametrize(("level", "tolerance"), [(0, 0.1), (2, 0.15), (3, 0.25)])
def test_class_conditional_on_gaussian_classes(run: Run, level: int, tolerance: float):
    model = known.LEVELS[level]
    p = model.sample(1000, 16, run.rng("p", level))
    made = estimator("class-conditional:noise=0")(p.x, p.y, run, p.labels)
    assert made.nats == pytest.approx(p.nats, abs=tolerance)
    assert made.parts["within"] == pytest.approx(model.within, abs=tolerance)
    assert made.parts["label"] == pytest.approx(p.nats - model.within, abs=tolerance)


def test_a_noise_floor_makes_a_deterministic_pair_finite(run: Run):
    x = torch.randn(600, 6, generator=run.rng("x"))
    labels = torch.arange(600) % 3
    bare, coarse, fine = (estimator(f"class-conditional:noise={s}")(x, x, run, labels) for s in (0, 1, 0.1))
    assert bare.nats > 50 and "resolution" in bare.notes[0]
    # 6 channels of signal to noise 1 / s^2
    assert coarse.nats == pytest.approx(3 * math.log(2), abs=0.3)
    assert fine.nats == pytest.approx(3 * math.log(101), abs=0.5)


def test_agreement_is_a_floor_with_a_line(run: Run):
    p = known.LEVELS[3].sample(600, 12, run.rng("p"))
    made = estimator("agreement")(p.x, p.y, run, p.labels)
    assert made.nats == pytest.approx(math.log(10), abs=0.05) and made.nats <= made.ceiling
    assert made.parts["fano"] <= made.nats + 0.05 and made.parts["fano"] > 2
    blind = estimator("agreement")(torch.randn(600, 4, generator=run.rng("n")), p.y, run, p.labels)
    assert abs(blind.nats) < 0.08 and blind.parts["fano"] < 0.1


def test_decoders_agree_about_what_is_not_the_label(run: Run):
    """Two of them that know the same features and nothing about the labels: no information about the class."""
    x, labels = torch.randn(600, 4, generator=run.rng("x")), torch.arange(600) % 4
    made = estimator("agreement")(x, x, run, labels)
    assert made.nats > 0.5 and max(made.parts["label from x"], made.parts["label from y"]) < 0.05


# --- neural bounds ---


def test_infonce_cannot_exceed_log_k(run: Run):
    p = pairs(run, 5.0, n=200)
    made = InfoNCE(width=32, steps=150)(p.x, p.y, run)
    assert made.nats <= made.ceiling == pytest.approx(math.log(40)) and made.ceiling < 5
    scores = 1e3 * torch.eye(8, dtype=torch.float64)  # a critic that knows everything
    assert float(InfoNCE().bound(scores)) == pytest.approx(math.log(8))


def test_the_ceiling_is_that_of_the_pairs_that_are_compared_together(run: Run):
    """2,100 held-out pairs are two blocks of 1,050."""
    x = torch.randn(10_500, 2, generator=run.rng("x"))
    made = InfoNCE(width=8, steps=1)(x, x, run)
    assert made.ceiling == pytest.approx(math.log(1050))


def test_the_bounds_of_given_scores():
    """Two pairs: scores a for true ones, b for others."""
    a, b = 1.5, -0.5
    scores = torch.tensor([[a, b], [b, a]], dtype=torch.float64)
    assert float(InfoNCE().bound(scores)) == pytest.approx(a - math.log(math.exp(a) + math.exp(b)) + math.log(2))
    assert float(MINE().bound(scores)) == pytest.approx(a - b)
    assert float(SMILE(tau=0.2).bound(scores)) == pytest.approx(a + 0.2)
    assert float(SMILE().objective(scores)) == pytest.approx(-math.log1p(math.exp(-a)) - math.log1p(math.exp(b)))


@pytest.mark.parametrize("name", ["infonce", "mine"])
def test_neural_bounds_learn(run: Run, name: str):
    p = pairs(run, 1.0, d=2, n=600)
    made = estimator(f"{name}:width=32,steps=200,lr=0.003")(p.x, p.y, run)
    assert made.kind == "lower bound" and 0.4 < made.nats < 1.25


# --- samplers ---


def test_samplers_keep_their_promise(run: Run):
    """By the closed form on large samples; the mixture at one class is a Gaussian."""
    for d, over in ((3, None), (6, 2)):
        p = known.gaussian_pairs(20_000, d, 1.3, run.rng("big", d), spread_over=over)
        assert gaussian(p.x, p.y) == pytest.approx(1.3, abs=0.04)
    model = known.ClassMixture(separation_x=3.0, rho=0.6, classes=1)
    nats, error = model.nats(run.rng("mc"), 20_000)
    assert nats == pytest.approx(model.within, abs=4 * error) and error < 0.01
    with pytest.raises(UserError, match="below the 10"):
        known.LEVELS[0].sample(10, 3, run.rng("few"))


def test_levels_are_about_what_they_say(run: Run):
    for model, about in zip(known.LEVELS, (0.0, 0.5, 2.0, 5.0), strict=True):
        assert model.nats(run.rng("mc"), 10_000)[0] == pytest.approx(about, abs=0.07)
