"""LSP: rows of a class come from one cluster, in flat squares, and a plane separates them."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor

from miue.attacks import LSP
from miue.attacks.lsp import clusters
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget
from miue.testing import tiny

OWN = LSP.facts.natural


def test_the_natural_budget_is_that_of_the_reference():
    assert OWN.eps == pytest.approx(1.3041, abs=1e-4) and OWN.norm == "l2"
    assert LSP.facts.budget((3, 32, 32)) == OWN
    assert LSP.facts.budget((3, 96, 96)).eps == pytest.approx(3 * OWN.eps)
    assert LSP.facts.budget((1, 32, 32)).eps == pytest.approx(OWN.eps / 3**0.5)


@pytest.mark.parametrize(("channels", "size", "side"), [(3, 32, 8), (1, 32, 8), (3, 64, 8), (3, 13, 3), (1, 8, 2)])
def test_every_picture_has_flat_squares_of_the_full_length(run: Run, channels: int, size: int, side: int):
    data = tiny(3, 4, channels, size, lone=True)
    budget = LSP.facts.budget(data.shape)
    delta = LSP()(data, budget, run).delta
    starts = delta[..., ::side, ::side]
    again = starts.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :size, :size]
    assert torch.equal(delta, again) and len(starts.unique()) > 8
    length = budget.measure(delta)
    assert (length <= budget.eps * (1 + 1e-6)).all() and (length > 0.97 * budget.eps).all()
    assert len(delta.flatten(1).unique(dim=0)) == len(data)  # one draw a picture, not one a class


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.normalize(a.double().flatten(1)) @ torch.nn.functional.normalize(b.double().flatten(1)).T


@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 32, 10), (1, 8, 4), (3, 8, 100)])
def test_rows_of_a_class_come_from_one_cluster(run: Run, channels: int, size: int, classes: int):
    data = tiny(6, classes, channels, size)
    delta = LSP()(data, LSP.facts.budget(data.shape), run).delta.double()
    centres = torch.stack([delta[data.labels == k].mean(0) for k in range(classes)])
    assert (cosines(delta, centres).argmax(1) == data.labels).float().mean() > 0.98


def test_clusters_have_centres_at_corners_of_their_own(run: Run):
    labels = torch.arange(3).repeat(4000)
    points = clusters(labels, 3, 6, 10.0, run).double()
    centres = torch.stack([points[labels == k].mean(0) for k in range(3)])
    assert (centres.abs() - 10).abs().max() < 0.2 and len(centres.sign().unique(dim=0)) == 3
    spreads = torch.stack([points[labels == k].T.cov() for k in range(3)])
    assert (spreads[0] - spreads[1]).abs().max() > 0.5  # a mixing matrix a class
    assert 1 < spreads.diagonal(dim1=1, dim2=2).mean() < 4  # 6 features of variance 1/3: 2


def test_a_linear_probe_that_saw_half_of_it_knows_the_other_half(run: Run):
    data = tiny(20, 10, size=32)
    delta = LSP()(data, OWN, run).delta.flatten(1).numpy()
    probe = RidgeClassifier().fit(delta[:100], data.labels[:100])
    assert probe.score(delta[100:], data.labels[100:]) == 1.0


def test_seeds_differ(run: Run):
    assert not torch.equal(LSP()(tiny(), OWN, run).delta, LSP()(tiny(), OWN, Run(seed=2)).delta)


def test_what_is_refused(run: Run):
    with pytest.raises(UserError, match=r"LSP cannot keep a budget in linf, only in l2; leave the budget out"):
        LSP()(tiny(), Budget(8), run)
    with pytest.raises(UserError, match="too few corners for 5 classes"):
        LSP()(tiny(1, 5, 1, 1), OWN, run)
    for wrong in ({"patch": 0}, {"separation": 0.0}, {"separation": float("nan")}):
        with pytest.raises(UserError, match="at least 1 and positive"):
            LSP(**wrong)
