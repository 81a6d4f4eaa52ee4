"""How far protected pictures are from clean ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from miue.data import measure
from miue.data.quality import Change, Size, size, ssim
from miue.testing import tiny


def test_a_change_by_hand():
    delta = np.zeros((3, 2, 4), np.int16)
    delta[:, 0, 0], delta[1, 1, 3] = (3, -4, 0), -12
    found = Change.of(delta)
    assert (found.linf, found.changed) == (12, 0.25) and found.l2 == pytest.approx(13 / 255)
    assert found.psnr == pytest.approx(10 * np.log10(255**2 / (169 / 24)))
    assert Change.of(np.zeros((1, 2, 2), np.int16)) == Change(0, 0.0, 0.0, None)
    assert Change.of(np.full((1, 2, 2), -255, np.int16)).psnr == 0


def test_a_set():
    clean = tiny()
    images = clean.images.clone()
    images[0, 0, 0, 0] ^= 255
    found = measure(clean, clean.with_images(images))
    assert found is not None and found.pictures == 12
    by = abs(2 * int(clean.images[0, 0, 0, 0]) - 255)
    assert found.linf == by > 8 and found.outside == 1 and found.l2 == pytest.approx(by / 255 / 12)
    assert found.changed == pytest.approx(1 / 64 / 12)
    assert found.leaves.startswith(f"1 of 12 pictures leave the 8/255 ball: largest change {by} grey levels, L2 ")
    same = measure(clean, clean)
    assert same is not None and (same.outside, same.l2, same.psnr) == (0, 0, None) and "PSNR" not in str(same)
    assert same.leaves == "" and size([]) is None and Size.over([]) is None
    both = Size.over([found, same])
    assert both is not None and (both.pictures, both.outside, both.linf, both.psnr) == (24, 1, by, found.psnr)
    assert both.l2 == found.l2 / 2 and both.changed == found.changed / 2
    with pytest.raises(ValueError, match="does not belong"):
        measure(clean, clean.select(torch.arange(3)))


@pytest.mark.parametrize("shape", [(3, 3, 1), (8, 9, 3), (32, 32, 3), (64, 5, 3), (200, 300, 1)])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, int, int]):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, shape, np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-40, 41, shape), 0, 255).astype(np.uint8)
    window = min(7, (min(shape[:2]) - 1) // 2 * 2 + 1)
    expected = structural_similarity(a, b, win_size=window, channel_axis=2, data_range=255)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-12) and ssim(a, a) == pytest.approx(1)
    assert ssim(a[:2], b[:2]) is None


@pytest.mark.parametrize("shape", [(1100, 1300, 3), (3000, 400, 1), (700, 5000, 1)])
def test_ssim_of_a_large_picture_is_close_to_that_of_all_of_it(shape: tuple[int, int, int]):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, shape, np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-8, 9, shape), 0, 255).astype(np.uint8)
    assert ssim(a, b) == pytest.approx(structural_similarity(a, b, channel_axis=2, data_range=255), abs=1e-3)


@pytest.mark.parametrize(("levels", "outside"), [(8, 0), (9, 12)])
def test_the_ball_ends_at_eight_levels(levels: int, outside: int):
    clean = tiny()
    clean = clean.with_images(torch.full_like(clean.images, 100))
    found = measure(clean, clean.with_images(clean.images + levels))
    assert found is not None and found.outside == outside and found.changed == 1 and bool(found.leaves) == (levels > 8)
