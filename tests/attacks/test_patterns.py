"""Class-wise patterns: flat blocks, far apart."""

from __future__ import annotations

import pytest
import torch

from miue.attacks import Patterns, attack
from miue.attacks.patterns import far_apart
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget
from miue.testing import tiny


@pytest.mark.parametrize(("regions", "channels", "size"), [(1, 3, 8), (16, 1, 13), (16, 3, 64), (4, 3, 8), (64, 1, 8)])
def test_every_class_has_flat_blocks_of_its_own(run: Run, regions: int, channels: int, size: int):
    data = tiny(2, 6, channels, size, lone=True)
    made = Patterns(regions=regions)(data, Budget(8), run)
    step = -(-size // round(regions**0.5))
    starts = made.delta[..., ::step, ::step]
    assert torch.equal(starts.repeat_interleave(step, 2).repeat_interleave(step, 3)[..., :size, :size], made.delta)
    assert len(made.delta) == 6 == len(made.delta.flatten(1).unique(dim=0)) and made.labels is not None
    assert made.delta.abs().max() == 8


def test_presets():
    assert [attack(f"patterns:{name}") for name in ("colour", "region-4", "region-16")] == [
        Patterns(regions=count) for count in (1, 4, 16)
    ]


@pytest.mark.parametrize("size", [8, 32, 64])
def test_regions_are_counted_in_a_picture_of_any_size(run: Run, size: int):
    """What the field calls region-16 are 4 x 4 blocks."""
    delta = Patterns()(tiny(1, 2, 3, size), Budget(8), run).delta
    borders = (delta[..., 1:, :] != delta[..., :-1, :]).any(0).any(0).any(1).nonzero().flatten() + 1
    assert borders.tolist() == [size // 4, size // 2, 3 * size // 4]


@pytest.mark.parametrize(
    ("classes", "features", "least"), [(2, 1, 16), (2, 3, 20), (8, 3, 16), (10, 3, 10), (20, 3, 6), (9, 48, 60)]
)
def test_points_are_far_apart(run: Run, classes: int, features: int, least: float):
    points = far_apart(classes, features, 8, run.rng("x"))
    assert points.abs().max() == 8 and torch.equal(points, points.round())
    assert torch.pdist(points).min() >= least


def test_grey_tones_run_out(run: Run):
    assert sorted(far_apart(5, 1, 2, run.rng("x")).flatten().tolist()) == [-2, -1, 0, 1, 2]
    with pytest.raises(UserError, match="only 17 colours within 8 grey levels for 100 classes"):
        Patterns(regions=1)(tiny(1, 100, 1), Budget(8), run)


def test_what_is_refused(run: Run):
    for wrong in (-1, 0, 8):
        with pytest.raises(UserError, match=f"regions={wrong} is no square number"):
            Patterns(regions=wrong)
    with pytest.raises(UserError, match="patterns cannot keep a budget in l2"):
        Patterns()(tiny(), Budget(1.0, "l2"), run)
