"""What a surrogate sees: contrastive augmentation and the worst neighbour."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from miue import nets
from miue.core.run import Run
from miue.training import perturb
from miue.training.colour import YIQ, coloured
from miue.training.contrastive import contrastive
from miue.training.perturb import worst
from miue.training.views import augmented, crop, mirrored, six


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 12, channels: int = 3, size: int = 8) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=drawn(7))


@pytest.fixture
def net(run: Run):
    with run.seeded("net"):
        return run.place(nets.build("small-cnn:width=4", (3, 8, 8), 3)).eval()


def test_crop_and_flip():
    x = pictures()
    assert augmented("none", x, drawn()) is x
    mirrored = augmented("flip", x, drawn())
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(mirrored, x, strict=True))
    assert not torch.equal(augmented("flip-crop", x, drawn()), mirrored)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_a_contrastive_view_is_a_picture_drawn_from_its_generator(channels: int, strength: float):
    x = pictures(40, channels).requires_grad_()
    seen = contrastive(x, drawn(), strength)
    assert seen.shape == x.shape and seen.min() >= 0 and seen.max() <= 1
    assert torch.equal(seen, contrastive(x, drawn(), strength)) and not torch.equal(seen, contrastive(x, drawn(1), 1.0))
    (gradient,) = torch.autograd.grad(seen.sum(), x)
    assert gradient.isfinite().all() and gradient.flatten(1).abs().sum(1).min() > 0  # every delta is reached


def test_a_weak_contrastive_view_is_the_picture_or_its_mirror_image():
    x = pictures(40)
    seen = contrastive(x, drawn(), 1e-6)
    same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(seen, x, strict=True)]
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-4) for a, b in zip(seen, x, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True)) and 10 < sum(same) < 30


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_crops_have_the_area_that_was_asked_for(strength: float):
    """On a ramp from 0 to 1 the slope of a crop is its width, with the sign of the mirror."""
    size = 32
    ramp = ((torch.arange(size) + 0.5) / size).expand(200, 1, size, size).contiguous()
    from miue.training.contrastive import _resized

    across, down = (_resized(r, drawn(), strength)[:, 0, 8:24, 8:24] for r in (ramp, ramp.mT.contiguous()))
    width, height = across.diff(dim=2).mean((1, 2)) * size, down.diff(dim=1).mean((1, 2)) * size
    area = width.abs() * height
    assert area.min() > 0.95 * (1 - 0.9 * strength) and area.max() < 1.01
    assert area.min() < 1 - 0.7 * strength and 60 < (width < 0).sum() < 140
    assert (height > 0).all() and across.min() >= 0 and across.max() <= 1


def test_grey_and_colour():
    seen = contrastive(pictures(400), drawn(), 1.0)
    spread = (seen - seen.mean(1, keepdim=True)).abs().amax((1, 2, 3))
    assert 50 < (spread < 1e-4).sum() < 110  # 20 %
    assert YIQ[0].sum().item() == pytest.approx(1) and YIQ[1:].sum(1).abs().max() < 1e-4  # grey has no chroma


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_colours_are_shaken_by_the_published_amounts(strength: float):
    """On flat colours brightness is the ratio of lumas, hue the turn of the chroma, its size saturation x contrast."""
    flat = torch.tensor([0.5, 0.4, 0.35]).reshape(1, 3, 1, 1).expand(4000, 3, 2, 2)
    before, after = ((YIQ @ v[:, :, 0, 0].T) for v in (flat, coloured(flat, drawn(), strength)))
    light = after[0] / before[0]
    shaken = (light - 1).abs() > 1e-5
    assert shaken.float().mean().item() == pytest.approx(0.8 * strength, abs=0.03)
    chroma = [torch.complex(v[1].double(), v[2].double()) for v in (before, after / light)]
    size, turn = (chroma[1] / chroma[0]).abs(), (chroma[1] / chroma[0]).angle() / (2 * math.pi)
    grey = size < 1e-4
    assert grey.float().mean().item() == pytest.approx(0.2 * strength, abs=0.03)
    both = size[shaken & ~grey]
    low, high = (1 - 0.4 * strength) ** 2, (1 + 0.4 * strength) ** 2
    assert low - 1e-3 <= both.min() < low + 0.1 and high - 0.1 < both.max() <= high + 1e-3
    for value, most in ((light[shaken] - 1, 0.4), (turn[shaken & ~grey], 0.1)):
        most *= strength
        assert value.abs().max() <= most + 1e-3 and value.min() < -0.97 * most and value.max() > 0.97 * most
        assert value.std().item() == pytest.approx(2 * most / 12**0.5, rel=0.05)  # uniform


def test_contrast_is_shaken_around_the_mean_luma():
    grey = torch.linspace(0.3, 0.6, 16).reshape(1, 1, 4, 4).expand(4000, 1, 4, 4)
    seen = coloured(grey, drawn(), 1.0)
    factor = seen.flatten(1).std(1) / grey[0].std() / (seen.mean((1, 2, 3)) / grey[0].mean())
    shaken = (factor - 1).abs() > 1e-5
    assert shaken.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert factor.min() == pytest.approx(0.6, abs=0.01) and factor.max() == pytest.approx(1.4, abs=0.01)


# --- the worst neighbour ---


@pytest.mark.parametrize("radius", [1.0, 4.0])
def test_the_adversary_stays_in_its_ball_and_raises_the_loss(net, radius: float):
    x, y = pictures(), torch.arange(12) % 3
    hard = worst(net, x, y, radius, 10, drawn())
    assert ((hard - x).abs() <= radius / 255 + 1e-6).all() and hard.min() >= 0 and hard.max() <= 1
    noisy = worst(net, x, y, radius, 0, drawn())
    assert ((noisy - x).abs() <= radius / 255 + 1e-6).all() and (noisy != x).any()
    clean, noise, attacked = (F.cross_entropy(net(v), y).item() for v in (x, noisy, hard))
    assert attacked > clean and attacked - clean > 3 * abs(noise - clean)


def test_the_adversary_leaves_the_network_alone_and_lets_gradients_through(net):
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x, y = pictures().requires_grad_(), torch.arange(12) % 3
    hard = worst(net, x, y, 4.0, 3, drawn())
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    weight = torch.rand(x.shape, generator=drawn(3))
    (gradient,) = torch.autograd.grad((hard * weight).sum(), x)
    assert torch.equal(gradient, weight)


def test_ascent_ends_at_the_corner_of_a_linear_function():
    x = torch.tensor([0.5, 0.001, 0.999, 0.5]).reshape(1, 1, 2, 2)
    slope = torch.tensor([1.0, -1, 1, -1]).reshape(1, 1, 2, 2)
    top = perturb.ascend(lambda v: (v * slope).sum(), x, 0.1, 0.05, 8, drawn())
    assert torch.allclose(top.flatten(), torch.tensor([0.6, 0.0, 1.0, 0.4]))


def test_a_shift_keeps_the_size_and_shows_the_mirrored_border():
    x = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(40, 1, 1, 1)
    moved = crop(x, drawn(), 1 / 4, "reflect")
    wide = F.pad(x[:1], (1, 1, 1, 1), "reflect")[0, 0]
    places = [wide[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    hits = [[torch.equal(m[0], place) for place in places].index(True) for m in moved]
    assert set(hits) == set(range(9))
    assert torch.equal(crop(x, drawn(), 1 / 16, "reflect"), x)  # less than a pixel of a small picture


def test_some_are_mirrored():
    x, which = pictures(), torch.arange(12) % 3 == 0
    assert torch.equal(mirrored(x, which)[which], x[which].flip(-1))
    assert torch.equal(mirrored(x, which)[~which], x[~which])


def test_six_views_are_the_picture_its_neighbours_and_their_mirrors():
    x = pictures()
    views = list(six(x))
    assert len(views) == 6 and sum(share for share, _ in views) == 1
    assert torch.equal(views[0][1], x) and torch.equal(views[1][1], x.flip(-1)) and views[0][0] == 1 / 4
    assert torch.equal(views[2][1][..., 1:, 1:], x[..., :-1, :-1])  # down and right by one pixel
    assert torch.equal(views[4][1][..., :-1, :-1], x[..., 1:, 1:])
