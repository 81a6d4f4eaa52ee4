"""What each augmenting defense does to a batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from miue.defenses import Coin, CutMix, Cutout, GaussianNoise, MixUp, Plasma, RandAugment, Strong, defense


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(b: int = 12, size: int = 16, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(b, 3, size, size, generator=generator(7)) * 0.9 + 0.05  # nothing is black or white
    return x, F.one_hot(torch.arange(b) % classes, classes).float()


@settings(max_examples=20)
@given(share=st.sampled_from([0.1, 0.25, 0.5, 1.0]), size=st.sampled_from([7, 16, 32]), seed=st.integers(0, 50))
def test_cutouts_area(share: float, size: int, seed: int):
    """One rectangle of zeros in every channel, of the whole square's area unless the border cuts it."""
    x = torch.full((16, 3, size, size), 0.5)
    made, y = Cutout(share=share)(x, torch.eye(16), generator(seed))
    side = max(int(size * share), 1)
    assert torch.equal(y, torch.eye(16))
    for picture in made:
        hole = picture == 0
        assert torch.equal(hole[0], hole[1]) and torch.equal(hole[0], hole[2])
        rows, columns = hole[0].any(1).nonzero().flatten(), hole[0].any(0).nonzero().flatten()
        box = hole[0][int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1]
        assert box.all() and int(hole[0].sum()) == box.numel()
        for place in (rows, columns):
            cut = int(place.min()) == 0 or int(place.max()) == size - 1
            assert len(place) == side or (cut and side // 2 <= len(place) < side)
        assert (picture[~hole] == 0.5).all()


def test_cutout_places_every_hole_by_itself():
    x, y = batch(64)
    holes = (Cutout()(x, y, generator())[0] == 0)[:, 0].flatten(1)
    assert len({tuple(h.nonzero().flatten().tolist()) for h in holes}) > 30
    whole = holes.sum(1) == 64
    assert 0.15 < whole.float().mean() < 0.6  # a square of 8 in 16 lies inside for (9 / 16)^2 of its centres
    assert holes.float().mean(0).min() > 0.02  # and every pixel is met


@given(seed=st.integers(0, 200))
def test_cutmix_keeps_label_mass_and_mixes_by_area(seed: int):
    """Pictures of one value each: how much of a picture has its neighbour's value is what its label says."""
    classes = 6
    y = torch.eye(classes)
    x = torch.arange(classes).view(-1, 1, 1, 1).expand(-1, 3, 16, 16) / 10
    made, soft = CutMix(p=1.0)(x, y, generator(seed))
    for i, picture in enumerate(made):
        shares = torch.stack([(picture == k / 10).float().mean() for k in torch.arange(classes)])
        assert torch.allclose(shares, soft[i], atol=1e-6)
        assert set(soft[i].nonzero().flatten().tolist()) <= {i, (i - 1) % classes}
    assert torch.allclose(soft.sum(0), y.sum(0)) and torch.allclose(soft.sum(1), torch.ones(classes))


@given(seed=st.integers(0, 200))
def test_mixup_mixes_pictures_as_it_mixes_labels(seed: int):
    y = torch.eye(6)
    x = torch.rand(6, 3, 8, 8, generator=generator(3))
    made, soft = MixUp()(x, y, generator(seed))
    assert torch.allclose(made, torch.einsum("ij,jchw->ichw", soft, x), atol=1e-5)
    assert torch.allclose(soft.sum(0), y.sum(0))


@pytest.mark.parametrize(("make", "p"), [(CutMix, 0.3), (MixUp, 0.8)])
def test_a_batch_is_mixed_with_its_probability(make: Callable, p: float):
    x, y = batch()
    g = generator()
    changed = sum(not torch.equal(make(p=p)(x, y, g)[1], y) for _ in range(200)) / 200
    assert changed == pytest.approx(p, abs=0.08)


def test_noise_has_its_sigma():
    x, y = torch.full((20, 3, 16, 16), 0.5), torch.eye(20)
    made, _ = GaussianNoise(sigma=8.0)(x, y, generator())
    change = (made - x) * 255
    assert float(change.std()) == pytest.approx(8, rel=0.03) and abs(float(change.mean())) < 0.2


@given(reach=st.sampled_from([0.5, 1.0, 2.0]), seed=st.integers(0, 30))
def test_coin_displaces_by_its_reach_at_most(reach: float, seed: int):
    """Pictures that hold their own row and column say where every pixel was taken from."""
    size = 16
    place = torch.arange(size) / 32.0
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    x = torch.stack([rows, columns, rows]).expand(5, 3, size, size)
    made, _ = Coin(reach=reach)(x, torch.eye(5), generator(seed))
    moved = ((made - x) * 32)[:, :2, 3:-3, 3:-3]  # away from the border, beyond which the picture begins anew
    assert moved.abs().max() <= reach + 1e-4
    assert moved.abs().max() > 0.9 * reach and abs(float(moved.mean())) < 0.2 * reach
    neighbours = moved[..., 1:] - moved[..., :-1]
    assert neighbours.std() > 0.5 * reach  # drawn for every pixel by itself


def test_coin_goes_on_beyond_the_border():
    """At the left border a pixel may come from the right one, from nowhere else."""
    x = torch.zeros(8, 1, 12, 12)
    x[..., -2:] = 1
    made, _ = Coin()(x, torch.eye(8), generator())
    reached = (made > 0).any(0)[0].any(0)
    assert reached[0] and reached[1] and not reached[2:8].any()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 500), name=st.sampled_from(["randaugment", "trivial"]))
def test_what_lies_outside_does_not_wrap_around(seed: int, name: str):
    """As `op` leaves it: where grey levels are counted, a little below black would be nearly white."""
    x, y = batch()
    wide = (x - 0.5) * 1.4 + 0.5
    found, clipped = (defense(name)(part, y, generator(seed))[0] for part in (wide, wide.clamp(0, 1)))
    assert torch.equal(found, clipped) and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("name", ["randaugment", "trivial", "strong", "plasma"])
def test_draws_differ_between_pictures(name: str):
    """Equal pictures come out different: the draw is not one for the whole batch."""
    picture = torch.rand(1, 3, 16, 16, generator=generator(1))
    x, y = picture.expand(32, 3, 16, 16).contiguous(), torch.eye(32)
    made, labels = defense(name)(x, y, generator())
    assert len({row.numpy().tobytes() for row in made}) >= 8 and torch.equal(labels, y)


def test_groups_are_draws_of_a_batch():
    picture = torch.rand(1, 3, 16, 16, generator=generator(1))
    x, y = picture.expand(32, 3, 16, 16).contiguous(), torch.eye(32)
    for make in (RandAugment, Strong):
        assert len({row.numpy().tobytes() for row in make(groups=1)(x, y, generator())[0]}) == 1


def test_plasma_is_smooth_in_brightness_and_shuffles_channels():
    x, y = torch.full((64, 3, 32, 32), 0.5), torch.eye(64)
    made, _ = Plasma(p=1.0, shuffle=0.0)(x, y, generator())
    assert made.std() > 0.1 and (made[..., 1:] - made[..., :-1]).std() < made.std()
    untouched, _ = Plasma(p=0.0, shuffle=0.0)(x, y, generator())
    assert torch.equal(untouched, x)
    colours = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(64, 3, 8, 8)
    shuffled, _ = Plasma(p=0.0, shuffle=1.0)(colours, y, generator())
    assert torch.equal(shuffled.sort(1).values, colours) and not torch.equal(shuffled, colours)


def recorder(calls: list, name: str):
    """Stands for a class of a library: notes with what it was made, and changes nothing."""

    class Recorded(torch.nn.Module):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__()
            calls.append((name, args, kwargs))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    return Recorded


def test_plasma_changes_brightness_then_contrast_then_channels(monkeypatch: pytest.MonkeyPatch):
    from kornia import augmentation

    calls = []
    for name in ("RandomPlasmaBrightness", "RandomPlasmaContrast", "RandomChannelShuffle"):
        monkeypatch.setattr(augmentation, name, recorder(calls, name))
    x = torch.rand(4, 3, 8, 8, generator=generator(1))
    assert torch.equal(Plasma(p=0.3, shuffle=0.2)(x, torch.eye(4), generator())[0], x)
    assert calls == [
        ("RandomPlasmaBrightness", ((0.3, 0.7),), {"intensity": (0.5, 1.0), "p": 0.3}),
        ("RandomPlasmaContrast", ((0.3, 0.7),), {"p": 0.3}),
        ("RandomChannelShuffle", (), {"p": 0.2}),
    ]


def test_plasma_changes_contrast(monkeypatch: pytest.MonkeyPatch):
    """What is grey stays grey; dark and bright move, and not by the same everywhere."""
    from kornia import augmentation

    monkeypatch.setattr(augmentation, "RandomPlasmaBrightness", recorder([], ""))
    x = torch.full((16, 3, 32, 32), 0.5)
    x[..., :10], x[..., 22:] = 0.2, 0.8
    made, _ = Plasma(p=1.0, shuffle=0.0)(x, torch.eye(16), generator())
    assert torch.allclose(made[..., 10:22], x[..., 10:22], atol=1e-5)
    assert (made - x)[..., :10].abs().mean() > 0.05 and (made - x)[..., :10].std() > 0.01


def test_the_strong_augmentation_has_the_amounts_of_its_source(monkeypatch: pytest.MonkeyPatch):
    from torchvision.transforms import v2

    calls = []
    for name in ("RandomAffine", "ColorJitter"):
        monkeypatch.setattr(v2, name, recorder(calls, name))
    Strong(groups=1)(torch.rand(4, 3, 8, 8, generator=generator(1)), torch.eye(4), generator())
    (_, angles, given), (_, amounts, _) = calls
    assert angles == ((-10, 10),) and amounts == (0.2, 0.2, 0.2)
    assert given["scale"] == (0.8, 1.2) and given["shear"] == 10
