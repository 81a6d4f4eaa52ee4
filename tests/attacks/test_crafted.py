"""TAP, HYPO, EntF, SEP, PIL: what they reach on their surrogate, their losses, and their driver."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from probes import Stopping
from torch import Tensor

from miue import nets
from miue.attacks import HYPO, KNOWN, PIL, SEP, TAP, EntF, attack, crafted
from miue.attacks import surrogate as surrogate_training
from miue.attacks.crafted import Crafted, _direction, _start
from miue.attacks.pil import Linear, linearity_loss
from miue.attacks.shape import Shape, Shaped
from miue.attacks.surrogate import centres
from miue.core.errors import UserError
from miue.core.launch import launch
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.testing import check_attack, tiny
from miue.training.batches import Batches

LEARNS: dict[str, Any] = {"surrogate": "small-cnn:width=4", "epochs": 12, "batch": 8, "augment": "none"}
FEW: dict[str, Any] = {"surrogate": "small-cnn:width=4", "epochs": 2, "steps": 2, "step_size": 1.5, "batch": 8}


def colours(per_class: int = 16) -> ImageSet:
    """Three classes, each brighter in one channel, on noise: learnt in a few epochs, changed within 48 grey levels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3 * per_class) % 3
    images = torch.randint(60, 160, (len(labels), 3, 8, 8), generator=generator)
    images[torch.arange(len(labels)), labels] += 40
    return ImageSet(images.to(torch.uint8), labels, ("red", "green", "blue"), "colours")


def surrogate(method: Any, data: ImageSet, run: Run, epoch: int | None = None) -> Any:
    """The network that the attack kept after an epoch."""
    kept = run.load(f"surrogate-{epoch or method.epochs}")
    assert kept
    net = run.place(method.network(data.shape, len(data.classes)))
    net.load_state_dict(kept[0])
    return net.eval().requires_grad_(False)


def floats(data: ImageSet) -> Tensor:
    return data.images.float().div(255)


# --- what they reach ---


def test_tap_reaches_its_target_and_not_by_chance(keeping: Run):
    data, method = colours(), TAP(**LEARNS | {"steps": 40, "step_size": 2.0, "surrogate": "small-cnn:width=8"})
    protected = method(data, Budget(48), keeping).apply(data)
    net = surrogate(method, data, keeping)
    assert (net(floats(data)).argmax(1) == data.labels).float().mean() > 0.95  # it had learnt the clean ones
    assert (net(floats(protected)).argmax(1) == (data.labels + 1) % 3).float().mean() >= 0.99
    assert torch.equal(protected.labels, data.labels)


def test_hypo_helps_its_surrogate(keeping: Run):
    data, method = colours(), HYPO(**LEARNS | {"epochs": 3, "steps": 10})
    protected = method(data, Budget(8), keeping).apply(data)
    net = surrogate(method, data, keeping)
    before, after = (F.cross_entropy(net(floats(d)), data.labels).item() for d in (data, protected))
    assert after < 0.8 * before


@pytest.mark.parametrize("how", ["push", "pull"])
def test_entf_moves_features_with_respect_to_centres(keeping: Run, how: str):
    data, method = colours(), EntF(**LEARNS | {"epochs": 3, "steps": 10}, how=how)  # pyright: ignore
    protected = method(data, Budget(8), keeping).apply(data)
    net = surrogate(method, data, keeping)
    centre = centres(net, Batches(data, keeping), keeping)
    target = centre[(data.labels + (how == "pull")) % 3]
    before, after = (F.mse_loss(net.embed(floats(d)), target).item() for d in (data, protected))
    assert after > 1.1 * before if how == "push" else after < 0.9 * before


def test_sep_moves_every_checkpoint_towards_another_class(keeping: Run):
    data, method = colours(), SEP(**LEARNS | {"epochs": 6, "steps": 6}, checkpoints=3)
    protected = method(data, Budget(8), keeping).apply(data)
    for epoch in (2, 4, 6):
        net = surrogate(method, data, keeping, epoch)
        target = centres(net, Batches(data, keeping), keeping)[(data.labels + 1) % 3]
        before, after = (F.mse_loss(net.embed(floats(d)), target).item() for d in (data, protected))
        assert after < 0.95 * before


def test_pil_leaves_a_linear_network_nothing_but_what_was_taken(keeping: Run):
    data, method = colours(), PIL(epochs=20, batch=8, lr=0.02)
    protected = method(data, Budget(8), keeping).apply(data)
    net = surrogate(method, data, keeping)
    taken = floats(data) - floats(protected)  # the paper's delta, in the picture minus delta
    assert (net(taken).argmax(1) == data.labels).all() and not (net(-taken).argmax(1) == data.labels).any()
    assert net(taken).softmax(1).gather(1, data.labels[:, None]).mean() > 0.34

    def told(x: Tensor) -> float:  # how far from uniform, in nats
        return float(-net(x).log_softmax(1).mean() - torch.log(torch.tensor(3.0)))

    assert told(floats(protected)) < told(floats(data))


# --- losses and centres ---


@given(classes=st.sampled_from([2, 10, 100]), seed=st.integers(0, 99), share=st.sampled_from([0.0, 0.1, 0.9]))
def test_the_loss_of_pil_is_that_of_the_formula(classes: int, seed: int, share: float):
    generator = torch.Generator().manual_seed(seed)
    clue, rest = torch.randn(2, 5, classes, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (5,), generator=generator)
    plain = 0.0
    for a, b, k in zip(clue, rest, y, strict=True):
        p, q = a.exp() / a.exp().sum(), b.exp() / b.exp().sum()
        uniform = 1 / classes
        plain += (1 - share) * -p[k].log() + share * sum(
            uniform * (torch.log(torch.tensor(uniform)) - v.log()) for v in q
        )
    assert linearity_loss(clue, rest, y, share).item() == pytest.approx(float(plain) / 5, rel=1e-6)


def shape(method: Crafted, size: tuple[int, int, int], run: Run) -> Shape:
    """The form of deltas for pictures of this size, in a budget of 8."""
    data = ImageSet(torch.zeros(1, *size, dtype=torch.uint8), torch.zeros(1, dtype=torch.long), ("one",), "one")
    return Shape(method, data, Budget(8), run, torch.arange(1))


def test_the_surrogate_of_pil_is_linear():
    net, (a, b) = Linear(12, 4), torch.rand(2, 3, 3, 2, 2)
    assert torch.allclose(net(a + b), net(a) + net(b), atol=1e-6) and not net(torch.zeros_like(a)).any()
    assert [p.shape for p in net.parameters()] == [(4, 12), (4, 4)]


def test_centres_are_class_means_and_nothing_for_an_empty_class(run: Run):
    data = replace(colours(5), classes=("red", "green", "blue", "none"))
    with run.seeded("net"):
        net = run.place(nets.build("small-cnn:width=4", (3, 8, 8), 4)).eval()
    z = net.embed(floats(data)).detach()
    found = centres(net, Batches(data, run), run, size=4)
    for k in range(3):
        assert torch.allclose(found[k], z[data.labels == k].mean(0), atol=1e-5)
    assert not found[3].any()


def test_gaussian_starts_have_the_budget_as_deviation_and_end_there(run: Run):
    budget = Budget(8)
    form = shape(TAP(), (3, 32, 32), run)
    made = _start("gaussian", (64, 3, 32, 32), form, run.rng("x")) / budget.unit
    at_the_edge = (made.abs() == 1).float().mean().item()
    assert made.abs().max() == 1 and at_the_edge == pytest.approx(math.erfc(1 / 2**0.5), abs=5e-3)
    inside = made[made.abs() < 1]
    assert inside.std().item() == pytest.approx(0.53956, abs=5e-3)  # of a standard normal within one deviation
    assert TAP().start == "gaussian" and not _start("zero", (2, 3, 4, 4), form, run.rng("x")).any()


def test_noise_lies_in_the_picture_before_it_is_mirrored(run: Run):
    """Aligned: where the mirror was drawn, what lowers the left half of the view belongs to the right of the delta."""
    x = torch.full((200, 3, 4, 4), 0.5)
    aims = [(None, lambda seen, y, delta: seen[..., :2].sum())]
    method, y, start = TAP(augment="flip"), torch.zeros(200).long(), torch.zeros_like(x)
    found = _direction(method, aims, x, y, start, shape(method, (3, 4, 4), run), run.rng("a"), run.rng("b"))
    left, right = (found[..., part].amin((1, 2, 3)) == 1 for part in (slice(0, 2), slice(2, 4)))
    assert (left ^ right).all() and 70 < left.sum() < 130


def test_the_direction_of_an_ensemble_is_the_variance_reduced_walk(run: Run):
    """For aims |x - c_i|^2 every reduced gradient is that of the mean: 2 (here - mean of c)."""
    generator = torch.Generator().manual_seed(0)
    x, corners = torch.full((2, 3, 4, 4), 0.5), torch.rand(4, 2, 3, 4, 4, generator=generator)
    aims = [(None, lambda s, y, d, c=c: (s - c).square().sum()) for c in corners]
    method, delta, y = SEP(surrogate="small-cnn"), torch.zeros_like(x), torch.zeros(2).long()
    form = shape(method, (3, 4, 4), run)
    found = _direction(method, aims, x, y, delta, form, run.rng("a"), run.rng("b"))
    middle, here, total = corners.mean(0), x.clone(), torch.zeros_like(x)
    for _ in aims:
        total += 2 * (here - middle)
        here = (here - total.sign() / 255).clamp(0.5 - 8 / 255, 0.5 + 8 / 255)
    assert torch.allclose(found, total, atol=1e-5)
    alone = _direction(method, aims[:1], x, y, delta, form, run.rng("a"), run.rng("b"))
    assert torch.allclose(alone, 2 * (x - corners[0]))


@pytest.mark.parametrize(("method", "expected"), [(SEP, ["flip-crop", "none"]), (TAP, ["flip-crop", "flip-crop"])])
def test_training_and_steps_have_their_own_augmentation(
    run: Run, monkeypatch: pytest.MonkeyPatch, method: type[Any], expected: list[str]
):
    """SEP trains with crops and flips, and moves deltas on plain pictures."""
    seen = []
    real = crafted.augmented
    for module in (crafted, surrogate_training):
        monkeypatch.setattr(
            module,
            "augmented",
            lambda how, x, g: seen.append((torch.is_grad_enabled() and x.requires_grad, how)) or real(how, x, g),
        )
    method(**FEW, **({"checkpoints": 2} if method is SEP else {}))(tiny(), Budget(8), run)
    assert [{how for steps, how in seen if steps == noise} for noise in (False, True)] == [{how} for how in expected]


def test_all_checkpoints_of_a_step_see_one_view(run: Run):
    seen = []
    aims = [(None, lambda s, y, d: seen.append(s.detach().clone()) or s.sum()) for _ in range(3)]
    method, x = SEP(surrogate="small-cnn", augment="flip-crop"), torch.rand(4, 3, 8, 8)
    generator, form, start = run.rng("a"), shape(method, (3, 8, 8), run), torch.zeros_like(x)
    for _ in range(2):
        _direction(method, aims, x, torch.zeros(4).long(), start, form, generator, run.rng("b"))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[6])


# --- the driver ---


@pytest.mark.parametrize("kind", [partial(SEP, checkpoints=2), partial(TAP)])
def test_resumed_it_ends_in_the_same_bytes(tmp_path: Path, run: Run, kind):
    data, method = tiny(per_class=6), kind(**FEW, noise_batch=7)
    whole = method(data, Budget(8), run).delta
    ticks = 2 * 3 + 3  # two epochs of three batches, three batches of deltas
    for stop in (0, 4, 6, 8):  # at the beginning, in the second epoch, before deltas, before the last of them
        with pytest.raises(KeyboardInterrupt):
            method(data, Budget(8), Stopping(tmp_path / str(stop), stop))
        assert torch.equal(method(data, Budget(8), Stopping(tmp_path / str(stop), ticks)).delta, whole)


def test_nothing_is_done_twice(tmp_path: Path):
    data, method = tiny(per_class=6), TAP(**FEW, noise_batch=7)
    for stop, left in ((3, 6), (7, 3), (10**6, 3)):  # an epoch; training and one batch; everything
        run = Stopping(tmp_path / str(stop), stop)
        with suppress(KeyboardInterrupt):
            method(data, Budget(8), run)
        again = Stopping(run.keep, 10**6)
        method(data, Budget(8), again)
        assert again.done == left  # batches of deltas that were kept tick, too


def test_what_was_kept_for_other_settings_is_ignored(keeping: Run, run: Run):
    method = TAP(**FEW)
    method(tiny(), Budget(8), keeping)
    for other, data, budget in (
        (replace(method, lr=0.05), tiny(), Budget(8)),
        (method, tiny(seed=5), Budget(8)),
        (method, tiny(), Budget(4)),
    ):
        assert torch.equal(other(data, budget, keeping).delta, other(data, budget, run).delta)


def test_an_adversary_changes_the_surrogate(run: Run):
    data = tiny(per_class=6)
    plain, hard = (HYPO(**FEW, adversary=radius)(data, Budget(8), run).delta for radius in (0.0, 8.0))
    assert not torch.equal(plain, hard)


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (TAP, {"epochs": 0}),
        (TAP, {"steps": 0}),
        (TAP, {"step_size": 0.0}),
        (TAP, {"lr": 0.0}),
        (HYPO, {"adversary": -1.0}),
        (SEP, {"checkpoints": 0}),
        (SEP, {"checkpoints": 121}),
        (PIL, {"share": 1.0}),
    ],
)
def test_refused(method: Any, wrong: dict[str, Any]):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
        method(**wrong)


def test_budgets_and_shapes():
    check_attack(EntF(**FEW | {"epochs": 1, "steps": 1}, adversary=0.0, how="pull"), Budget(200))
    for data in (tiny(1, 100), tiny(lone=True), tiny(channels=1, classes=2)):
        PIL(epochs=1, steps=2)(data, Budget(1), Run(seed=1, device_name="cpu"))


def test_defaults_are_the_papers():
    tap, hypo, entf, sep, pil = TAP(), HYPO(), EntF(), SEP(), PIL()
    assert all(m.surrogate == "resnet18" and (m.lr, m.momentum) == (0.1, 0.9) for m in (tap, hypo, entf, sep))
    assert (tap.epochs, tap.steps, tap.step_size, tap.start, tap.augment) == (40, 250, 0.4, "gaussian", "flip-crop")
    assert (hypo.epochs, hypo.adversary, hypo.steps, hypo.step_size) == (10, 2, 100, 0.8)
    assert (entf.epochs, entf.adversary, entf.steps, entf.step_size, entf.how) == (100, 4, 300, 0.4, "push")
    assert (sep.epochs, sep.checkpoints, sep.steps, sep.step_size, sep.facts.natural) == (120, 15, 30, 1, Budget(2))
    assert (sep.train_augment, sep.augment, tap.train_augment) == ("flip-crop", "none", "same")
    assert (pil.epochs, pil.batch, pil.lr, pil.weight_decay, pil.steps, pil.step_size) == (30, 512, 0.003, 0, 30, 0.8)
    assert (pil.share, pil.start, pil.augment) == (0.1, "uniform", "none")
    assert attack("entf:pull") == EntF(how="pull")
    for method in (tap, hypo, entf):
        assert method.facts.passes == method.epochs * (11 if method.adversary else 1) + method.steps
    assert sep.facts.passes == sep.epochs + sep.steps * 2 * sep.checkpoints
    assert pil.facts.passes == pil.epochs + 2 * pil.steps


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"noise_batch": 8}, {"noise_batch": 10, "class_gradient": 10.0}])
def test_two_processes_share_the_work(tmp_path: Path, more: dict[str, Any]):
    """Also where one has 10 pictures and the other 11, in batches of 5, and classes are summed over both."""
    data, run = tiny(per_class=7), Run(seed=1, device_name="cpu", keep=tmp_path / "kept")
    method = SEP(**FEW, **more, checkpoints=2)
    made = launch(partial(method, data, Budget(8)), run, 2)
    assert made.delta.shape == (21, 3, 8, 8) and all(row.any() for row in made.delta)
    assert torch.equal(launch(partial(method, data, Budget(8)), run, 2).delta, made.delta)


# --- grid and momentum ---

GRIDS = [
    TAP(**FEW, cells=4, noise_momentum=0.9),
    SEP(**FEW, checkpoints=2, cells=3, noise_momentum=0.5, class_gradient=10.0),
    PIL(epochs=2, steps=2, batch=8, cells=4, channels="luma", colour=3.0, balanced=True),
]


@pytest.mark.parametrize("method", GRIDS, ids=["tap", "sep", "pil"])
def test_a_coarse_grid_and_momentum_keep_the_contract(method: Crafted):
    check_attack(method)


def test_a_grid_is_stretched_to_the_picture(run: Run):
    data = tiny(per_class=4)
    delta = TAP(**FEW, cells=4)(data, Budget(8), run).delta
    assert delta.shape == (len(data), 3, 4, 4) and 0 < delta.abs().max() <= 8
    with pytest.raises(UserError, match="cells=9 is not between 0"):
        TAP(**FEW, cells=9)(data, Budget(8), run)
    for wrong in ({"cells": -1}, {"noise_momentum": 1.0}, {"noise_momentum": -0.1}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            TAP(**FEW | wrong)


def test_a_grid_descends_the_loss_through_the_stretched_change(keeping: Run):
    data, method = colours(), HYPO(**LEARNS | {"epochs": 3, "steps": 10}, cells=2)
    protected = method(data, Budget(8), keeping).apply(data)
    net = surrogate(method, data, keeping)
    before, after = (F.cross_entropy(net(floats(d)), data.labels).item() for d in (data, protected))
    assert after < 0.9 * before


@pytest.mark.parametrize(("mu", "steps"), [(0.9, -3), (0.0, -1)])
def test_momentum_keeps_the_earlier_directions(run: Run, monkeypatch: pytest.MonkeyPatch, mu: float, steps: int):
    """Gradients of +, + and -: v is 1, 1 + mu and mu (1 + mu) - 1, whatever their sizes."""
    gradients = iter([2.0, 0.5, -9.0] * 100)
    data = tiny(per_class=2)
    flat = data.with_images(torch.full_like(data.images, 128))
    monkeypatch.setattr(crafted, "_direction", lambda plan, aims, x, *_: torch.full_like(x, next(gradients)))
    method = TAP(**FEW | {"steps": 3, "step_size": 2.0}, start="zero", noise_momentum=mu)
    assert method(flat, Budget(8), run).delta.unique().tolist() == [2 * steps]


def test_every_attack_of_the_family_has_the_options_of_a_fair_comparison():
    """GUE makes its noise by a network, and PIL's surrogate is a linear network by its nature."""
    for name, method in KNOWN.items():
        options = {field.name for field in fields(method)}
        if issubclass(method, Shaped):
            assert options >= {"class_gradient", "noise_momentum", "cells", "channels"}, name
            assert "surrogate" in options or name == "pil", name
        else:
            assert method.facts.needs == "nothing" or name == "gue", name
