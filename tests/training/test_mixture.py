"""What a surrogate looks through: mixtures, every view with its gradient, and JPEG beside Pillow's."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from miue import nets
from miue.core.errors import UserError
from miue.core.run import Run
from miue.training import jpeg as codec
from miue.training.colour import chroma, luma
from miue.training.mixture import VIEWS, cloud, look, parts


def pictures(count: int = 4, side: int = 32, channels: int = 3) -> Tensor:
    """Smooth pictures with some texture, away from black and white."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return 0.25 + 0.45 * smooth + 0.05 * torch.rand(smooth.shape, generator=generator)


# --- the spelling ---


def test_without_shares_plain_and_all_views_are_equally_likely():
    mixture = parts("gray+chroma")
    assert [(p.name, round(p.share, 6)) for p in mixture] == [("gray", 0.333333), ("chroma", 0.333333)]
    assert [p.share for p in parts("plain+gray")] == [0.5, 0.5] and parts("") == () == parts("  ")


def test_with_shares_the_rest_is_plain():
    mixture = parts("0.6gray + 0.15jpeg10+0.25adversary2.5")
    assert [(p.name, p.value, p.share) for p in mixture] == [
        ("gray", 0, 0.6),
        ("jpeg", 10, 0.15),
        ("adversary", 2.5, 0.25),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grey", "is no view; the views are plain, gray"),
        ("gray+", "'' is no view"),
        ("0.5gray+chroma", "has a share"),
        ("0gray+chroma", "a share of 0; leave it out"),
        ("0.6gray+0.6chroma", "at most 1"),
        ("jpeg0", "allowed is from 1 to 100"),
        ("jpeg0.5", "allowed is from 1 to 100"),
        ("jpeg10.5", "a quality of 10.5; give a whole number"),
        ("gray3", "allowed is none"),
        ("1.2.3gray", "'1.2.3' is no number"),
    ],
)
def test_a_wrong_mixture_is_told(text: str, words: str):
    with pytest.raises(UserError, match="see=") as error:
        parts(text)
    assert words in str(error.value)


def test_views_are_drawn_for_every_picture_by_their_shares(run: Run):
    x = torch.rand(3000, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    seen = look(parts("0.6gray+0.15chroma"), None, x, torch.zeros(3000).long(), run.rng("a"))
    gray = (seen - luma(x)).abs().amax((1, 2, 3)) < 1e-6
    coloured = (seen - chroma(x)).abs().amax((1, 2, 3)) < 1e-6
    plain = (seen == x).all(3).all(2).all(1)
    assert (gray | coloured | plain).all()
    shares = [kind.float().mean().item() for kind in (gray, coloured, plain)]
    assert shares == pytest.approx([0.6, 0.15, 0.25], abs=0.03)
    again = look(parts("0.6gray+0.15chroma"), None, x, torch.zeros(3000).long(), run.rng("a"))
    assert torch.equal(seen, again) and look((), None, x, torch.zeros(3000).long(), run.rng("a")) is x


# --- the views ---


def test_a_change_that_is_equal_in_all_channels_cannot_be_seen_in_chroma():
    x = pictures()
    tied = 0.03 * torch.randn(len(x), 1, *x.shape[2:], generator=torch.Generator().manual_seed(1))
    assert torch.allclose(chroma(x + tied), chroma(x), atol=1e-5)
    assert torch.allclose(luma(chroma(x)), torch.tensor(0.5), atol=1e-3)


def test_clouds_are_smooth_and_fill_the_range(run: Run):
    field = cloud((3, 32, 32), run.rng("a"))
    assert field.amin() == 0 and field.amax() == 1
    assert field.diff(dim=3).abs().max() < 0.2


@pytest.mark.parametrize("text", ["gray", "chroma", "resize0.5", "blur1.5", "shuffle", "plain"])
def test_the_gradient_of_a_view_is_that_of_finite_differences(run: Run, text: str):
    x = pictures(2, 16).double()
    _agree(lambda v: look(parts(f"1{text}"), None, v, torch.zeros(2).long(), run.rng("a")), x)


def test_the_gradient_of_jpeg_is_that_without_rounding():
    x = pictures(2, 24).double()
    _agree(lambda v: codec.jpeg(v, 30, rounded=False), x)
    with_rounding, without = (_gradient(lambda v, r=r: codec.jpeg(v, 75, r), x) for r in (True, False))
    assert torch.nn.functional.cosine_similarity(with_rounding.flatten(), without.flatten(), dim=0) > 0.98


def test_the_adversary_moves_pictures_to_a_higher_loss_within_its_radius(run: Run):
    with run.seeded("net"):
        net = run.place(nets.build("small-cnn:width=4", (3, 16, 16), 3)).eval()
    x, y = pictures(30, 16), torch.arange(30) % 3
    seen = look(parts("1adversary4"), net, x, y, run.rng("a"))
    assert 3 / 255 < (seen - x).abs().max() <= 4.001 / 255
    loss = torch.nn.functional.cross_entropy
    assert loss(net(seen), y) > loss(net(x), y)
    leaf = x.clone().requires_grad_()
    seen = look(parts("1adversary4"), net, leaf, y, run.rng("a"))
    (gradient,) = torch.autograd.grad(seen.sum(), leaf)
    assert torch.equal(gradient, torch.ones_like(x))


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "adversary"])
@pytest.mark.parametrize("shape", [(5, 3, 13, 13), (5, 1, 16, 16), (2, 3, 8, 8), (1, 3, 32, 20)])
def test_every_view_keeps_shape_range_and_input(run: Run, name: str, shape: tuple[int, ...]):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    before = x.clone()
    seen = look(parts(f"1{name}"), None, x, torch.zeros(shape[0]).long(), run.rng("a"))
    assert seen.shape == x.shape and torch.equal(x, before) and seen.isfinite().all()
    assert seen.min() >= -1e-5 and seen.max() <= 1 + 1e-5


def test_where_every_picture_has_two_views_labels_go_with_both(run: Run):
    x = torch.rand(6, 3, 8, 8)
    assert look(parts("gray+jpeg"), None, x, torch.tensor([0, 1, 2]), run.rng("a")).shape == x.shape


# --- JPEG ---


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 100])
def test_tables_are_those_of_the_library(quality: int):
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG", quality=quality)
    tables = Image.open(out).quantization  # type: ignore[attr-defined]
    for number, base in enumerate((codec.LUMA, codec.CHROMA)):
        assert codec.table(base, quality).flatten().int().tolist() == list(tables[number])


@pytest.mark.parametrize(("quality", "levels"), [(10, 3.0), (50, 1.5), (75, 1.5), (95, 1.5)])
@pytest.mark.parametrize("side", [32, 40])
def test_pictures_come_back_as_from_a_jpeg_file(quality: int, levels: float, side: int):
    x = pictures(3, side)
    ours = codec.jpeg(x, quality) * 255
    for picture, mine in zip(x, ours, strict=True):
        out = io.BytesIO()
        array = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(array).save(out, "JPEG", quality=quality)
        theirs = torch.from_numpy(np.asarray(Image.open(out)).copy()).permute(2, 0, 1).float()
        loss = (theirs - picture * 255).abs().mean()
        assert (theirs - mine).abs().mean() < min(levels, 0.6 * loss + 0.5)


def _gradient(view, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    weights = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    (gradient,) = torch.autograd.grad((view(leaf) * weights).sum(), leaf)
    return gradient


def _agree(view, x: Tensor) -> None:
    """The gradient of a weighted sum agrees with central differences at some random values."""
    weights = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    gradient = _gradient(view, x).flatten()
    for at in torch.randperm(x.numel(), generator=torch.Generator().manual_seed(0))[:20].tolist():
        step = torch.zeros_like(x).flatten()
        step[at] = 1e-4
        step = step.reshape(x.shape)
        slope = ((view(x + step) - view(x - step)) * weights).sum() / 2e-4
        assert gradient[at].item() == pytest.approx(slope.item(), abs=2e-3, rel=2e-3)
