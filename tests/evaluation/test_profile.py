"""What the noise of a protection is: shares of energy with known answers, and whether it tells the class."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from miue.core.run import Run
from miue.core.types import ImageSet
from miue.evaluation.profile import Profile, profile

module = sys.modules[profile.__module__]

CLASSES = 4


def grey(n: int = 400, size: int = 16, channels: int = 3) -> ImageSet:
    images = torch.full((n, channels, size, size), 128, dtype=torch.uint8)
    return ImageSet(images, torch.arange(n) % CLASSES, tuple("abcd"), "grey")


def of(delta: Tensor, run: Run, data: ImageSet | None = None) -> Profile:
    data = data or grey()
    made = profile(data, data.with_images((data.images.int() + delta.int()).to(torch.uint8), "protected"), run)
    assert made is not None
    return made


def signs(run: Run, *shape: int) -> Tensor:
    return 8 * (torch.randint(2, shape, generator=run.rng("signs")) * 2 - 1)


def test_noise_of_every_picture_has_nothing_in_common(run: Run):
    made = of(signs(run, 400, 3, 16, 16), run)
    assert made.common < 0.01 and made.of_class < 0.01 and made.pictures == 400
    assert made.luminance == pytest.approx(1 / 3, abs=0.02)
    assert made.separable is not None and made.separable < 0.5  # chance is a quarter
    assert made.bands[3] > 0.6 and sum(made.bands) == pytest.approx(1)


def test_a_pattern_a_class_tells_the_class(run: Run):
    made = of(signs(run, CLASSES, 3, 16, 16)[grey().labels], run)
    assert made.of_class == pytest.approx(0.75, abs=0.05) and made.common == pytest.approx(0.25, abs=0.05)
    assert made.separable == 1


def test_half_of_it(run: Run):
    """Energies add up: as much of each picture's own as of its class."""
    own, shared = signs(run, 400, 3, 16, 16), signs(run.reseeded(3), CLASSES, 3, 16, 16)[grey().labels]
    made = of((own + shared) // 2, run)
    assert made.common + made.of_class == pytest.approx(0.5, abs=0.02)


def test_what_is_common_to_all_tells_nothing(run: Run):
    made = of(signs(run, 1, 3, 16, 16).expand(400, -1, -1, -1), run)
    assert made.common == pytest.approx(1) and made.of_class == pytest.approx(0, abs=1e-6)
    assert made.separable == pytest.approx(0.25, abs=0.01)


def test_luminance_and_bands(run: Run):
    wave = (8 * torch.cos(2 * torch.pi * torch.arange(16) / 8).sign()).int()  # a period of 8 pixels
    tied = wave[None, None, None, :].expand(400, 3, 16, 16)
    made = of(tied, run)
    assert made.luminance == pytest.approx(1) and made.bands[1] + made.bands[2] > 0.7
    colour = tied * torch.tensor([1, -1, 0])[:, None, None]
    assert of(colour, run).luminance == pytest.approx(0)
    flat = torch.full((400, 3, 16, 16), 8)
    assert of(flat, run).bands == pytest.approx((1, 0, 0, 0))
    assert of(tied[:, :1], run, grey(channels=1)).luminance == pytest.approx(1)


def test_it_is_the_same_in_parts_and_of_fewer_large_pictures(run: Run, monkeypatch: pytest.MonkeyPatch):
    delta = (signs(run, 400, 3, 16, 16) + signs(run.reseeded(3), CLASSES, 3, 16, 16)[grey().labels]) // 2
    whole = of(delta, run)
    monkeypatch.setattr(module, "BLOCK", 1000)
    again = of(delta, run)
    assert again.bands == pytest.approx(whole.bands) and again.separable == whole.separable
    shares = (whole.common, whole.of_class, whole.luminance)
    assert (again.common, again.of_class, again.luminance) == pytest.approx(shares)
    monkeypatch.setattr(module, "VALUES", 43 * 3 * 16 * 16)
    assert of(delta, run).pictures == 40
    monkeypatch.setattr(module, "VALUES", 0)
    assert of(delta, run).pictures == 2 * CLASSES


def test_nothing_changed_and_few_pictures(run: Run):
    assert profile(grey(), grey(), run) is None
    few = grey(8)
    made = of(signs(run, 8, 3, 16, 16), run, few)
    assert made.separable is None and "tells a linear" not in str(made)
    assert "is common to a class" in str(of(signs(run, 400, 3, 16, 16), run))
