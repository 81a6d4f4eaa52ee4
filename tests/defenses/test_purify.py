"""What each purifying defense does to the training set, and that it does it to nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from easy import FAST, easy
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet, eight_bits
from miue.defenses import (
    DVAE,
    JPEG,
    Blur,
    Chroma,
    ClassMean,
    Depth,
    DiffPure,
    Gray,
    LowPass,
    Projection,
    Resize,
    combination,
)
from miue.defenses.purify.dvae import LOUD, Autoencoder, loss
from miue.defenses.purify.projection import project
from miue.evaluation.checks import check_victims
from miue.evaluation.victim import train_victim
from miue.publish import export
from miue.testing import Stopping, tiny
from miue.training.batches import Batches
from miue.victims.fit import fit, prepare, shown
from miue.victims.recipe import Recipe


def unlabelled(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.long)


def floats(data: ImageSet) -> torch.Tensor:
    return data.images.float() / 255


def smooth(size: int = 16, seed: int = 0) -> torch.Tensor:
    """Pictures with something in them that survives compression."""
    coarse = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear")


def test_eight_bits_rounds_to_the_nearest_and_clamps():
    x = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0, 2.0]).view(1, 1, 1, 7)
    assert eight_bits(x).flatten().tolist() == [0, 0, 0, 1, 255, 255, 255]
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(eight_bits(every.float() / 255), every)


def test_jpeg_is_what_pillow_writes(run: Run):
    data = tiny(per_class=2, size=16)
    made = eight_bits(JPEG(quality=20)(floats(data), data.labels, run))
    for mine, image in zip(made, data.images, strict=True):
        buffer = BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=20)
        theirs = np.asarray(Image.open(buffer).convert("RGB"))
        assert (mine.permute(1, 2, 0).numpy() == theirs).all()


def test_jpeg_quality_reaches_the_pixels(run: Run):
    x = smooth()
    errors = [float((JPEG(quality=q)(x, unlabelled(len(x)), run) - x).square().mean()) for q in (5, 10, 30, 70, 95)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 20 * errors[-1] > 0


@pytest.mark.parametrize("text", ["jpeg:quality=10", "gray", "depth", "gray+jpeg:quality=10"])
def test_only_the_training_set_is_purified(run: Run, text: str):
    """The victim sees purified pictures; the set that it was given and the test set are what they were."""
    data, test, seen = tiny(per_class=5, size=16), tiny(per_class=5, size=16, seed=3), []

    class Spying(torch.nn.Module):
        slot = "augment"

        def __call__(self, x, y, generator):
            seen.append(x.clone())
            return x, y

    recipe = Recipe(net="small-cnn:width=4", epochs=2, batch=100, augment=(Spying(),)).defended(*combination(text))
    before = (data.digest, test.digest)
    fit(data, recipe, run)
    expected = floats(data)
    for purify in recipe.purify:
        expected = purify(expected, data.labels, run)
    assert not torch.equal(expected, floats(data))
    for batch in seen:  # both epochs, in another order
        assert torch.allclose(batch.sum((1, 2, 3)).sort().values, expected.sum((1, 2, 3)).sort().values, atol=1e-3)
    assert (replace(data, name="x").digest, replace(test, name="x").digest) == before
    assert torch.equal(Batches(test, run).take(torch.arange(15)), floats(test))


def test_a_set_is_purified_once(run: Run):
    calls = []

    class Counting:
        slot = "purify"

        def __call__(self, x, y, run):
            calls.append((x.shape, y.tolist()))
            return x

    data = tiny(per_class=4)
    fit(data, replace(Recipe(net="small-cnn:width=4", epochs=3, batch=4), purify=(Counting(),)), run)
    assert calls == [((12, 3, 8, 8), data.labels.tolist())]


def test_purified_pictures_keep_their_rows_where_a_part_is_held_out(run: Run):
    data = tiny(per_class=6)
    plan = Recipe(net="small-cnn:width=4", hold_out=0.3).defended(Gray())
    ready = prepare(data, plan, run)
    grey = Gray()(floats(data), data.labels, run)
    assert ready.held is not None and len(ready.held.rows) + len(ready.train.rows) == len(data)
    found = []
    for part in (ready.train, ready.held):
        for index, x, y in part.in_order(100):
            for row, label in zip(x, y, strict=True):
                (at,) = (i for i in range(len(data)) if torch.equal(grey[i], row))
                assert int(data.labels[at]) == int(label)
                found.append(at)
            assert len(index) == len(part.rows)
    assert sorted(found) == list(range(len(data)))


def test_grey_has_three_equal_channels(run: Run):
    x = floats(tiny())
    made = Gray()(x, unlabelled(len(x)), run)
    assert torch.equal(made[:, 0], made[:, 1]) and torch.equal(made[:, 0], made[:, 2])
    weights = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(made[:, 0], (x * weights[:, None, None]).sum(1), atol=2e-4)
    single = x[:, :1]
    assert torch.equal(Gray()(single, unlabelled(len(single)), run), single)


@pytest.mark.parametrize("blur", [0.0, 1.5])
def test_chroma_does_not_see_what_is_the_same_in_all_channels(run: Run, blur: float):
    """A change of luminance alone: gone; where luminance is blurred, its fine part is gone."""
    x = 0.3 + 0.4 * smooth(24)
    fine = ((torch.arange(24)[:, None] + torch.arange(24)) % 2 - 0.5)[None, None] * 0.1
    made = Chroma(blur=blur)(x + fine, unlabelled(4), run)
    assert torch.allclose(made, Chroma(blur=blur)(x, unlabelled(4), run), atol=2e-3 if blur else 1e-6)
    assert (Gray()(x + fine, unlabelled(4), run) - Gray()(x, unlabelled(4), run)).abs().max() > 0.04
    flat = Chroma(blur=blur)(x + 0.1, unlabelled(4), run)
    assert torch.allclose(flat, Chroma(blur=blur)(x, unlabelled(4), run) + (0.1 if blur else 0), atol=1e-6)


def test_chroma_keeps_colour_as_it_is(run: Run):
    x = 0.3 + 0.4 * smooth(24)
    differences = x - x.roll(1, 1)
    for blur in (0.0, 1.0):
        made = Chroma(blur=blur)(x, unlabelled(4), run)
        assert torch.allclose(made - made.roll(1, 1), differences, atol=1e-6)
    y = (made * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    assert torch.allclose(y, Blur()(Gray()(x, unlabelled(4), run), unlabelled(4), run)[:, 0], atol=1e-6)
    grey = Gray()(x, unlabelled(4), run)
    assert torch.allclose(Chroma()(grey, unlabelled(4), run), torch.full_like(x, 0.5), atol=1e-6)


def test_test_pictures_go_through_what_is_for_all_pictures(run: Run):
    test = tiny(per_class=5, size=16, seed=3)
    for text, seen in (("chroma", True), ("gray", False), ("gray+chroma:blur=1", True)):
        plan = Recipe(net="small-cnn:width=4").defended(*combination(text))
        expected = plan.purify[-1](floats(test), test.labels, run) if seen else floats(test)
        assert torch.equal(shown(test, plan, run).take(torch.arange(15)), expected)


def test_nobody_is_shown_the_labels_of_test_pictures(run: Run):
    class Cheating:
        slot, everywhere = "purify", True

        def __call__(self, x, y, run):
            return x * 0 + y.view(-1, 1, 1, 1)

    plan: Any = replace(Recipe(net="small-cnn:width=4"), purify=(Cheating(),))
    assert not shown(tiny(per_class=5), plan, run).take(torch.arange(15)).any()


def test_chroma_makes_colours_that_were_learnt_without_luminance_useful(run: Run):
    """Clean pictures whose luminance says another class: the victim does not look at it."""
    data = easy(20, size=16)
    brighter = torch.tensor([0, 60, 120])[(data.labels + 1) % 3].view(-1, 1, 1, 1)
    test = easy(10, size=16, seed=5)
    spoilt = data.with_images((data.images // 2 + brighter).to(torch.uint8))
    shifted = test.with_images(test.images // 2)
    plan = replace(FAST, epochs=6)
    defended = train_victim("protected", spoilt, shifted, plan.defended(Chroma()), run, None)
    assert defended.last > 0.9 > train_victim("protected", spoilt, shifted, plan, run, None).last


def test_chroma_refuses_a_set_without_colour(run: Run):
    data = tiny(channels=1, size=16)
    plan = Recipe(net="small-cnn:width=4", epochs=1).defended(Chroma())
    for attempt in (lambda: fit(data, plan, run), lambda: check_victims([plan], data, tiny(channels=1, seed=4), run)):
        with pytest.raises(UserError, match="greyscale and have no chroma"):
            attempt()
    assert check_victims([plan], tiny(size=16), tiny(size=16, seed=4), run) > 0


@given(bits=st.integers(1, 8))
def test_depth_keeps_exactly_two_to_the_bits_values(bits: int):
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    made = eight_bits(Depth(bits=bits)(every.float() / 255, unlabelled(1), Run(device_name="cpu"))).flatten().tolist()
    step = 256 // 2**bits
    assert sorted(set(made)) == list(range(0, 256, step)) and len(set(made)) == 2**bits
    assert made == [v - v % step for v in range(256)]


def test_blur_is_a_gaussian_of_its_sigma(run: Run):
    """A point becomes a bell of the asked width; a flat picture stays flat."""
    point = torch.zeros(1, 1, 31, 31)
    point[..., 15, 15] = 1
    for sigma in (0.8, 1.5):
        bell = Blur(sigma=sigma)(point, unlabelled(len(point)), run)[0, 0]
        place = torch.arange(31.0) - 15
        assert float(bell.sum()) == pytest.approx(1, abs=1e-4)
        assert float((bell.sum(0) * place**2).sum()) ** 0.5 == pytest.approx(sigma, rel=0.05)
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert torch.allclose(Blur(sigma=5.0)(flat, unlabelled(len(flat)), run), flat)


def test_resize_takes_what_is_finer_than_it_keeps(run: Run):
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    fine = board.float().expand(1, 3, 16, 16) * 0.5 + 0.25
    coarse = smooth()
    assert (Resize()(fine, unlabelled(len(fine)), run)[..., 3:-3, 3:-3] - 0.5).abs().max() < 0.02
    assert (Resize()(coarse, unlabelled(len(coarse)), run) - coarse).abs().mean() < 0.02
    gentle, hard = (Resize(share=s)(coarse, unlabelled(len(coarse)), run) for s in (0.9, 0.2))
    assert (gentle - coarse).abs().mean() < (hard - coarse).abs().mean()


@pytest.mark.parametrize(
    ("share", "below", "above"), [(0.5, (7, 9), (8, 9)), (0.5, (0, 9), (3, 10)), (0.3, (4, 5), (4, 6))]
)
def test_a_wave_below_the_cut_stays_and_one_above_is_gone(run: Run, share: float, below: Any, above: Any):
    """16 x 20 pixels: with half of the frequencies 8 x 10 of them are left, with 0.3 of them 5 x 6."""
    height, width = torch.arange(16.0), torch.arange(20.0)

    def wave(up: int, right: int) -> torch.Tensor:
        vertical, horizontal = ((p + 0.5) * math.pi * f / len(p) for p, f in ((height, up), (width, right)))
        return 0.4 * vertical.cos()[:, None] * horizontal.cos()

    made = LowPass(share=share)(0.5 + torch.stack([wave(*below), wave(*above)])[:, None], unlabelled(2), run)
    assert torch.allclose(made[0, 0], 0.5 + wave(*below), atol=1e-5)
    assert torch.allclose(made[1], torch.full((1, 16, 20), 0.5), atol=1e-5)


# --- orthogonal projection ---


def shortcut(per_class: int = 40, size: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, their labels, and the pattern of each class that was added to them."""
    data = tiny(per_class=per_class, size=size)
    pattern = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1)).sign() * (16 / 255)
    x = (floats(data) * 0.4 + 0.3 + pattern[data.labels]).clamp(0, 1)
    return x, data.labels, pattern


def test_projection_removes_the_subspace(run: Run):
    x, y, _ = shortcut()
    basis = Projection().directions(x, y, run)
    made = Projection()(x, y, run)
    assert basis.shape == (192, 3) and torch.allclose(basis.T @ basis, torch.eye(3, dtype=basis.dtype), atol=1e-12)
    assert (x.flatten(1).double() @ basis).abs().max() > 0.1
    assert (made.flatten(1).double() @ basis).abs().max() < 1e-5
    kept = torch.eye(192, dtype=basis.dtype) - basis @ basis.T  # all other directions stay
    assert torch.allclose(made.flatten(1).double() @ kept, x.flatten(1).double() @ kept, atol=1e-5)
    assert torch.allclose(project(made, basis), made, atol=1e-6)


def test_projection_finds_what_is_the_same_all_over_a_class(run: Run):
    """Most of a class-wise pattern is gone afterwards, and a fresh linear model finds less in it."""
    x, y, pattern = shortcut()
    plan = Projection(steps=240, batch=32)
    basis = plan.directions(x, y, run)
    between = (pattern - pattern.mean(0)).flatten(1).double()
    before, after = between.norm(), (between - between @ basis @ basis.T).norm()
    assert after < 0.6 * before
    random = torch.linalg.qr(torch.randn(192, 3, generator=run.rng("random"), dtype=torch.float64)).Q
    assert after < 0.7 * (between - between @ random @ random.T).norm()


@pytest.mark.parametrize("size", [30, 300])
def test_projection_takes_as_many_steps_for_small_sets(run: Run, monkeypatch: pytest.MonkeyPatch, size: int):
    rates = []
    real = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *a: rates.append(self.param_groups[0]["lr"]) or real(self, *a)
    )
    x, y, _ = shortcut(size // 3)
    Projection(steps=20, batch=40).directions(x, y, run)
    assert rates == pytest.approx([0.1] * 10 + [0.01] * 5 + [0.001] * 5)


def test_projection_follows_labels_and_seed(run: Run):
    x, y, _ = shortcut(10)
    first = Projection(steps=2)(x, y, run)
    assert not torch.equal(first, Projection(steps=2)(x, y.flip(0), run))
    assert not torch.equal(first, Projection(steps=2)(x, y, run.reseeded(2)))


# --- D-VAE ---


@pytest.mark.slow
def test_the_autoencoder_takes_out_what_a_class_has_in_common(run: Run):
    """Smooth pictures of their own, and one fine pattern a class: the pattern goes, the pictures stay."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(120, 3, 4, 4, generator=generator)
    clean = 0.15 + 0.7 * torch.nn.functional.interpolate(coarse, 16, mode="bilinear")
    y = torch.arange(120) % 4
    pattern = 16 / 255 * (torch.randint(2, (4, 3, 16, 16), generator=generator) * 2 - 1)[y]
    made = DVAE(epochs=60, width=8, latent=32, batch=16, second=30.0)(clean + pattern, y, run)
    kept = ((made - clean) * pattern).sum() / pattern.square().sum()
    alike = torch.corrcoef(torch.stack([made.flatten(), clean.flatten()]))[0, 1]
    assert abs(float(kept)) < 0.2 and float(alike) > 0.85


def test_what_the_autoencoder_descends():
    x, p = torch.full((2, 1, 2, 2), 0.5), torch.full((2, 1, 2, 2), 0.2)
    picture, nothing = torch.full_like(x, 0.4), torch.zeros(())
    plain = 0.1**2 + 0.1**2 + 0.01 * 3.0  # the divergence is below its floor
    assert float(loss(x, picture, p, nothing, 3.0, True)) == pytest.approx(plain)
    assert float(loss(x, picture, p, nothing + 5, 3.0, True)) == pytest.approx(plain + 0.01 * 2)
    assert float(loss(x, picture, p, nothing, 3.0, False)) == pytest.approx(plain + 0.2**2)
    assert float(loss(x, picture, p / 100, nothing, 0.0, False)) == pytest.approx(0.01 + 0.098**2 + LOUD)
    assert float(loss(x, picture, p * 9, nothing, 0.0, True)) == pytest.approx(0.01 + 0.25)  # clamped at 1


def test_a_code_at_its_mean_and_variance(run: Run):
    """The divergence is that of Gaussians, summed over channels, mean over positions and pictures."""
    net = Autoencoder((3, 9, 12), 2, 4, 5)
    torch.nn.init.zeros_(net.code.weight)
    net.code.bias = torch.nn.Parameter(torch.cat([torch.full((5,), 2.0), torch.full((5,), 0.5)]))
    picture, p, divergence = net(torch.rand(3, 3, 9, 12), torch.tensor([0, 1, 1]), torch.zeros(3, 5, 5, 6))
    assert picture.shape == p.shape == (3, 3, 9, 12)
    assert divergence.item() == pytest.approx(5 * 0.5 * (2.0**2 + math.exp(0.5) - 1 - 0.5))


# --- diffusion ---


class Knowing(torch.nn.Module):
    """The right answer for a world with one picture: the noise that leads there from z."""

    def __init__(self, picture: torch.Tensor, schedule: object) -> None:
        super().__init__()
        self.picture, self.kept = 2 * picture - 1, schedule.alphas_cumprod  # type: ignore[attr-defined]
        self.seen: list[tuple[int, torch.Tensor]] = []

    def forward(self, z: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        self.seen.append((int(times[0]), z.clone()))
        a = self.kept[times[0]]
        return (z - a.sqrt() * self.picture) / (1 - a).sqrt()


@pytest.mark.parametrize(("time", "steps"), [(1, 1), (100, 100), (100, 10), (400, 1)])
def test_with_the_right_noise_every_picture_becomes_what_the_model_knows(time: int, steps: int, run: Run):
    plan = DiffPure(time=time, steps=steps)
    picture, schedule = 0.1 + 0.8 * smooth()[0], plan.schedule()
    net = Knowing(picture, schedule)
    made = plan.drawn(net, schedule, smooth(seed=1), run)  # type: ignore[arg-type]
    assert (made - picture).abs().max() < 1e-3
    times = [t for t, _ in net.seen]
    assert len(times) == steps and times[0] == time - 1 and times[-1] == (0 if steps > 1 else time - 1)
    assert times == sorted(set(times), reverse=True)


def test_pictures_are_drowned_as_far_as_the_time_says(run: Run):
    """Variance of what is mixed in: 1 - prod(1 - beta), beta from 0.0001 to 0.02 over 1,000 times."""
    x = torch.full((8, 3, 32, 32), 0.75)
    for time in (10, 100, 300):
        kept = math.prod(1 - (1e-4 + (0.02 - 1e-4) * t / 999) for t in range(time))
        plan = DiffPure(time=time, steps=1)
        net = Knowing(x[0], plan.schedule())
        plan.drawn(net, plan.schedule(), x, run)  # type: ignore[arg-type]
        z = net.seen[0][1]
        assert z.mean().item() == pytest.approx(0.5 * math.sqrt(kept), abs=0.02)
        assert z.var().item() == pytest.approx(1 - kept, rel=0.05)


def drawings(n: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return 0.15 + 0.7 * torch.nn.functional.interpolate(coarse, 16, mode="bilinear")


@pytest.mark.slow
def test_a_model_of_clean_pictures_takes_noise_away(tmp_path: Path, run: Run):
    """Saved as diffusers saves it and read again; it is fitted to other pictures than it cleans."""
    fitted = DiffPure(epochs=24, width=16, batch=16, lr=3e-3)
    fitted.trained(drawings(64), fitted.schedule(), run).unet.save_pretrained(tmp_path / "model" / "unet")
    clean = drawings(32, seed=1)
    pattern = 24 / 255 * (torch.randint(2, clean.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    plan = DiffPure(model=str(tmp_path / "model"), steps=20)
    made = plan(clean + pattern, unlabelled(32), run)
    kept = ((made - clean) * pattern).sum() / pattern.square().sum()
    assert abs(float(kept)) < 0.2 and (made - clean).square().mean() < 0.8 * pattern.square().mean()
    with pytest.raises(UserError, match="takes 3 channels and gives 3; these pictures have 1"):
        plan(clean[:, :1], unlabelled(32), run)


@pytest.mark.slow
def test_a_model_is_trained_on_clean_pictures_that_are_named(tmp_path: Path, run: Run):
    """It has not seen the perturbation that the training pictures share, and takes out more of it than one that has."""
    generator = torch.Generator().manual_seed(0)
    others, clean = drawings(64), drawings(64, seed=1)
    pattern = 16 / 255 * (torch.randint(2, (1, *clean.shape[1:]), generator=generator) * 2 - 1)
    images = others.mul(255).round().to(torch.uint8)
    export(ImageSet(images, torch.arange(64) % 2, ("a", "b"), "others"), tmp_path / "others")
    left = {}
    for where in ("", str(tmp_path / "others")):
        plan = DiffPure(clean=where, epochs=24, width=16, batch=16, lr=3e-3, steps=20)
        cleaned = plan(clean + pattern, unlabelled(64), run)
        left[where] = float(((cleaned - clean) * pattern).sum() / (pattern.square().sum() * 64))
    assert left[str(tmp_path / "others")] < 0.5 * left[""]


def test_other_clean_pictures_are_another_defense(tmp_path: Path):
    first = DiffPure(clean="shapes")
    assert first.content and first == DiffPure(clean="shapes") != DiffPure(clean="shapes", split="test")


def test_another_model_is_another_defense(tmp_path: Path, run: Run):
    plan = DiffPure(epochs=1, width=8, batch=32)
    unet = plan.trained(drawings(8), plan.schedule(), run).unet
    unet.save_pretrained(tmp_path)
    first = DiffPure(model=str(tmp_path))
    assert first == DiffPure(model=str(tmp_path)) and first.content
    torch.nn.init.zeros_(unet.conv_out.weight)
    unet.save_pretrained(tmp_path)
    assert DiffPure(model=str(tmp_path)) != first
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"the model in .* cannot be read"):
        DiffPure(model=str(tmp_path))(drawings(2), unlabelled(2), run)


def test_the_diffusion_model_goes_on_where_it_was(tmp_path: Path, run: Run):
    plan, x = DiffPure(epochs=3, width=8, batch=4, steps=2), drawings(8)
    whole = plan(x, unlabelled(8), run.reseeded(1))
    with pytest.raises(KeyboardInterrupt):
        plan(x, unlabelled(8), Stopping(seed=1, keep=tmp_path, after=5))
    assert torch.equal(plan(x, unlabelled(8), Run(seed=1, keep=tmp_path)), whole)


def test_a_class_mean_takes_out_what_a_class_shares(run: Run):
    """A fine pattern that all pictures of a class have disappears; what pictures have by nature stays."""
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(3).repeat(300)
    x = torch.nn.functional.interpolate(torch.rand(900, 3, 2, 2, generator=generator), 16, mode="bilinear")
    x = 0.2 + 0.6 * x + 0.02 * torch.randn(x.shape, generator=generator)
    noise = (torch.randn(3, 3, 16, 16, generator=generator).sign() * 8 / 255)[y]
    made = ClassMean()(x + noise, y, run)
    assert (made - x).square().mean() < 0.15 * noise.square().mean()  # the coarse part of the pattern stays
    assert (ClassMean()(x, y, run) - x).square().mean() < 0.01 * noise.square().mean()
    half = ClassMean(strength=0.5)(x + noise, y, run)
    assert torch.allclose(half, (x + noise + made) / 2, atol=1e-5)


def test_a_class_mean_needs_no_class_to_be_there(run: Run):
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = ClassMean()(x, torch.tensor([5, 2, 2, 5]), run)
    assert torch.allclose(found[[1, 2]], ClassMean()(x[[1, 2]], torch.zeros(2, dtype=torch.long), run), atol=1e-6)


def test_a_projection_that_would_leave_nothing_is_refused(run: Run):
    x = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    with pytest.raises(UserError, match="16 values of a picture and 20 classes"):
        Projection(steps=1)(x, torch.arange(20), run)


def test_the_divergence_of_the_autoencoder_weighs_more_below_a_floor_of_one_nat():
    x, far = torch.zeros(1, 1, 2, 2), torch.tensor(7.0)
    assert loss(x, x, x, far, floor=1.0, quiet=True) == pytest.approx(0.01 * 7)
    assert loss(x, x, x, far, floor=0.5, quiet=True) == pytest.approx(0.5 * 7)
