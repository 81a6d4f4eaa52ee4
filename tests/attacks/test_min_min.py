"""EM, REM, SEM, AUE, TUE: their losses, and what the driver does for them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from probes import TINY, Stopping, Watching
from torch import Tensor

from miue import nets
from miue.attacks import AUE, EM, REM, TUE, attack
from miue.attacks.tue import separability_loss
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget
from miue.testing import check_attack, tiny
from miue.training.contrastive import contrast_loss

CHEAP: dict[str, Any] = TINY | {"epochs": 1, "steps": 1}


def still(net, x: Tensor, y: Tensor) -> Tensor:
    return 0 * x.sum()


@dataclass(frozen=True, kw_only=True)
class Told(EM):
    """EM that remembers its losses."""

    values: list[float] = field(default_factory=list, repr=False, hash=False, compare=False)

    def loss(self, net, x, y):
        value = super().loss(net, x, y)
        self.values.append(value.item())
        return value


# --- what the driver does ---


def test_a_start_inside_the_ball_once_or_in_every_epoch(run: Run):
    data = tiny(per_class=6)
    data.images.clamp_(60, 190)

    def begun(start: str, epochs: int) -> Tensor:
        method = Watching(**CHEAP | {"epochs": epochs}, start=start, pull=still)  # pyright: ignore
        return method(data, Budget(8), run).delta

    once = begun("uniform", 1)
    assert set(once.unique().tolist()) == set(range(-8, 9))
    assert torch.equal(begun("uniform", 3), once)
    assert not torch.equal(begun("anew", 2), begun("anew", 3)) and not begun("zero", 2).any()


def test_views_are_drawn_apart_and_count_together(run: Run):
    data = tiny(per_class=6)
    method = Watching(**CHEAP | {"step_size": 2.0}, views=4, augment="flip", pull=lambda net, x, y: x[..., :4].sum())
    delta = method(data, Budget(8), run).delta
    assert len(method.seen) == 4 and len({s["x"].numpy().tobytes() for s in method.seen}) == 4
    # the left half is pushed down in unmirrored views, the right half in mirrored ones: the more of them, the sign
    assert set(delta.unique().tolist()) <= {-2, -1, 0} and (delta == -2).any()


@pytest.mark.parametrize(("given_steps", "taken"), [(None, 6), (2, 2), (0, 0), (99, 6)])
def test_batches_of_the_surrogate_in_an_epoch(run: Run, monkeypatch: pytest.MonkeyPatch, given_steps, taken: int):
    steps = []
    real = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, *a: steps.append(1) or real(self, *a))
    Watching(**TINY, batch=4, surrogate_steps=given_steps, pull=still)(tiny(per_class=8), Budget(8), run)
    assert len(steps) == 2 * taken


def test_rounds_end_once_the_surrogate_knows_the_protected_pictures(tmp_path, run: Run):
    data, budget = tiny(per_class=6), Budget(32)
    settings = TINY | {"epochs": 60, "steps": 4, "step_size": 8.0, "lr": 0.05}
    whole = Told(**settings, batch=6, stop=1.0, surrogate_steps=None)
    made = whole(data, budget, run)
    rounds = len(whole.values) // 4
    assert 1 < rounds < 60
    shorter = Told(**settings | {"epochs": 60}, batch=6, stop=1.0, surrogate_steps=None)
    keep = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        shorter(data, budget, Stopping(keep, 4 * (rounds - 1) + 1))  # in the last round: 3 batches of theta, 1 of delta
    for _ in range(2):  # goes on, and then knows that it is finished
        assert torch.equal(shorter(data, budget, Stopping(keep, 10**6)).delta, made.delta)
    assert len(shorter.values) == 4 * rounds


@pytest.mark.parametrize("wrong", [{"views": 0}, {"stop": 1.5}, {"stop": -0.1}, {"surrogate_steps": -1}])
def test_settings_that_would_do_nothing_are_refused(wrong: dict[str, float]):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
        EM(**TINY | wrong)


# --- EM ---


def test_em_drives_the_loss_of_its_surrogate_down(run: Run):
    method = Told(**TINY | {"epochs": 8, "steps": 6, "step_size": 2.0, "lr": 0.05}, stop=0.0, batch=6)
    method(tiny(per_class=6), Budget(16), run)
    for epoch in range(8):
        values = method.values[6 * epoch : 6 * epoch + 6]
        assert values[-1] < values[0]
    assert method.values[-1] < 0.3 * method.values[0]


def test_class_wise_em_steps_against_the_sum_over_a_class(run: Run):
    """One round, one step: every class's delta is a step against the sign of its pictures' summed gradients."""
    data = tiny(per_class=6)
    data.images.clamp_(60, 190)
    method = EM(**CHEAP | {"step_size": 3.0}, per="class", augment="none", surrogate_steps=0, noise_batch=18)
    made = method(data, Budget(8), run)
    with run.seeded("surrogate"):
        net = run.place(nets.build(method.surrogate, data.shape, 3)).eval()
    x = data.images.float().div(255).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), data.labels), x)
    assert made.labels is not None and torch.equal(made.labels, data.labels) and len(made.delta) == 3
    for k in range(3):
        summed = gradient[data.labels == k].sum(0)
        sure = summed.abs() > 1e-3 * summed.abs().max()  # elsewhere the order of a sum decides
        assert sure.float().mean() > 0.9
        assert torch.equal(made.delta[k][sure].float(), -3 * summed.sign()[sure])


def test_the_loss_of_em_is_the_cross_entropy(run: Run):
    data = tiny(per_class=4)
    x = data.images.float().div(255)
    with run.seeded("net"):
        net = run.place(nets.build("small-cnn:width=4", (3, 8, 8), 3)).eval()
    logits = net(x).detach().double()
    plain = sum(-(row[k] - row.exp().sum().log()) for row, k in zip(logits, data.labels, strict=True)) / len(x)
    assert EM().loss(net, x, data.labels).item() == pytest.approx(float(plain), rel=1e-5)


def test_noise_of_both_signs_is_kept(run: Run):
    delta = EM(**TINY, stop=0.0)(tiny(per_class=6), Budget(8), run).delta
    assert 0.3 < (delta > 0).float().mean() < 0.7 and 0.3 < (delta < 0).float().mean() < 0.7


# --- REM and SEM ---


def test_the_adversary_of_rem_makes_its_loss_larger(run: Run):
    data = tiny(per_class=4)
    x = data.images.float().div(255)
    with run.seeded("net"):
        net = run.place(nets.build("small-cnn:width=4", (3, 8, 8), 3)).eval()

    def value(inner: str) -> float:
        method = REM(inner=inner)  # pyright: ignore
        return method.move(net, x, data.labels, torch.zeros_like(x), run.rng("adversary")).item()

    assert value("none") == pytest.approx(F.cross_entropy(net(x), data.labels).item())
    assert value("pgd") > value("none") and value("pgd") - value("none") > 2 * abs(value("uniform") - value("none"))
    net.train()
    robust = REM(inner="uniform").learn(net, x, data.labels, run.rng("adversary")).item()
    net.train()
    plain = REM(inner="none").learn(net, x, data.labels, run.rng("adversary")).item()
    assert net.training and robust > plain  # SEM's surrogate is trained against PGD, too


def test_sem_is_rem_with_uniform_noise(run: Run):
    assert attack("rem:sem") == REM(inner="uniform") and attack("rem:sem,quick") != attack("rem:quick")
    data = tiny()

    def made(**options: Any) -> Tensor:
        return REM(**CHEAP | {"views": 2, "inner_steps": 2} | options)(data, Budget(8), run).delta

    assert not torch.equal(made(inner="uniform"), made()) and not torch.equal(made(radius=1.0), made())
    assert torch.equal(made(inner="none", radius=1.0), made(inner="none", radius=8.0))


# --- TUE ---


def slow_separability(delta: Tensor, y: Tensor) -> Tensor:
    """Mean over pairs of classes of (s_i + s_j + 1e-5) / (||mu_i - mu_j|| + 1e-5)."""
    classes = sorted(set(y.tolist()))
    mu = {k: delta[y == k].mean(0) for k in classes}
    spread = {k: sum((row - mu[k]).norm() for row in delta[y == k]) / int((y == k).sum()) for k in classes}
    pairs = [(i, j) for i in classes for j in classes if i != j]
    total = sum((spread[i] + spread[j] + 1e-5) / ((mu[i] - mu[j]).norm() + 1e-5) for i, j in pairs)
    return total / len(pairs)  # pyright: ignore


def slow_contrast(z: Tensor, tau: float) -> Tensor:
    """-mean_i log( exp(cos(z_i, z_i') / tau) / sum over j != i of exp(cos(z_i, z_j) / tau) ), i' = i + b mod 2 b."""
    n, total = len(z), z.new_zeros(())
    for i in range(n):
        parts = {j: (F.cosine_similarity(z[i], z[j], 0) / tau).exp() for j in range(n) if j != i}
        total = total - (parts[(i + n // 2) % n] / sum(parts.values())).log()
    return total / n


@given(classes=st.integers(2, 9), batch=st.integers(9, 20), d=st.integers(1, 6), seed=st.integers(0, 999))
def test_losses_and_gradients_are_those_of_the_formulas(classes: int, batch: int, d: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(classes), torch.randint(classes, (batch - classes,), generator=generator)]) * 7
    rows = torch.randn(batch // 2 * 2, d + 1, generator=generator, dtype=torch.float64)
    y = y[: len(rows)]
    if len(y.unique()) == 1:
        return
    for fast, slow in (
        (lambda v: separability_loss(v, y), lambda v: slow_separability(v, y)),
        (lambda v: contrast_loss(v, 0.5), lambda v: slow_contrast(v, 0.5)),
    ):
        a, b = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        left, right = fast(a), slow(b)
        assert left.item() == pytest.approx(right.item(), rel=1e-9)
        (left_gradient,), (right_gradient,) = torch.autograd.grad(left, a), torch.autograd.grad(right, b)
        lone = torch.tensor([int((y == k).sum()) == 1 for k in y])  # norm() has no gradient at their distance of 0
        if fast(rows) == separability_loss(rows, y):
            left_gradient, right_gradient = left_gradient[~lone], right_gradient[~lone]
        assert torch.allclose(left_gradient, right_gradient.nan_to_num(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("classes", [1, 2, 100])
def test_separability_is_finite_where_deltas_coincide(classes: int):
    y = torch.arange(2 * classes) % classes
    for delta in (torch.zeros(2 * classes, 5), torch.eye(2 * classes, 5)):
        leaf = delta.requires_grad_()
        value = separability_loss(leaf, y)
        (gradient,) = torch.autograd.grad(value, leaf)
        assert value.isfinite() and gradient.isfinite().all()
        assert classes > 1 or (value == 0 and not gradient.any())


def test_tue_needs_no_network_and_separates_classes(run: Run):
    data = tiny(per_class=8)
    method = TUE(**TINY | {"epochs": 10, "steps": 4, "surrogate": "small-cnn:width=4"})
    made = method(data, Budget(8), run)
    other = replace(method, surrogate="small-cnn:width=2")(data, Budget(8), run)
    assert torch.equal(made.delta, other.delta)
    flat = made.delta.flatten(1).float()
    middle = torch.stack([flat[data.labels == k].mean(0) for k in range(3)])
    assert (torch.cdist(flat, middle).argmin(1) == data.labels).all()
    assert separability_loss(flat / 255, data.labels) < 1 < separability_loss(torch.randn(flat.shape), data.labels)


def test_the_contrastive_part_of_tue():
    check_attack(TUE(**CHEAP, ssl=1.0, csd=1.0, surrogate_steps=1))
    assert attack("tue:contrastive") == TUE(
        epochs=200, steps=5, lr=0.3, surrogate_steps=None, start="zero", csd=1.0, ssl=1.0, tau=0.2
    )


# --- settings ---


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (AUE, {"strength": 0.0}),
        (AUE, {"strength": 1.1}),
        (REM, {"radius": 0.0}),
        (REM, {"inner_steps": 0}),
        (TUE, {"csd": 0.0}),
        (TUE, {"csd": -1.0}),
        (TUE, {"tau": 0.0}),
        (TUE, {"ssl": 1.0}),
        (TUE, {"surrogate_steps": 5}),
        (TUE, {"start": "zero"}),
    ],
)
def test_refused(method: Any, wrong: dict[str, Any]):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
        method(**wrong)


@pytest.mark.parametrize("text", ["em:class", "aue:per=class,cells=4", "rem:sem,per=class", "tue:per=class"])
def test_one_row_a_class(text: str, run: Run):
    made = replace(attack(text), **CHEAP | ({"views": 2, "inner_steps": 2} if "rem" in text else {}))  # pyright: ignore
    for data in (tiny(per_class=5), tiny(channels=1, classes=2), tiny(1, 100), tiny(lone=True)):
        delta = made(data, Budget(8), run)
        assert len(delta.delta) == len(data.classes) and delta.labels is not None
        assert Budget(8).allows(delta.apply(data).images.to(torch.int16) - data.images)


def test_defaults_are_the_papers():
    em, rem, aue, tue = EM(), REM(), AUE(), TUE()
    assert all(m.surrogate == "resnet18" and (m.lr, m.momentum) == (0.1, 0.9) for m in (em, rem, aue, tue))
    assert (em.surrogate_steps, em.steps, em.step_size, em.stop, em.start, em.augment) == (
        10,
        20,
        0.8,
        0.99,
        "zero",
        "none",
    )
    assert (rem.steps, rem.step_size, rem.views, rem.radius, rem.inner_steps, rem.start) == (10, 1.6, 5, 4, 10, "anew")
    assert (aue.epochs, aue.steps, aue.step_size, aue.strength, aue.weight_decay) == (60, 5, 0.8, 0.6, 1e-4)
    assert (tue.epochs, tue.steps, tue.step_size, tue.csd, tue.ssl) == (40, 20, 0.8, 0.1, 0)
    assert AUE.facts.passes == aue.epochs * (1 + aue.steps)
    assert REM.facts.passes == rem.epochs * ((rem.steps * rem.views + 1) * (rem.inner_steps + 1))
    assert em.weight_decay == rem.weight_decay == 5e-4
