"""CUDA: a kernel a class, the same as filtering picture by picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from miue.attacks import CUDA
from miue.attacks.cuda import filtered, kernels
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.testing import tiny

FREE = Budget(0, "none")


def test_the_toy_of_the_specification():
    x = torch.arange(1.0, 10).reshape(1, 1, 3, 3) / 9
    kernel = torch.tensor([[[0.1, 0.2, 0.0], [0.0, 1.0, 0.3], [0.05, 0.0, 0.15]]])
    y = filtered(x, kernel)
    assert y.max() == 1
    before = y * 1.344444
    assert before[0, 0, 1, 1] == pytest.approx(1.0, abs=1e-5) and before[0, 0, 0, 0] == pytest.approx(
        0.261111, abs=1e-5
    )


def test_kernels():
    drawn = kernels(200, 0.3, torch.Generator().manual_seed(0)).flatten(1)
    assert ((drawn == 1).sum(1) == 1).all() and len((drawn == 1).float().argmax(1).unique()) == 9
    rest = drawn[drawn < 1]
    assert rest.min() >= 0 and rest.max() <= 0.3 and rest.mean() == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 8, 2), (1, 13, 3), (3, 33, 100)])
def test_it_is_the_plain_convolution_of_every_picture(run: Run, channels: int, size: int, classes: int):
    data = tiny(1 if classes == 100 else 3, classes, channels, size)
    protected = CUDA()(data, FREE, run).apply(data).images
    kernel = kernels(classes, 0.3, run.rng("kernels")).double().numpy()
    for x, label, found in zip(data.images.double().numpy() / 255, data.labels.tolist(), protected, strict=True):
        y = np.stack([correlate2d(channel, kernel[label], "same") for channel in x])
        assert np.abs(found.numpy() - 255 * y / y.max()).max() <= 0.5 + 1e-3


def test_changes_beyond_eight_bits_survive_and_black_stays_black(run: Run):
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    images[0, 0, 4, 4] = 255
    made = CUDA(blur=1.0)(ImageSet(images, torch.tensor([0, 0]), ("a", "b"), "dot"), FREE, Run(seed=5))
    assert made.delta.dtype == torch.int16 and made.delta.abs().max() > 127
    assert not made.delta[1].any()


def test_the_kernel_of_a_class_can_be_read_from_its_pictures(run: Run):
    """A linear fit of a protected picture from the nine neighbours of the clean one gives the class's kernel."""
    data = tiny(5, 10, 1, 16)
    protected = CUDA()(data, FREE, run).apply(data).images
    known = kernels(10, 0.3, run.rng("kernels")).flatten(1).double()
    neighbours = torch.nn.functional.unfold(data.images.double(), 3, padding=1).mT
    fitted = torch.linalg.lstsq(neighbours, protected.double().flatten(2).mT).solution.squeeze(-1)
    fitted = fitted / fitted.norm(dim=1, keepdim=True)
    assert ((fitted @ (known / known.norm(dim=1, keepdim=True)).T).argmax(1) == data.labels).all()


def test_what_is_refused(run: Run):
    with pytest.raises(UserError, match=r"CUDA cannot keep a budget in linf, only in none; leave the budget out"):
        CUDA()(tiny(), Budget(8), run)
    for blur in (0.0, 1.5, float("nan")):
        with pytest.raises(UserError, match="not above 0"):
            CUDA(blur=blur)
