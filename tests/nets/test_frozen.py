"""Frozen networks: the same function, without norms where they can be folded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from miue import nets

SHAPE = 3, 16, 16


def used(name: str) -> nn.Module:
    """A network whose norms are not those that it began with."""
    torch.manual_seed(0)
    net = nets.build(name, SHAPE, 4).train()
    for _ in range(3):
        net(torch.rand(32, *SHAPE))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return net


def norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("small-resnet:width=4", 0),
        ("small-cnn:width=4", 0),
        ("resnet18", 17),
        ("mlp2:width=8", 0),
        ("speedrun:width=4", 6),
    ],
)
def test_it_is_the_same_function(name: str, left: int):
    net = used(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    looking, x = nets.frozen(net), torch.rand(8, *SHAPE, requires_grad=True)
    assert norms(looking) == left, "norms that are no neighbours of a convolution in a sequence stay"
    net.eval()
    for one, other in zip(looking.stages(x), net.stages(x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    one, other = (torch.autograd.grad(part(x).logsumexp(1).sum(), x)[0] for part in (looking, net))
    assert (one - other).norm() < 1e-2 * other.norm(), "single values may differ: a ReLU near zero opens or closes"
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_it_does_not_learn_and_the_network_still_does():
    net = used("small-cnn:width=4")
    looking = nets.frozen(net)
    assert not looking.training and not any(p.requires_grad for p in looking.parameters())
    assert net.training and all(p.requires_grad for p in net.parameters())


def test_what_listens_between_convolution_and_norm_is_heard():
    net = used("small-cnn:width=4")
    heard: list[torch.Size] = []
    net.trunk.get_submodule("stem.0").register_forward_hook(lambda *values: heard.append(values[2].shape))
    looking = nets.frozen(net)
    looking(torch.rand(2, *SHAPE))
    assert len(heard) == 1 and norms(looking) == 1


def test_other_layers_are_left_alone():
    layers = [
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.ModuleList([nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)]),
    ]
    assert [norms(nets.frozen(layer)) for layer in layers] == [1, 1, 1, 1]
