"""Networks by name: the contract, stems, depth, refusals."""

from __future__ import annotations

import re

import pytest
import torch

from miue import nets
from miue.run import Run
from miue.testing import check_net
from miue.types import Net, UserError


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("name", ["resnet18", "vit-tiny"])
def test_the_contract_of_usual_ones(name: str, channels: int):
    check_net(name, 32, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["small-cnn", "small-cnn:width=4", "small-resnet"])
def test_the_contract(name: str, channels: int):
    check_net(name, 32, channels)


@pytest.mark.parametrize(("name", "size"), [("small-cnn", 8), ("small-resnet", 13), ("vit-tiny", 28), ("vit-tiny", 8)])
def test_the_contract_at_other_sizes(name: str, size: int):
    check_net(name, size, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("resnet50", 32), ("resnet18", 96), ("vit-small", 64), ("mobilenetv3_small_050", 64)]
)
def test_the_contract_of_larger_ones(name: str, size: int):
    check_net(name, size, 3)


@pytest.mark.parametrize(("size", "positions"), [(32, 32), (63, 63), (64, 16)])
def test_residual_networks_see_small_pictures_at_full_size(size: int, positions: int):
    net = nets.build("resnet18", (3, size, size), 10)
    shapes = []
    layer = net.get_submodule("trunk.model.layer1")
    layer.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[-2:]))
    with torch.no_grad():
        net.eval()(torch.rand(1, 3, size, size))
    assert shapes == [(positions, positions)]


def test_features_by_depth_are_vectors_of_their_own_width():
    for name in ("small-cnn:width=4", "small-resnet:width=4"):
        net = nets.build(name, (3, 16, 16), 5).eval()
        x = torch.rand(2, 3, 16, 16)
        widths = [s.shape[1] for s in net.stages(x)]
        assert len(widths) > 3 and widths[0] == 4 and widths == sorted(widths) and widths[-1] == net.embed(x).shape[1]
        assert isinstance(net, Net)
        assert not any(module._forward_hooks for module in net.modules())  # asking for features leaves nothing behind


def test_normalisation_happens_inside():
    """A grey picture, 0.5, is the zero of the trunk: without a bias every feature is what zeros give."""
    net = nets.build("small-cnn:width=4", (3, 8, 8), 5).eval()
    grey = net.embed(torch.full((1, 3, 8, 8), 0.5))
    assert torch.equal(grey, net.trunk(torch.zeros(1, 3, 8, 8)))
    assert not torch.equal(net.embed(torch.zeros(1, 3, 8, 8)), grey)


def test_features_are_float32_whatever_the_precision(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    net = Run(device_name="cpu").place(nets.build("small-cnn:width=4", (3, 8, 8), 5)).eval()
    x = torch.rand(2, 3, 8, 8, generator=run.rng("x"))
    assert net.embed(x).dtype == net(x).dtype == torch.float32
    plain = run.place(nets.build("small-cnn:width=4", (3, 8, 8), 5)).eval()
    plain.load_state_dict(net.state_dict())
    plain.autocast = lambda: torch.autocast("cpu", enabled=False)
    assert not torch.equal(net.embed(x), plain.embed(x))
    assert torch.allclose(net.embed(x), plain.embed(x), atol=0.05)


def test_width_scales_the_network():
    count = {
        w: sum(p.numel() for p in nets.build(f"small-resnet:width={w}", (3, 8, 8), 5).parameters()) for w in (4, 8)
    }
    assert 3 < count[8] / count[4] < 5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet1", "net 'resnet1' is unknown; allowed: small-cnn, small-resnet, resnet18, resnet50, vit-tiny"),
        ("", "is unknown; allowed"),
        ("small-cnn:width=x", "the one option is width=<whole number>"),
        ("small-cnn:depth=3", "the one option is width=<whole number>"),
    ],
)
def test_refusals(name: str, told: str):
    with pytest.raises(UserError, match=re.escape(told)):
        nets.build(name, (3, 32, 32), 10)


def test_known_names_can_be_built():
    for name in nets.known():
        if name not in ("resnet50", "vit-small"):  # slow to fill with random weights; in the slow contract
            assert nets.build(name, (3, 32, 32), 2).head.out_features == 2
