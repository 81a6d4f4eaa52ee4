"""The speed runs' network: whitened patches, norms without weights, any size of pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from easy import FAST, easy
from miue import attacks, nets
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.nets.speedrun import LEAST, Whitening
from miue.testing import check_net, tiny
from miue.training.batches import Batches, prepare
from miue.victims.fit import fit

NET = "speedrun:width=4"


@pytest.mark.parametrize("size", [8, 13, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_contract(size: int, channels: int):
    check_net(NET, (size,), channels)


def smooth(n: int, channels: int, size: int) -> torch.Tensor:
    """Pictures whose neighbouring pixels and channels are alike, as in photographs."""
    small = torch.rand(n, channels, size // 4, size // 4, generator=torch.Generator().manual_seed(3))
    x = F.interpolate(small, (size, size), mode="bilinear")
    return 0.7 * x + 0.3 * x.mean(1, keepdim=True)


def patches(layer: Whitening, x: torch.Tensor) -> torch.Tensor:
    """Whitened patches of pictures, one column each, without bias and GELU; the directions with a plus sign."""
    kept = F.conv2d(x.double(), layer.weight.double(), stride=layer.stride)
    return kept.transpose(0, 1).flatten(1)[: len(layer.weight) // 2]


@pytest.mark.parametrize(("channels", "size", "directions"), [(3, 16, 12), (1, 16, 4), (3, 64, 48), (1, 128, 48)])
def test_whitened_patches_have_the_identity_for_covariance(channels: int, size: int, directions: int):
    x = torch.rand(64, channels, size, size, generator=torch.Generator().manual_seed(3))
    layer = Whitening(channels, size)
    layer.prepare(4 * x)
    white = patches(layer, 4 * x)
    assert len(white) == directions
    assert torch.allclose(white.cov(correction=0), torch.eye(directions).double(), atol=0.02)
    assert torch.equal(layer.weight[:directions], -layer.weight[directions:])


def test_of_correlated_patches_directions_come_by_variance_and_empty_ones_stay_small():
    x = smooth(64, 3, 16)
    layer = Whitening(3, 16)
    layer.prepare(x)
    raw = F.unfold(x, 2).transpose(0, 1).flatten(1).double().cov(correction=0)
    spectrum = torch.linalg.eigvalsh(raw).flip(0)
    expected = torch.diag(spectrum / (spectrum + LEAST))  # an identity where there is content
    assert spectrum[0] > 30 * spectrum[-1] and expected[0, 0] > 0.99 > expected[-1, -1]
    assert torch.allclose(patches(layer, x).cov(correction=0), expected, atol=1e-4)
    grey = Whitening(3, 16)
    grey.prepare(torch.full((5, 3, 16, 16), 0.5))
    assert grey.weight.isfinite().all()


def test_grey_pictures_leave_no_constant_channel_and_their_gradients_stay_as_small_as_others():
    x, labels = smooth(64, 3, 16), torch.arange(64) % 10
    largest = []
    for pictures in (x, x.mean(1, keepdim=True).expand(-1, 3, -1, -1)):
        torch.manual_seed(0)
        net = nets.build(NET, (3, 16, 16), 10).train()
        net.trunk.whitened.prepare(pictures)
        white = patches(net.trunk.whitened, pictures)
        F.cross_entropy(net(pictures), labels).backward()
        largest.append(net.trunk.block1.conv1.weight.grad.flatten(1).norm(dim=1).max())
    assert torch.linalg.matrix_rank(white.cov(correction=0)) == 4 and white.var(1).min() > 0.1
    assert largest[1] < 10 * largest[0]  # without the replacement: a hundred thousand times


def test_chunks_of_pictures_add_up(monkeypatch: pytest.MonkeyPatch):
    x, whole, parts = smooth(10, 3, 16), Whitening(3, 16), Whitening(3, 16)
    whole.prepare(x)
    monkeypatch.setattr("miue.nets.speedrun.CHUNK", 3)
    parts.prepare(x)
    assert torch.allclose(whole.weight.abs(), parts.weight.abs(), rtol=1e-3, atol=1e-3)


def built(run: Run, data: ImageSet):
    with run.seeded("net"):
        return run.place(nets.build(NET, data.shape, len(data.classes)))


def test_pictures_are_shown_as_the_trunk_sees_them_the_same_to_all_processes(run: Run):
    data = tiny(per_class=20, size=16)
    first, second = built(run, data), built(run, data)
    before = first.trunk.whitened.weight.clone()
    prepare(first, Batches(data, run), run)
    prepare(second, Batches(data, run, rows=torch.arange(0, 60, 2)), run)  # half of the rows belong to this process
    assert not torch.equal(before, first.trunk.whitened.weight)
    assert torch.equal(first.trunk.whitened.weight, second.trunk.whitened.weight)
    expected = Whitening(3, 16)
    expected.prepare((data.images.float() / 255 - 0.5) * 4)
    assert torch.allclose(first.trunk.whitened.weight.abs(), expected.weight.abs(), atol=1e-2)


def test_few_pictures_are_enough_and_not_all_are_needed(run: Run, monkeypatch: pytest.MonkeyPatch):
    data, net = tiny(per_class=20, size=16), built(run, tiny(size=16))
    shown = []
    monkeypatch.setattr(type(net), "prepare", lambda self, x: shown.append(x))
    monkeypatch.setattr("miue.training.batches.SHOWN", 7 * 3 * 16 * 16 + 5)
    prepare(net, Batches(data, run), run)
    prepare(nets.build("small-cnn:width=4", data.shape, 3), Batches(data, run), run)
    assert [len(x) for x in shown] == [7] and shown[0].min() >= 0 and shown[0].max() <= 1


def test_a_victim_whitens_its_own_training_pictures(run: Run):
    data = easy(size=16)
    plan = replace(FAST, net=NET, epochs=1)
    net = fit(data, plan, run)
    expected = built(run, data)
    prepare(expected, Batches(data, run), run)
    weight = net.trunk.get_buffer("whitened.weight")
    assert torch.equal(weight, expected.trunk.whitened.weight)
    darker = fit(data.with_images(data.images // 2), plan, run)
    assert not torch.allclose(weight, darker.trunk.get_buffer("whitened.weight"), rtol=0.2)


def test_only_biases_of_norms_and_of_whitening_learn_beside_convolutions():
    net = nets.build(NET, (3, 32, 32), 10)
    names = {name.removeprefix("trunk.") for name, _ in net.named_parameters()}
    blocks = {
        f"block{i}.{part}{j}" for i in (1, 2, 3) for part, j in (("conv", 1), ("conv", 2), ("norm", 1), ("norm", 2))
    }
    expected = {f"{name}.weight" if "conv" in name else f"{name}.bias" for name in blocks}
    assert names == expected | {"whitened.bias", "head.weight"}


def test_inputs_pass_the_first_filters_unchanged():
    layer = nets.build(NET, (3, 32, 32), 10).trunk.get_submodule("block2.conv1")
    x = torch.rand(1, 4, 5, 5)
    assert torch.allclose(layer(x)[:, :4], x, atol=1e-6) and layer(x).shape == (1, 16, 5, 5)


@pytest.mark.parametrize(("size", "positions"), [(32, 31), (63, 62), (64, 31), (128, 31)])
def test_larger_pictures_are_seen_at_as_many_places(size: int, positions: int):
    net, shapes = nets.build(NET, (3, size, size), 10).eval(), []
    net.trunk.get_submodule("whitened").register_forward_hook(lambda m, i, output: shapes.append(output.shape[1:]))
    with torch.no_grad():
        net(torch.rand(1, 3, size, size))
    assert shapes == [(24 if size < 64 else 96, positions, positions)]


THEIRS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes, image_shape):
        super().__init__()
        self.register_buffer("mean", torch.zeros(image_shape))
        c, h, w = image_shape
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, 8), nn.ReLU())
        self.fc = nn.Linear(8, classes)

    def prepare(self, x):
        self.mean.copy_(x.mean(0))

    def forward(self, x):
        return self.fc(self.body(x - self.mean))
"""


def test_a_network_of_a_user_is_shown_pictures_as_they_are(run: Run, tmp_path: Path):
    (tmp_path / "theirs.py").write_text(THEIRS)
    data = easy(size=8)
    net = fit(data, replace(FAST, net=f"{tmp_path}/theirs.py:Net", epochs=1), run)
    assert torch.allclose(net.trunk.get_buffer("mean"), data.images.float().mean(0) / 255, atol=1e-5)


@pytest.mark.parametrize("attack", ["em:steps=1,epochs=1", "tap:steps=1,epochs=1", "gue:epochs=1,width=4"])
def test_surrogates_are_shown_pictures_too(run: Run, attack: str, monkeypatch: pytest.MonkeyPatch):
    shown = []
    monkeypatch.setattr(nets.Classifier, "prepare", lambda self, x: shown.append(len(x)))
    attacks.attack(f"{attack},surrogate={NET},batch=8")(tiny(per_class=4, size=16), Budget(8), run)
    assert shown == ([12, 12] if attack.startswith("gue") else [12])
