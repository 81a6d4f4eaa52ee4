"""The plain victims of the literature: linear, fully connected with two and three layers, LeNet-5."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from miue.nets.base import Classifier


def linear(shape: tuple[int, int, int], classes: int) -> Classifier:
    """Logistic regression on pixels. Its features are the pixels themselves."""
    c, h, w = shape
    return Classifier(nn.Sequential(OrderedDict(pixels=nn.Flatten())), nn.Linear(c * h * w, classes), ["pixels"])


def _connected(shape: tuple[int, int, int], classes: int, width: int, hidden: int) -> Classifier:
    c, h, w = shape
    layers: OrderedDict[str, nn.Module] = OrderedDict(pixels=nn.Flatten())
    inputs = c * h * w
    for number in range(1, hidden + 1):
        layers[f"hidden{number}"] = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(inplace=True))
        inputs = width
    return Classifier(nn.Sequential(layers), nn.Linear(inputs, classes), list(layers))


def two_layers(shape: tuple[int, int, int], classes: int, width: int = 512) -> Classifier:
    """Two fully connected layers: the literature's "2-NN"."""
    return _connected(shape, classes, width, 1)


def three_layers(shape: tuple[int, int, int], classes: int, width: int = 512) -> Classifier:
    """Three fully connected layers: the literature's "3-NN"."""
    return _connected(shape, classes, width, 2)


def lenet5(shape: tuple[int, int, int], classes: int) -> Classifier:
    """LeNet-5 (LeCun et al., 1998) with ReLU and max-pooling; pooling gives 5 x 5 positions at any picture size."""

    def stage(inputs: int, outputs: int, padding: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 5, padding=padding), nn.ReLU(inplace=True), nn.MaxPool2d(2))

    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stage1=stage(shape[0], 6, 0 if min(shape[1:]) >= 28 else 2),
        stage2=stage(6, 16, 0 if min(shape[1:]) >= 28 else 2),
        positions=nn.Sequential(nn.AdaptiveAvgPool2d(5), nn.Flatten()),
        hidden1=nn.Sequential(nn.Linear(400, 120), nn.ReLU(inplace=True)),
        hidden2=nn.Sequential(nn.Linear(120, 84), nn.ReLU(inplace=True)),
    )
    return Classifier(nn.Sequential(layers), nn.Linear(84, classes), [n for n in layers if n != "positions"])
