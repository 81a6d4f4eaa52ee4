"""GUE: its two formulas, the direction of a step, the generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from probes import Stopping
from safetensors.torch import save

from miue.attacks import GUE, attack
from miue.attacks.gue import UNet, _Game, farthest, multiplier
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.nets import counted
from miue.testing import tiny

TINY: dict[str, Any] = {"surrogate": "small-cnn:width=4", "epochs": 2, "batch": 9, "inner_steps": 2, "width": 4}


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_leader_looks_at_the_farthest_wrong_class(classes: int):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(6, classes, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (6,), generator=generator)
    plain = [
        max(-row.log_softmax(0)[k].item() for k in range(classes) if k != own)
        for row, own in zip(logits, y, strict=True)
    ]
    leaf = logits.clone().requires_grad_()
    value = farthest(leaf, y)
    assert value.item() == pytest.approx(sum(plain) / 6)
    assert torch.autograd.grad(value, leaf)[0].isfinite().all()


@pytest.mark.parametrize(
    ("f", "expected"), [([1.0, 0.0], 0.5), ([-1.0, 0.0], 2.5), ([2.0, 5.0], 0.0), ([0.0, 9.0], 1.5)]
)
def test_the_multiplier(f: list[float], expected: float):
    """(eta |q|^2 - <f, q>) / |q|^2 for q = (1, 0), never negative."""
    parts = [[torch.tensor(v[:1]), torch.tensor(v[1:])] for v in (f, [1.0, 0.0])]
    assert multiplier(parts[0], parts[1], 1.5).item() == pytest.approx(expected, abs=1e-6)
    assert multiplier(parts[0], [torch.zeros(1), torch.zeros(1)], 1.5) == 0


def test_a_step_goes_in_the_direction_of_the_game(run: Run):
    """grad f + lambda grad q for theta, 10 lambda grad q for the generator, with theta* after two steps of Adam."""
    data, plan = tiny(per_class=3), GUE(**TINY)
    data.images.clamp_(60, 190)  # no picture is clamped
    game = _Game(plan, data, Budget(8), run)
    game.players.train()
    x, y = data.images.float().div(255), data.labels
    before = {k: v.clone() for k, v in game.players.state_dict().items()}
    direction = torch.autograd.grad(game.value((torch.arange(9), x, y)), list(game.players.parameters()))
    follower = {k: v.clone() for k, v in game.ahead.state_dict().items()}
    assert any(not torch.equal(v, before[f"net.{k}"]) for k, v in follower.items() if "weight" in k)
    game.players.load_state_dict(before)
    theta, a = list(game.net.parameters()), list(game.generator.parameters())
    seen = (x + 8 / 255 * torch.tanh(game.generator(x))).clamp(0, 1)
    g, best = F.cross_entropy(game.net(seen), y), F.cross_entropy(game.ahead(seen), y)
    assert best < g  # two steps ahead on this batch
    q = torch.autograd.grad(g - best, [*theta, *a])
    f = torch.autograd.grad(farthest(game.net(x), y), theta)
    flat_q, flat_f = torch.cat([v.flatten() for v in q]), torch.cat([v.flatten() for v in f])
    push = max(0.0, float((1.5 * flat_q @ flat_q - flat_f @ flat_q[: len(flat_f)]) / (flat_q @ flat_q + 1e-8)))
    assert push > 0
    expected = [*(u + push * v for u, v in zip(f, q, strict=False)), *(10 * push * v for v in q[len(theta) :])]
    for found, right in zip(direction, expected, strict=True):
        assert (found - right).norm() <= 1e-3 * right.norm() + 1e-6


def test_the_generator_is_kept_and_protects_in_one_pass(keeping: Run):
    data = tiny(per_class=6)
    made = GUE(**TINY)(data, Budget(8), keeping)
    kept = keeping.load("generator")
    assert kept and made.delta.any()
    generator = keeping.place(UNet(3, 4))
    generator.load_state_dict(kept[0])
    x = data.images.float().div(255)
    with torch.no_grad():
        delta = 8 / 255 * torch.tanh(generator.eval()(x))
    protected = ((x + delta).clamp(0, 1) * 255).round()
    assert (protected - made.apply(data).images).abs().max() <= 1  # batches of another size may round otherwise
    assert (protected == made.apply(data).images).float().mean() > 0.99


def test_a_kept_generator_protects_pictures_that_it_has_not_seen(keeping: Run, run: Run):
    """Of another size and other classes, too; without a step of training."""
    data = tiny(per_class=6)
    made = GUE(**TINY)(data, Budget(8), keeping)
    assert keeping.keep is not None
    again = attack(f"gue:generator={keeping.keep / 'generator.safetensors'},batch=9")
    with counted() as passes:
        assert torch.equal(again(data, Budget(8), run).delta, made.delta)
        new = tiny(3, classes=1, size=13, seed=5)
        delta = again(new, Budget(4), run).delta
    assert passes.count == 0 and delta.shape == (3, 3, 13, 13) and delta.any() and delta.abs().max() <= 4
    with pytest.raises(UserError, match="generator for pictures of 3 channels; these have 1"):
        again(tiny(channels=1), Budget(8), run)


PART = save({"last.0.weight": torch.zeros(3, 4, 1, 1)})
NAN = save(
    {name: value * torch.nan if value.is_floating_point() else value for name, value in UNet(3, 4).state_dict().items()}
)


def test_a_file_that_is_no_generator(tmp_path: Path, run: Run):
    with pytest.raises(UserError, match="'none' is no file; give generator=PATH"):
        GUE(generator="none")
    for name, content in (
        ("text", b"no tensors"),
        ("other", save({"x": torch.zeros(2)})),
        ("part", PART),
        ("nan", NAN),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} holds no generator of GUE"):
            GUE(generator=str(tmp_path / name))(tiny(), Budget(8), run)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 13, 13), (3, 9, 16)])
def test_the_generator_takes_any_size(run: Run, shape: tuple[int, int, int]):
    with run.seeded("generator"):
        generator = run.place(UNet(shape[0], 4))
    out = generator(torch.rand(2, *shape, generator=run.rng("x")))
    assert out.shape == (2, *shape) and out.dtype == torch.float32


def test_no_colour_is_common_to_all_pictures(run: Run):
    """The last batch norm, without which a constant takes a part of the budget."""
    with run.seeded("generator"):
        generator = run.place(UNet(3, 8))
    out = generator.train()(torch.rand(16, 3, 8, 8, generator=run.rng("x")))
    assert out.mean((0, 2, 3)).abs().max() < 1e-3 and torch.allclose(out.std((0, 2, 3)), torch.ones(3), atol=0.01)


def test_resumed_it_ends_in_the_same_bytes(tmp_path: Path, run: Run):
    data, method = tiny(per_class=6), GUE(**TINY)
    whole = method(data, Budget(8), run).delta
    for stop in (1, 3):  # of four batches
        with pytest.raises(KeyboardInterrupt):
            method(data, Budget(8), Stopping(tmp_path / str(stop), stop))
        last = Stopping(tmp_path / str(stop), 99)
        assert torch.equal(method(data, Budget(8), last).delta, whole)
        assert last.first == stop // 2 * 2


def test_refused(run: Run):
    wrongs: list[dict[str, Any]] = [{"epochs": 0}, {"batch": 1}, {"inner_steps": 0}, {"width": 0}, {"lr": 0.0}]
    for wrong in (*wrongs, {"generator_lr": 0.0}, {"inner_lr": 0.0}, {"eta": 0.0}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
            GUE(**wrong)
    one = ImageSet(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.long), ("a",), "one")
    with pytest.raises(UserError, match="at least two classes"):
        GUE(**TINY)(one, Budget(8), run)


def test_defaults_are_the_papers():
    gue = GUE()
    assert (gue.surrogate, gue.epochs, gue.batch, gue.lr, gue.generator_lr) == ("resnet18", 50, 256, 0.01, 0.1)
    assert (gue.inner_steps, gue.inner_lr, gue.eta) == (10, 1e-4, 1.5)
    assert gue.facts.passes == gue.epochs * (gue.inner_steps + 3)
