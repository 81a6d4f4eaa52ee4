"""The linear inverse: what it undoes, whom it pairs, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet, eight_bits
from miue.defenses import Inverse, defense
from miue.evaluation.checks import check_victims
from miue.testing import check_defense, tiny
from miue.victims.recipe import Recipe

CLASSES = 3


def drawn(n: int, seed: int = 0, size: int = 16, channels: int = 3) -> ImageSet:
    """Pictures with coarse and fine detail, in three classes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.rand(n, channels, 4, 4, generator=generator), size, mode="bilinear")
    x = 0.2 + 0.4 * coarse + 0.2 * torch.rand(n, channels, size, size, generator=generator)
    return ImageSet(eight_bits(x), torch.arange(n) % CLASSES, tuple(f"class {i}" for i in range(CLASSES)), "drawn")


def written(data: ImageSet, path: Path) -> str:
    names = {"images": data.images.permute(0, 2, 3, 1).numpy(), "labels": data.labels.numpy()}
    np.savez(path, **names, classes=np.array(data.classes))
    return str(path)


def floats(data: ImageSet) -> torch.Tensor:
    return data.images.float() / 255


def mixed(x: torch.Tensor) -> torch.Tensor:
    """Channels mixed, and a shift: exactly undone by another mixture."""
    mix = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.0, 0.3, 0.6]])
    return torch.einsum("ij,njhw->nihw", mix, x) + 0.05


def filtered(x: torch.Tensor) -> torch.Tensor:
    """A gentle 3 x 3 filter, whose inverse is not finite but falls off quickly."""
    kernel = torch.tensor([[0.0, 0.1, 0.0], [0.05, 0.7, 0.05], [0.0, 0.1, 0.0]]).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(x, [1] * 4, mode="reflect"), kernel, groups=3)


@pytest.mark.parametrize(("change", "left"), [(mixed, 1e-3), (filtered, 0.1)])
def test_a_linear_change_is_undone_on_pictures_whose_clean_version_nobody_has(
    run: Run, tmp_path: Path, change: object, left: float
):
    data = drawn(120)
    leaked = data.select(torch.arange(40))
    plan = Inverse(clean=written(leaked, tmp_path / "clean.npz"), ridge=1e-8)
    made = plan(change(floats(data)), data.labels, run)  # type: ignore[operator]
    before, after = ((x - floats(data))[40:].abs().mean() for x in (change(floats(data)), made))  # type: ignore[operator]
    assert before > 0.015 and after < left * before


def test_nothing_is_done_where_protected_pictures_are_clean_ones(run: Run, tmp_path: Path):
    data = drawn(30)
    plan = Inverse(clean=written(data, tmp_path / "clean.npz"))
    assert torch.allclose(plan(floats(data), data.labels, run), floats(data), atol=1e-6)


def test_pairs_are_found_whatever_the_order_and_nobody_is_paired_with_a_stranger(run: Run, tmp_path: Path):
    data = drawn(60)
    noisy = (floats(data) + 8 / 255 * (torch.rand(60, 3, 16, 16, generator=run.rng("noise")) * 2 - 1)).clamp(0, 1)
    order = torch.randperm(60, generator=run.rng("order"))
    clean = data.select(order)
    strangers = drawn(60, seed=7)
    both = replace(
        clean, images=torch.cat([clean.images, strangers.images]), labels=torch.cat([clean.labels, strangers.labels])
    )
    plan = Inverse(clean=written(both, tmp_path / "clean.npz"))
    rows, partners = plan.paired(noisy, data.labels, both, run)
    assert len(rows) == 60 and torch.equal(order[partners], rows)
    few = replace(plan, pairs=20)
    rows, partners = few.paired(noisy, data.labels, both, run)
    assert len(rows) == 20 and torch.equal(order[partners], rows)
    other = few.paired(noisy, data.labels, both, run.reseeded(9))
    assert not torch.equal(other[0], rows)


def test_a_larger_penalty_changes_less(run: Run, tmp_path: Path):
    data = drawn(60)
    clean = written(data, tmp_path / "clean.npz")
    x = filtered(floats(data))
    moves = [(Inverse(clean=clean, ridge=r)(x, data.labels, run) - x).square().mean() for r in (1e-6, 1.0, 1e3)]
    assert moves[0] > moves[1] > moves[2] > 0


def test_the_fit_is_that_of_least_squares(run: Run, tmp_path: Path):
    """Against numpy's solver on the rows themselves, for one channel and a 3 x 3 patch."""
    data = drawn(70, channels=1, size=8)
    plan = Inverse(clean=written(data, tmp_path / "clean.npz"), patch=3, ridge=1e-12)
    x = (floats(data) + 0.05 * torch.randn(70, 1, 8, 8, generator=run.rng("noise"))).double()
    weight, bias = plan.fitted(x, floats(data).double())
    rows = F.unfold(F.pad(x, [1] * 4, mode="reflect"), 3).transpose(1, 2).reshape(-1, 9)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], 1).numpy()
    expected = np.linalg.lstsq(rows, (floats(data).double() - x).flatten().numpy(), rcond=None)[0]
    assert np.allclose([*weight.flatten().tolist(), float(bias)], expected, atol=1e-7)


def test_the_contract(tmp_path: Path):
    """The contract's sets have one to three channels and two or three classes."""
    for i, data in enumerate((tiny(size=16), tiny(channels=1, size=16), tiny(size=13), tiny(2, 5, size=16))):
        plan = Inverse(clean=written(data, tmp_path / f"{i}.npz"), patch=3)
        x = floats(data)
        made = plan(x, data.labels, Run(seed=1, device_name="cpu"))
        assert made.shape == x.shape and torch.allclose(made, x, atol=1e-6)
    check_defense(Inverse(clean=written(tiny(channels=1, size=16), tmp_path / "grey.npz")))


def test_other_pictures_at_the_same_place_are_another_defense(tmp_path: Path):
    clean = written(drawn(12), tmp_path / "clean.npz")
    first = defense(f"inverse:clean={clean}")
    written(drawn(12, seed=1), tmp_path / "clean.npz")
    assert repr(defense(f"inverse:clean={clean}")) != repr(first)


def test_refusals(tmp_path: Path, run: Run):
    data = drawn(12)
    clean = written(data, tmp_path / "clean.npz")
    for fields, text in (
        ("patch=4", "patch=4 has no middle"),
        ("pairs=0", "pairs=0 is too small"),
        ("ridge=0", "ridge=0 is not positive"),
    ):
        with pytest.raises(UserError, match=text):
            defense(f"inverse:clean={clean},{fields}")
    with pytest.raises(UserError, match="inverse needs clean"):
        defense("inverse")
    with pytest.raises(UserError, match="none of its pictures has a protected version"):
        Inverse(clean=clean)(floats(data), data.labels + CLASSES, run)
    with pytest.raises(UserError, match="patch=17 is larger than the pictures, which have 16"):
        Inverse(clean=clean, patch=17)(floats(data), data.labels, run)
    plan = Recipe(net="small-cnn:width=4").defended(Inverse(clean=clean))
    with pytest.raises(UserError, match="its classes"):
        check_victims([plan], tiny(classes=4, size=16), tiny(classes=4, size=16, seed=4), run)
