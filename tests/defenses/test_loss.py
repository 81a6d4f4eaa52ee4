"""What each defending loss does: adversarial steps stay in their ball, the worst view is the worst."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from easy import easy
from miue import nets
from miue.core.errors import UserError
from miue.core.run import Run
from miue.defenses import Adversarial, Staged, UEraser
from miue.defenses.loss import ueraser
from miue.defenses.loss.staged import stages
from miue.defenses.loss.ueraser import worst
from miue.training import perturb
from miue.training.loop import accuracy
from miue.victims.fit import fit
from miue.victims.recipe import Recipe


def some(classes: int = 3, size: int = 8) -> tuple[nets.Classifier, torch.Tensor, torch.Tensor]:
    run = Run(seed=1, device_name="cpu")
    with run.seeded("net"):
        net = run.place(nets.build("small-cnn:width=8", (3, size, size), classes)).train()
    x = torch.rand(12, 3, size, size, generator=run.rng("x"))
    x[0], x[1] = 0, 1  # nothing may leave [0,1] from its corners
    return net, x, F.one_hot(torch.arange(12) % classes, classes).float()


@settings(max_examples=15)
@given(eps=st.sampled_from([1, 2, 4, 8, 64]), steps=st.integers(1, 4), step=st.sampled_from([0.0, 0.5, 100.0]))
def test_adversarial_steps_stay_in_their_ball(eps: int, steps: int, step: float):
    net, x, y = some()
    made = Adversarial(eps=eps, steps=steps, step_size=step).attacked(net, x, y, torch.Generator().manual_seed(1))
    assert (made - x).abs().max() <= eps / 255 + 1e-6
    assert made.min() >= 0 and made.max() <= 1
    assert not made.requires_grad and net.training


def test_pictures_that_left_the_range_stay_in_their_ball():
    """As `op` leaves them: outside of [0,1] nothing is pulled back further than the radius."""
    net, x, y = some()
    x = 3 * x - 1
    made = Adversarial(eps=8, steps=3).attacked(net, x, y, torch.Generator().manual_seed(1))
    assert (made - x).abs().max() <= 8 / 255 + 1e-6 and (made - x).abs().amin((1, 2, 3)).max() >= 0
    inside = (x > 0) & (x < 1)
    assert made[inside].min() >= 0 and made[inside].max() <= 1
    assert made[x > 1].max() <= x.max() and made[x < 0].min() >= x.min()


def test_the_attack_starts_at_random_and_steps_a_quarter_of_its_radius():
    net, x, y = some()
    x = x * 0.5 + 0.25  # far from the borders
    still = perturb.adversarial(net, x, y, 8 / 255, 2 / 255, 0, torch.Generator().manual_seed(1))
    assert (still - x).std() == pytest.approx(8 / 255 / 3**0.5, rel=0.1)
    one = Adversarial(eps=8, steps=1).attacked(net, x, y, torch.Generator().manual_seed(1))
    moved = (one - still).abs()
    assert moved.max() == pytest.approx(2 / 255, abs=1e-6) and moved.median() == pytest.approx(2 / 255, abs=1e-6)


def test_a_view_of_ueraser_is_plasma_and_then_a_trivial_augmentation(monkeypatch: pytest.MonkeyPatch):
    """With p as it was given, each on what the other made."""
    seen = []

    def view(name):
        def change(self, x, y, generator):
            seen.append((name, getattr(self, "p", None)))
            return x / 2 + (0.25 if name == "trivial" else 0), y

        return change

    monkeypatch.setattr(ueraser.Plasma, "__call__", view("plasma"))
    monkeypatch.setattr(ueraser.TrivialAugment, "__call__", view("trivial"))
    net, (_, x, y) = Watching().train(), some()
    UEraser(mode="lite", p=0.3)(net, x, y, torch.Generator().manual_seed(1), 0.0)
    assert seen == [("plasma", 0.3), ("trivial", None)]
    assert torch.allclose(net.shown[-1], x / 4 + 0.25)


def test_the_jpeg_of_ueraser_comes_last_and_codes_every_view(monkeypatch: pytest.MonkeyPatch):
    """Not once and before, as a purifying JPEG does."""
    kinds = []

    def coded(pictures: torch.Tensor, channel: str) -> torch.Tensor:
        kinds.append((channel, float(pictures.float().mean())))
        return pictures // 2

    monkeypatch.setattr(ueraser, "recoded", coded)
    monkeypatch.setattr(ueraser.Plasma, "__call__", lambda self, x, y, generator: (0 * x + 0.5, y))
    monkeypatch.setattr(ueraser.TrivialAugment, "__call__", lambda self, x, y, generator: (x / 2, y))
    net, (_, x, y) = Watching().train(), some()
    UEraser(mode="max", views=3, jpeg=10)(net, x, y, torch.Generator().manual_seed(1), 0.0)
    assert kinds == [("jpeg:quality=10", pytest.approx(64, abs=1))] * 3
    assert torch.allclose(net.shown[-1], torch.full_like(x, 32 / 255), atol=1e-6)
    UEraser(mode="lite")(net, x, y, torch.Generator().manual_seed(1), 0.0)
    assert len(kinds) == 3
    with pytest.raises(UserError, match="jpeg=101 is not between"):
        UEraser(jpeg=101)


def test_adversarial_steps_raise_the_loss(run: Run):
    """More than a random start does, more with more steps, more in a larger ball; measured on a trained network."""
    data = easy()
    net = fit(data, Recipe(net="small-cnn:width=8", epochs=4, batch=16, augment=()), run)
    x, y = data.images.float() / 255, torch.eye(3)[data.labels]

    @torch.no_grad()
    def loss(at: torch.Tensor) -> float:
        return float(F.cross_entropy(net.eval()(at), y))

    def after(eps: int, steps: int) -> float:
        return loss(Adversarial(eps=eps, steps=steps).attacked(net, x, y, run.rng("pgd")))

    plain = loss(x)
    start = loss((x + (torch.rand(x.shape, generator=run.rng("pgd")) * 2 - 1) * 8 / 255).clamp(0, 1))
    assert after(8, 1) > max(start, plain) and after(8, 10) > after(8, 1)
    assert after(2, 10) < after(4, 10) < after(8, 10) and after(8, 10) > 1.5 * plain


class Watching(torch.nn.Module):
    """A linear network that remembers its mode and what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3 * 8 * 8, 3)
        self.modes, self.shown = [], []

    def forward(self, x):
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.shown.append(x.detach().clone())
        return self.linear(x.flatten(1))


def test_the_attack_sees_evaluation_mode_and_the_weights_learn_in_training_mode():
    _, x, y = some()
    net = Watching().train()
    value = Adversarial(steps=3)(net, x, y, torch.Generator().manual_seed(1), 0.0)
    assert [training for training, _ in net.modes] == [False] * 3 + [True]
    assert torch.allclose(value, F.cross_entropy(net.linear(net.shown[-1].flatten(1)), y))
    (gradient,) = torch.autograd.grad(value, [net.linear.weight])
    assert gradient.abs().sum() > 0 and net.linear.weight.grad is None


def test_the_worst_view_is_the_worst_of_each_picture():
    torch.manual_seed(0)
    _, x, y = some()
    net = Watching()
    views = [x, x.flip(-1), 1 - x, x * 0.1, x.roll(3, 2)]
    chosen = worst(net, views, y)
    losses = torch.stack([F.cross_entropy(net.linear(v.flatten(1)), y, reduction="none") for v in views])
    mine = F.cross_entropy(net.linear(chosen.flatten(1)), y, reduction="none")
    assert torch.allclose(mine, losses.max(0).values)
    assert len(set(losses.argmax(0).tolist())) > 1  # not one view for all
    for i, k in enumerate(losses.argmax(0).tolist()):
        assert torch.equal(chosen[i], views[k][i])


@pytest.mark.parametrize(
    ("mode", "done", "passes"),
    [("lite", 0.0, 1), ("max", 0.0, 6), ("max", 0.99, 6), ("standard", 0.29, 6), ("standard", 0.3, 1)],
)
def test_ueraser_looks_at_as_many_views_as_its_mode_says(mode, done: float, passes: int):
    """Five without gradients and the worst once more, or one."""
    _, x, y = some()
    net = Watching()
    value = UEraser(mode=mode)(net, x, y, torch.Generator().manual_seed(1), done)
    assert [gradients for _, gradients in net.modes] == [False] * (passes - 1) + [True]
    if passes > 1:
        views = [F.cross_entropy(net.linear(v.flatten(1)), y, reduction="none") for v in net.shown[:-1]]
        assert torch.allclose(value, torch.stack(views).max(0).values.mean(), atol=1e-5)
        assert value > max(v.mean().item() for v in views)


def test_a_victim_hears_how_much_of_its_training_is_done(run: Run):
    heard = []

    class Hearing:
        slot = "loss"

        def __call__(self, net, x, y, generator, done):
            heard.append(done)
            return F.cross_entropy(net(x), y)

    fit(easy(), Recipe(net="small-cnn:width=4", epochs=4, batch=36, augment=(), loss=Hearing()), run)
    assert heard == [0.0, 0.25, 0.5, 0.75]


# --- staged training ---


def gradients(value: torch.Tensor, net: torch.nn.Module) -> dict[str, torch.Tensor]:
    names, weights = zip(*net.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(value, weights), strict=True))


@pytest.mark.parametrize(
    ("done", "factors"),
    # small-cnn has three stages: with first=0.4 they stand still from 0.4, 0.6 and 0.8 of the training on
    [(0.0, (1, 1, 1)), (0.2, (0.5, 2 / 3, 0.75)), (0.4, (0, 1 / 3, 0.5)), (0.7, (0, 0, 0.125)), (0.9, (0, 0, 0))],
)
def test_shallow_layers_learn_less_and_then_nothing(done: float, factors: tuple[float, ...]):
    """The value is that of the plain loss; each stage has its share of the plain gradient, and the head all of it."""
    net, x, y = some()
    plain = F.cross_entropy(net(x), y)
    expected = gradients(plain, net)
    value = Staged(first=0.4, colour=False)(net, x, y, torch.Generator().manual_seed(1), done)
    assert torch.equal(value, plain)
    share = {"stem": factors[0], "down1": factors[1], "down2": factors[2]}
    for name, gradient in gradients(value, net).items():
        factor = share[name.split(".")[1]] if name.startswith("trunk.") else 1.0
        assert torch.allclose(gradient, factor * expected[name], rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize(("name", "size"), [("small-resnet:width=4", 16), ("resnet18", 32), ("small-vit", 32)])
def test_every_weight_of_a_trunk_has_a_stage_and_depth_never_falls(name: str, size: int, run: Run):
    net = nets.build(name, (3, size, size), 3)
    table = stages(net)
    assert set(table) == {n for n, _ in net.named_parameters() if n.startswith("trunk.")}
    assert list(table.values()) == sorted(table.values()) and len(set(table.values())) > 2


def test_batch_norm_goes_on_counting_where_layers_stand_still():
    net, x, y = some()
    before = {n: b.clone() for n, b in net.named_buffers()}
    Staged(colour=False)(net, x, y, torch.Generator().manual_seed(1), 0.99)
    assert all(not torch.equal(before[n], b) for n, b in net.named_buffers())


def test_staged_training_sees_other_colours_and_learns_the_easy_set(run: Run):
    net, x, y = some()
    values = [
        float(Staged(colour=colour)(net, x, y, torch.Generator().manual_seed(seed), 0.0).detach())
        for colour, seed in ((True, 1), (True, 2), (True, 1), (False, 1))
    ]
    assert values[0] == pytest.approx(values[2]) and len({round(v, 6) for v in values}) == 3
    data = easy(20)
    trained = fit(
        data, Recipe(net="small-cnn:width=8", epochs=10, batch=12, augment=(), loss=Staged(colour=False)), run
    )
    assert accuracy(trained, data, run) > 0.9


def test_a_stage_that_stands_still_keeps_its_weights(run: Run):
    """Without momentum and decay, the shallowest stage is the same after 5 of 10 epochs and after all."""
    kept = []

    class Watching(Staged):
        def __call__(self, net, x, y, generator, done):
            kept.append({n: p.detach().clone() for n, p in net.named_parameters()})
            return super().__call__(net, x, y, generator, done)

    plan = Recipe(net="small-cnn:width=4", epochs=10, batch=36, augment=(), momentum=0.0, weight_decay=0.0)
    net = fit(easy(), plan.defended(Watching(first=0.5, colour=False)), run)
    last = dict(net.named_parameters())
    for name in last:
        still = torch.equal(kept[5][name], last[name])
        assert still == name.startswith("trunk.stem."), name
