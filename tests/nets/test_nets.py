"""Networks by name: the contract, stems, depth, refusals."""

from __future__ import annotations

import re

import pytest
import torch

from miue import nets
from miue.core.errors import UserError
from miue.core.run import Run
from miue.nets.base import Net
from miue.testing import check_net


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("name", ["resnet18", "vit-tiny"])
def test_the_contract_of_usual_ones(name: str, channels: int):
    check_net(name, (32,), channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["small-cnn", "small-cnn:width=4", "small-resnet"])
def test_the_contract(name: str, channels: int):
    check_net(name, (32,), channels)


@pytest.mark.parametrize(
    ("name", "size"),
    [("small-cnn", 8), ("small-resnet", 13), ("vit-tiny", 28), ("vit-tiny", 8), ("small-vit:width=32,depth=2", 16)],
)
def test_the_contract_at_other_sizes(name: str, size: int):
    check_net(name, (size,), 1)


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("name", ["linear", "mlp2", "mlp3:width=16", "lenet5", "wrn:depth=10,width=1"])
def test_the_contract_of_plain_victims(name: str, size: int):
    check_net(name, (size,), 3)
    check_net(name, (size,), 1)


def test_pictures_are_counted_where_gradients_flow():
    net, x = nets.build("small-cnn", (3, 16, 16), 2), torch.rand(5, 3, 16, 16)
    with nets.counted() as seen:
        net(x).sum().backward()
        net.embed(x[:2])
        torch.func.functional_call(net, dict(net.named_parameters()), (x[:1],))
        with torch.no_grad():
            net(x)
        torch.nn.Flatten()(x)  # no network: it has no weights
        with pytest.raises(RuntimeError):
            net(x[:, :1])
        net(x[:3])
    net(x)
    assert seen.count == 5 + 2 + 1 + 5 + 3


VICTIMS = [
    "vgg11",
    "vgg19",
    "densenet121",
    "mobilenetv2",
    "wrn-28-10",
    "cait",
    "swin",
    "vit-small",
    "resnet50",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", VICTIMS)
def test_the_contract_of_the_papers_victims(name: str):
    check_net(name, (32,), 3)


def sizes(name: str, module: str, size: int = 32) -> tuple[int, ...]:
    """Shape of a module's output for one picture."""
    net, shapes = nets.build(name, (3, size, size), 10).eval(), []
    net.get_submodule(f"trunk.{module}").register_forward_hook(lambda m, i, output: shapes.append(output.shape[1:]))
    with torch.no_grad():
        net(torch.rand(1, 3, size, size))
    return tuple(shapes[0])


@pytest.mark.parametrize(
    ("name", "module", "shape"),
    [
        ("lenet5", "stage2", (16, 5, 5)),
        ("mlp3", "hidden2", (512,)),
        ("wrn:depth=16,width=2", "group1", (32, 32, 32)),
        ("wrn:depth=16,width=2", "group3", (128, 8, 8)),
        ("mobilenetv2", "model.blocks.0", (16, 32, 32)),
        pytest.param("densenet121", "model.features.denseblock1", (256, 32, 32), marks=pytest.mark.slow),
        pytest.param("vgg19", "model.features.51", (512, 2, 2), marks=pytest.mark.slow),
        pytest.param("swin", "model.layers.0", (16, 16, 96), marks=pytest.mark.slow),
        pytest.param("cait", "model.blocks.0", (64, 192), marks=pytest.mark.slow),
    ],
)
def test_small_pictures_are_seen_at_full_size(name: str, module: str, shape: tuple[int, ...]):
    assert sizes(name, module) == shape


def parameters(name: str) -> int:
    return sum(p.numel() for p in nets.build(name, (3, 32, 32), 10).parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("wrn:depth=28,width=10", 36.48),
        pytest.param("wrn-34-10", 46.16, marks=pytest.mark.slow),
        ("lenet5", 0.062),
        ("small-vit:width=192,depth=12", 5.36),
    ],
)
def test_published_numbers_of_parameters(name: str, millions: float):
    """36.5 M and 46.2 M for the wide networks, 62 k for LeNet-5 on colour, ViT-tiny for tokens of 4 x 4."""
    assert parameters(name) == pytest.approx(millions * 1e6, rel=0.002)


@pytest.mark.slow
def test_channels_and_not_positions_are_kept_by_depth():
    """Swin's layers hold their channels last."""
    net = nets.build("swin", (3, 32, 32), 10).eval()
    with torch.no_grad():
        assert [s.shape[1] for s in net.stages(torch.rand(1, 3, 32, 32))] == [96, 192, 384, 768, 768]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("resnet50", 32), ("resnet18", 96), ("vit-small", 64), ("mobilenetv3_small_050", 64)]
)
def test_the_contract_of_larger_ones(name: str, size: int):
    check_net(name, (size,), 3)


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
        ("resnet1", "net 'resnet1' is unknown; allowed: small-cnn, small-resnet, speedrun, linear, mlp2"),
        ("", "is unknown; allowed"),
        ("small-cnn:width=x", "its options are width=<whole number>"),
        ("small-cnn:depth=3", "its options are width=<whole number>"),
        ("mlp2:width=0", "its options are width=<whole number>"),
        ("linear:width=3", "its options are none at all"),
        ("small-cnn:wide", "its options are width=<whole number>"),
        ("small-resnet:16", "its options are width=<whole number>"),
        ("resnet18:width=16", "net 'resnet18:width=16': its options are none at all"),
        ("resnet18:wide", "its options are none at all"),
        ("vit-tiny:depth=3", "its options are none at all"),
        ("wrn:depth=11", "depth=11 is not 6 n + 4"),
        ("wrn:depth=4", "depth=4 is not 6 n + 4"),
        ("small-vit:width=48", "width=48 is no multiple of 32"),
    ],
)
def test_refusals(name: str, told: str):
    with pytest.raises(UserError, match=re.escape(told)):
        nets.build(name, (3, 32, 32), 10)


def test_known_names_can_be_built():
    for name in nets.list_networks():
        if name not in VICTIMS:  # slow to fill with random weights; in the slow contract
            assert nets.build(name, (3, 32, 32), 2).head.out_features == 2
