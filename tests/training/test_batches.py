"""Orders, batches, crop and flip."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from miue.core.run import Run
from miue.testing import tiny
from miue.training.batches import Batches, order
from miue.training.views import crop, flip
from miue.victims.recipe import FlipCrop
from processes import Rank


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- orders ---


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    group=st.sampled_from([1, 2, 3, 8]),
    seed=st.integers(0, 9),
)
def test_an_order_is_a_permutation(labels: list[int], group: int, seed: int):
    made = order(torch.tensor(labels), seeded(seed), group)
    assert sorted(made.tolist()) == list(range(len(labels)))
    assert torch.equal(made, order(torch.tensor(labels), seeded(seed), group))


@pytest.mark.parametrize("group", [2, 4])
def test_rows_of_a_class_come_in_groups(group: int):
    labels = torch.arange(6).repeat(8)
    made = labels[order(labels, seeded(), group)].reshape(-1, group)
    assert (made == made[:, :1]).all()
    assert made[:, 0].tolist() != sorted(made[:, 0].tolist())  # groups are shuffled
    first = order(labels, seeded(), group)
    assert not torch.equal(first, order(labels, seeded(1), group))


def test_an_incomplete_group_is_kept():
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 2])
    assert sorted(order(labels, seeded(), 2).tolist()) == list(range(9))


# --- batches ---


@given(per_class=st.integers(2, 7), size=st.integers(2, 12), world=st.integers(1, 2))
def test_every_row_once_and_as_many_batches_in_every_process(per_class: int, size: int, world: int):
    data = tiny(per_class=per_class, size=4)
    rows, counts = [], []
    for rank in range(world):
        run = Rank(rank, world)
        mine = list(Batches(data, run, run.mine(len(data))).shuffled(size, "test", 0))
        counts.append(len(mine))
        sizes = [len(index) for index, _, _ in mine]
        assert min(sizes) >= max(max(sizes) - 1, 1)  # an empty batch has no loss
        rows += [row for index, _, _ in mine for row in index.tolist()]
    assert sorted(rows) == list(range(len(data)))
    assert len(set(counts)) == 1 and counts[0] <= -(-len(data) // size) < counts[0] + world


def test_a_batch_is_pictures_and_labels_of_its_rows(run: Run):
    data = tiny(per_class=5)
    for index, x, y in (*Batches(data, run).shuffled(4, "a"), *Batches(data, run).in_order(4)):
        assert x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
        assert torch.equal((x * 255).round().to(torch.uint8), data.images[index])
        assert torch.equal(y, data.labels[index])
    assert torch.cat([i for i, _, _ in Batches(data, run).in_order(4)]).tolist() == list(range(15))
    some = Batches(data, run, torch.tensor([3, 1]))
    assert [i.tolist() for i, _, _ in some.in_order(4)] == [[3, 1]]


def test_black_and_white_become_0_and_1(run: Run):
    data = tiny(size=4)
    data.images[0, :, 0, 0] = torch.tensor([0, 255, 51], dtype=torch.uint8)
    assert Batches(data, run).take(torch.tensor([0]))[0, :, 0, 0].tolist() == [0, 1, torch.tensor(51 / 255).item()]


def test_names_decide_the_order(run: Run):
    batches = Batches(tiny(per_class=10), run)
    orders = [torch.cat([i for i, _, _ in batches.shuffled(8, *names)]).tolist() for names in ((1,), (1,), (2,))]
    assert orders[0] == orders[1] != orders[2]


# --- crop and flip ---


def windows(x: torch.Tensor, share: float) -> dict[tuple[int, int], torch.Tensor]:
    """Every cut-out of one zero-padded picture (c h w), by its place."""
    _, h, w = x.shape
    py, px = int(h * share), int(w * share)
    padded = F.pad(x, (px, px, py, py))
    return {(dy, dx): padded[:, dy : dy + h, dx : dx + w] for dy in range(2 * py + 1) for dx in range(2 * px + 1)}


@given(
    seed=st.integers(0, 99),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    share=st.sampled_from([0.0, 0.125, 0.3]),
)
def test_a_crop_is_one_window_of_the_padded_picture_for_each_sample(seed: int, height: int, width: int, share: float):
    x = torch.rand(4, 2, height, width, generator=seeded(seed)) + 0.1
    x.requires_grad_()
    weight = torch.rand(4, 2, height, width, generator=seeded(seed + 1))
    cut = crop(x, seeded(seed), share)
    assert cut.shape == x.shape
    (gradient,) = torch.autograd.grad((cut * weight).sum(), x)
    for i in range(4):
        leaf = x[i].detach().requires_grad_()
        place, window = next((p, v) for p, v in windows(leaf, share).items() if torch.equal(v, cut[i]))
        (expected,) = torch.autograd.grad((window * weight[i]).sum(), leaf)
        assert torch.equal(gradient[i], expected), place


def test_crops_use_every_place_and_one_for_each_sample():
    x = torch.rand(1, 3, 8, 8, generator=seeded()).expand(200, 3, 8, 8)
    cut, places = crop(x, seeded()), windows(x[0], 1 / 8)
    found = [next(p for p, v in places.items() if torch.equal(v, c)) for c in cut]
    assert set(found) == set(places) and len(places) == 9


def test_flips_are_halves_and_for_each_sample():
    x = torch.rand(400, 3, 4, 5, generator=seeded()).requires_grad_()
    mirrored = flip(x, seeded())
    kinds = [torch.equal(m, v.flip(-1)) for m, v in zip(mirrored, x, strict=True)]
    assert all(k or torch.equal(m, v) for k, m, v in zip(kinds, mirrored, x, strict=True))
    assert 140 < sum(kinds) < 260
    weight = torch.rand(x.shape, generator=seeded(1))
    (gradient,) = torch.autograd.grad((mirrored * weight).sum(), x)
    expected = torch.stack([w.flip(-1) if k else w for k, w in zip(kinds, weight, strict=True)])
    assert torch.equal(gradient, expected)


def test_gradients_agree_with_finite_differences():
    x = torch.rand(3, 2, 6, 5, generator=seeded(), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: flip(crop(v, seeded(2), 0.4), seeded(3)), x)


def test_the_usual_augmentation_keeps_labels_and_follows_its_generator():
    x, y = torch.rand(6, 3, 8, 8, generator=seeded()), F.one_hot(torch.arange(6)).float()
    first, labels = FlipCrop()(x, y, seeded(1))
    assert labels is y and torch.equal(first, FlipCrop()(x, y, seeded(1))[0])
    assert not torch.equal(first, FlipCrop()(x, y, seeded(2))[0])
    still, _ = FlipCrop(share=0.0, flip=False)(x, y, seeded(1))
    assert torch.equal(still, x)
