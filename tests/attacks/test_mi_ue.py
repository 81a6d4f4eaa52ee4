"""MI-UE's loss: golden numbers, properties, and equality with a plain transcription of the formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from miue import nets
from miue.attacks import MIUE, attack
from miue.attacks.mi_ue import distance_loss, similarity_loss
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget
from miue.testing import tiny
from miue.training import perturb

Z = torch.tensor([[1.0, 0, 2], [2, 1, 2], [0, 3, 1], [1, 1, 0]])
Y = torch.tensor([0, 0, 1, 1])


# --- the formulas, transcribed: one pair after the other, in float64 ---


def slow_similarity(z: Tensor, y: Tensor, tau: float) -> Tensor:
    """-(1/B) sum_i log( sum_{j: y_j = y_i} exp(cos_ij / tau) / sum_j exp(cos_ij / tau) )."""
    total = z.new_zeros(())
    for i in range(len(z)):
        own = whole = z.new_zeros(())
        for j in range(len(z)):
            cosine = (z[i] @ z[j]) / (z[i].norm() * z[j].norm()).clamp_min(1e-300)
            part = (cosine / tau).exp()
            whole = whole + part
            if y[i] == y[j]:
                own = own + part
        total = total - (own / whole).log()
    return total / len(z)


def slow_distance(z: Tensor, y: Tensor, per_dimension: bool) -> Tensor:
    """(1/B) sum_i log(1 + sum_{j: y_j = y_i} ||z_i - z_j||_2), the sum divided by d."""
    total = z.new_zeros(())
    for i in range(len(z)):
        inside = z.new_zeros(())
        for j in range(len(z)):
            if y[i] == y[j] and not torch.equal(z[i], z[j]):
                inside = inside + (z[i] - z[j]).norm()
        total = total + (1 + inside / (z.shape[1] if per_dimension else 1)).log()
    return total / len(z)


def with_gradient(loss, z: Tensor) -> tuple[Tensor, Tensor]:
    leaf = z.detach().clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def features(kind: str, batch: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random features: of any sign; after a ReLU; those with duplicates; and with a large common part."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, d, generator=generator, dtype=torch.float64)
    if kind != "signed":
        z = z.relu() + 0.01
    if kind == "duplicates":
        z = z[torch.randint(max(batch // 2, 1), (batch,), generator=generator)]
    if kind == "shared":
        z = 0.05 * z + torch.rand(d, generator=generator, dtype=torch.float64)
    return z.to(dtype)


# --- golden numbers ---


@pytest.mark.parametrize(
    ("tau", "mean", "anchors"),
    [(0.1, 0.0267461, [0.001365, 0.045172, 0.009212, 0.051236]), (0.5, 0.3587476, None)],
)
def test_similarity_of_four_vectors(tau: float, mean: float, anchors: list[float] | None):
    assert similarity_loss(Z, Y, tau).item() == pytest.approx(mean, abs=1e-6)
    if anchors:  # anchor i alone: everything else of its batch, weighted by what the mean leaves when it is taken out
        unit = torch.nn.functional.normalize(Z, dim=1)
        logits = unit @ unit.T / tau
        same = Y[:, None] == Y
        each = logits.logsumexp(1) - torch.where(same, logits, -torch.inf).logsumexp(1)
        assert each.tolist() == pytest.approx(anchors, abs=1e-6)
        assert similarity_loss(Z, Y, tau).item() == pytest.approx(sum(anchors) / 4, abs=1e-6)


def test_distance_of_four_vectors():
    assert distance_loss(Z, Y, True).item() == pytest.approx(0.4915635, abs=1e-6)
    assert distance_loss(Z, Y, False).item() == pytest.approx(1.0598000, abs=1e-6)
    for rows, expected in (([0, 1], 0.386217), ([2, 3], 0.596910)):  # the two anchors of a class are equal
        assert distance_loss(Z[rows], Y[rows], True).item() == pytest.approx(expected, abs=1e-6)


class Given(torch.nn.Module):
    """A network whose features are what it is given."""

    def embed(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def head(self, z: Tensor) -> Tensor:
        return z

    def stages(self, x: Tensor) -> list[Tensor]:
        return [self.embed(x)]


def test_the_whole_loss_of_four_vectors():
    x = Z[:, :, None, None]
    for per_dimension, expected in ((True, 0.0759025), (False, 0.0267461 + 0.1 * 1.0598)):
        method = MIUE(zeta=0.1, per_dimension=per_dimension)
        assert method.loss(Given(), x, Y).item() == pytest.approx(expected, abs=1e-6)  # pyright: ignore
    assert MIUE(zeta=0.0).loss(Given(), x, Y).item() == pytest.approx(0.0267461, abs=1e-6)  # pyright: ignore
    alone = MIUE(weight=0.0, zeta=0.1)  # the ablation without similarity
    assert alone.loss(Given(), x, Y).item() == pytest.approx(0.1 * 1.0598, abs=1e-6)  # pyright: ignore
    entropy = torch.nn.functional.cross_entropy(Z, Y).item()
    both = MIUE(zeta=0.0, error=0.5)
    assert both.loss(Given(), x, Y).item() == pytest.approx(0.0267461 + 0.5 * entropy, abs=1e-6)  # pyright: ignore


def test_a_loss_without_terms_is_refused():
    with pytest.raises(UserError, match=r"weight=0, zeta=0, error=0: .* not all 0"):
        attack("mi-ue:weight=0,zeta=0")
    with pytest.raises(UserError, match="weight=-1"):
        MIUE(weight=-1.0)


TABLE = [
    (500, 10, [0.020180, 1.187686, 2.195030, 2.290991]),
    (500, 100, [0.022220, 1.446390, 3.794652, 4.484476]),
    (100, 10, [0.004076, 0.452186, 1.870489, 2.246197]),
]


@pytest.mark.parametrize(
    ("batch", "classes", "cosine", "expected"),
    [(b, k, c, e) for b, k, row in TABLE for c, e in zip((0.0, 0.5, 0.8, 0.95), row, strict=True)],
)
def test_similarity_where_every_pair_has_one_cosine(batch: int, classes: int, cosine: float, expected: float):
    z = torch.cat([torch.full((batch, 1), math.sqrt(cosine)), math.sqrt(1 - cosine) * torch.eye(batch)], dim=1)
    y = torch.arange(batch) % classes
    assert similarity_loss(z, y, 0.1).item() == pytest.approx(expected, abs=2e-6)


def test_similarity_ends_at_the_log_of_the_number_of_classes():
    assert similarity_loss(torch.ones(100, 7), torch.arange(100) % 10, 0.1).item() == pytest.approx(math.log(10))


# --- equality with the transcription ---


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["signed", "relu", "duplicates", "shared"]),
    batch=st.integers(1, 9),
    d=st.integers(1, 9),
    classes=st.sampled_from([1, 2, 10, 100]),
    tau=st.sampled_from([0.1, 0.5, 1.0]),
    seed=st.integers(0, 999),
)
def test_loss_and_gradient_are_those_of_the_formula(kind, batch, d, classes, tau, seed):
    z = features(kind, batch, d, seed)
    y = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))  # most classes are absent
    for fast, slow in (
        (lambda v: similarity_loss(v, y, tau), lambda v: slow_similarity(v, y, tau)),
        (lambda v: distance_loss(v, y, True), lambda v: slow_distance(v, y, True) + 0 * v.sum()),
        (lambda v: distance_loss(v, y, False), lambda v: slow_distance(v, y, False) + 0 * v.sum()),
    ):
        value, gradient = with_gradient(fast, z)
        expected, right = with_gradient(slow, z)
        assert (value - expected).abs() <= 1e-5 * expected.abs() + 1e-12
        assert (gradient - right).norm() <= 1e-5 * right.norm() + 1e-12


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("kind", ["signed", "relu", "duplicates", "shared"])
def test_float32_features_give_the_same_to_five_digits(kind: str, classes: int):
    z = features(kind, 32, 64, seed=classes, dtype=torch.float32)
    y = torch.randint(classes, (32,), generator=torch.Generator().manual_seed(1))
    if kind == "duplicates":  # some of them in one class
        y[1::2] = y[::2]
        z[1:9:2] = z[:8:2]
    for name, fast, slow in (
        ("similarity", lambda v: similarity_loss(v, y, 0.1), lambda v: slow_similarity(v, y, 0.1)),
        ("distance", lambda v: distance_loss(v, y, False), lambda v: slow_distance(v, y, False)),
    ):
        value, gradient = with_gradient(fast, z)
        expected, right = with_gradient(slow, z.double())
        # a small loss is the difference of two logarithms of about 1 / tau = 10, whose last digit is worth 1e-6
        assert (value - expected).abs() <= 1e-5 * expected.abs() + 2e-7, name
        assert (gradient - right).norm() <= 1e-5 * right.norm(), name


# --- properties ---


@given(batch=st.integers(1, 20), classes=st.integers(1, 6), seed=st.integers(0, 999), tau=st.sampled_from([0.05, 0.5]))
def test_properties(batch: int, classes: int, seed: int, tau: float):
    generator = torch.Generator().manual_seed(seed)
    z = features("signed", batch, 5, seed)
    y = torch.randint(classes, (batch,), generator=generator)
    similarity = similarity_loss(z, y, tau)
    assert similarity >= -1e-12 and distance_loss(z, y, False) >= 0
    scale = torch.rand(batch, 1, generator=generator, dtype=torch.float64) * 9 + 0.1
    assert similarity_loss(z * scale, y, tau).item() == pytest.approx(similarity.item(), rel=1e-9, abs=1e-12)
    turned = torch.randperm(batch, generator=generator)
    assert similarity_loss(z[turned], y[turned], tau).item() == pytest.approx(similarity.item(), rel=1e-9, abs=1e-12)
    again = distance_loss(z[turned], y[turned], False).item()
    assert again == pytest.approx(distance_loss(z, y, False).item(), rel=1e-9)
    names = torch.randperm(100, generator=generator)[:classes]
    assert torch.equal(similarity_loss(z, names[y], tau), similarity)
    assert similarity_loss(z, torch.zeros_like(y), tau).abs() < 1e-9
    moved = distance_loss(z + 3, y, False).item()
    assert moved == pytest.approx(distance_loss(z, y, False).item(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_the_distance_is_zero_only_where_a_class_coincides_and_its_gradient_is_finite_there(dtype, size: float):
    y = torch.arange(12) % 3
    corners = size * torch.rand(3, 40, generator=torch.Generator().manual_seed(3)).to(dtype)
    value, gradient = with_gradient(lambda v: distance_loss(v, y, False), corners[y])
    assert value == 0 and gradient.isfinite().all() and gradient.abs().max() == 0
    apart = corners[y].clone()
    apart[0, 0] += 0.1
    value, gradient = with_gradient(lambda v: distance_loss(v, y, False), apart)
    assert value > 1e-3 and gradient.isfinite().all() and gradient[0, 0] > 0


def test_a_batch_of_one_and_zero_features():
    one = torch.tensor([[1.0, 2.0]]), torch.tensor([4])
    assert similarity_loss(*one, 0.1).item() == 0 == distance_loss(*one, False).item()
    value, gradient = with_gradient(lambda v: similarity_loss(v, Y, 0.1) + distance_loss(v, Y, True), torch.zeros(4, 3))
    assert value.isfinite() and gradient.isfinite().all()


def test_the_loss_of_a_protected_picture_falls_along_its_gradient():
    """On a real network: a step against the gradient of the pictures lowers the loss, a step along it raises it."""
    run = Run(seed=0, device_name="cpu")
    with run.seeded("net"):
        net = run.place(nets.build("small-cnn:width=4", (3, 8, 8), 3)).eval()
    data = tiny()
    x, method = data.images.float().div(255), MIUE()
    value, gradient = with_gradient(lambda v: method.loss(net, v, data.labels), x)
    step = 0.002 * gradient.sign()
    with torch.no_grad():
        down, up = (method.loss(net, x + s, data.labels) for s in (-step, step))
    assert down < value < up


# --- presets and schedules ---


def test_presets_are_what_they_say():
    paper, official = attack("mi-ue:paper"), attack("mi-ue:official")
    assert isinstance(paper, MIUE) and isinstance(official, MIUE)
    for method in (paper, official):
        assert (method.epochs, method.steps, method.step_size, method.batch, method.noise_batch) == (
            100,
            10,
            0.2,
            128,
            512,
        )
        assert (method.tau, method.lr, method.momentum, method.weight_decay) == (0.1, 0.1, 0.9, 1e-4)
        assert method.surrogate == "resnet18" and method.cells == 0 and method.per == "image"
    assert paper.zeta == 0.1 and not paper.per_dimension and paper.step_size_end in (0.0, 0.2)
    assert official.zeta == 0 and official.per_dimension and official.augment == "flip-first"


@pytest.mark.parametrize(
    ("preset", "grows"), [("official", True), pytest.param("paper", False, marks=pytest.mark.slow)]
)
def test_steps_and_rates_over_a_hundred_epochs(preset: str, grows: bool, monkeypatch: pytest.MonkeyPatch):
    steps, rates = [], []
    real_step, real_descent = torch.optim.SGD.step, perturb.signed_step

    def sgd_step(self, *args):
        rates.append(self.param_groups[0]["lr"])
        return real_step(self, *args)

    def signed_step(delta, gradient, step, budget, share):
        steps.append(step * 255)
        return real_descent(delta, gradient, step, budget, share)

    monkeypatch.setattr(torch.optim.SGD, "step", sgd_step)
    monkeypatch.setattr("miue.training.perturb.signed_step", signed_step)
    method = attack(f"mi-ue:{preset},surrogate=small-cnn:width=2,steps=1")
    method(tiny(per_class=1, classes=2), Budget(8), Run(seed=0, device_name="cpu"))
    assert len(steps) == len(rates) == 100
    if grows:
        for epoch, expected in ((1, 0.200), (2, 0.202), (50, 0.298), (99, 0.396), (100, 0.398)):
            assert steps[epoch - 1] == pytest.approx(expected, abs=1e-9)
    else:
        assert steps == pytest.approx([0.2] * 100)
    for index, expected in ((0, 0.1), (1, 0.0999753), (50, 0.0500005), (99, 2.567e-5)):
        assert rates[index] == pytest.approx(expected, rel=1e-4)
