"""OPS: the scores, and one pixel a picture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from miue.attacks import OPS
from miue.attacks.ops import corners, moments, scores
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.testing import tiny

ONE = Budget(1, "l0")


def plain(images: Tensor) -> Tensor:
    """mean |q - x| / std |q - x| as it is written, for every place and corner colour."""
    n, c, h, w = images.shape
    table = []
    for colour in corners(c).double():
        distance = (colour[None, :, None, None] - images.double()).abs().permute(2, 3, 0, 1).reshape(h * w, n * c)
        table.append(distance.mean(1) / (distance.std(1, correction=0) + 1e-6))
    return torch.stack(table, 1)


def test_the_vector_of_the_specification():
    toy = [[[0.1, 0.2, 0.3], [0.5, 0.5, 0.5], [0.9, 0.8, 0.7], [0.0, 0.1, 0.2]],
           [[0.2, 0.2, 0.2], [0.6, 0.4, 0.5], [0.9, 0.9, 0.9], [0.1, 0.1, 0.1]]]  # fmt: skip
    images = torch.tensor(toy, dtype=torch.float64).reshape(2, 2, 2, 3).permute(0, 3, 1, 2) * 255
    first, second = moments(images, torch.zeros(2, dtype=torch.long), 1)
    found = scores(first[0], second[0], 2)
    assert corners(3)[0].tolist() == [0, 0, 0] and corners(3)[7].tolist() == [255, 255, 255]
    wanted = {(0, 7): 13.856406, (2, 0): 11.129112, (3, 7): 15.588457}
    assert all(abs(float(found[at]) - value) < 1e-5 for at, value in wanted.items())
    assert int(found.argmax()) == 3 * 8 + 7


@given(seed=st.integers(0, 999), channels=st.sampled_from([1, 3]), count=st.integers(1, 6))
@settings(max_examples=20)
def test_scores_from_moments_are_the_plain_ones(seed: int, channels: int, count: int):
    data = tiny(count, 2, channels, 5, seed)
    first, second = moments(data.images, data.labels, 2)
    for label in range(2):
        expected = plain(data.images[data.labels == label])
        assert torch.allclose(scores(first[label], second[label], count), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "size", "classes"), [(3, 8, 2), (1, 13, 5), (3, 64, 10), (3, 8, 100), (1, 8, 100)]
)
def test_one_pixel_at_one_place_with_one_colour_a_class(run: Run, channels: int, size: int, classes: int):
    data = tiny(3, classes, channels, size, lone=True)
    protected = OPS()(data, ONE, run).apply(data).images
    changed = (protected != data.images).any(1)
    assert (changed.flatten(1).sum(1) <= 1).all()
    marks = set()
    for label in range(classes):
        rows = data.labels == label
        places = changed[rows].any(0).nonzero()
        assert len(places) == 1
        i, j = places[0].tolist()
        colours = protected[rows][:, :, i, j].unique(dim=0)
        assert len(colours) == 1 and set(colours[0].tolist()) <= {0, 255}
        marks.add((i, j, *colours[0].tolist()))
    assert len(marks) == classes
    if classes <= size * size:
        assert len({mark[:2] for mark in marks}) == classes


def test_the_best_place_wins_and_the_next_class_takes_another(run: Run):
    images = torch.randint(256, (8, 3, 4, 4), generator=run.rng("x"), dtype=torch.uint8)
    images[:, :, 2, 1] = 3  # the same in all: any bright colour there has no deviation
    data = ImageSet(images, torch.arange(8) % 2, ("a", "b"), "flat")
    delta = OPS()(data, ONE, run).delta
    assert delta.dtype == torch.int16 and (delta[0, :, 2, 1] == 255).all()
    assert (delta[1] != 0).any(0).sum() == 1 and not delta[1, :, 2, 1].any()


def test_more_pixels_and_classes_without_pictures(run: Run):
    data = tiny(4, 3)
    data = ImageSet(data.images, data.labels, (*data.classes, "empty"), "x")
    made = OPS()(data, Budget(5, "l0"), run)
    assert (made.delta != 0).any(1).flatten(1).sum(1).tolist() == [5, 5, 5, 0]
    assert ((made.delta != 0).any(1).sum(0) <= 1).all()


def test_a_nearest_colour_reads_the_class(run: Run):
    data = tiny(10, 6, size=16)
    made = OPS()(data, ONE, run)
    protected = made.apply(data).images.float()
    wanted, mask = made.delta.clamp(0, 255).float(), made.delta != 0
    error = torch.stack([((protected - w).abs() * m).sum((1, 2, 3)) for w, m in zip(wanted, mask, strict=True)], 1)
    assert (error.argmin(1) == data.labels).float().mean() > 0.95


def test_what_is_refused(run: Run):
    with pytest.raises(UserError, match="100 classes of 3 pixels need more places"):
        OPS()(tiny(1, 100, 1, 8), Budget(3, "l0"), run)
    with pytest.raises(UserError, match="need more places"):
        OPS()(tiny(2, 2, 1, 8), Budget(65, "l0"), run)
    with pytest.raises(UserError, match="OPS cannot keep a budget in linf"):
        OPS()(tiny(), Budget(8), run)
