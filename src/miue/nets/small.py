"""Our own small networks, fast on two CPU cores."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from miue.nets.base import Classifier, Pool, Residual, convolution


def small_cnn(shape: tuple[int, int, int], classes: int, width: int = 32) -> Classifier:
    """Three plain convolutions with stride 2: the cheapest network that learns from pictures."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=convolution(shape[0], width, 2),
        down1=convolution(width, 2 * width, 2),
        down2=convolution(2 * width, 2 * width, 2),
        pool=Pool(),
    )
    return Classifier(nn.Sequential(layers), nn.Linear(2 * width, classes), list(layers)[:-1])


def small_resnet(shape: tuple[int, int, int], classes: int, width: int = 32) -> Classifier:
    """A small residual network: stem, then two down-sampling stages with a residual block each."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=convolution(shape[0], width),
        stage1=nn.Sequential(convolution(width, 2 * width, 2), Residual(2 * width)),
        stage2=nn.Sequential(convolution(2 * width, 4 * width, 2), Residual(4 * width)),
        stage3=nn.Sequential(convolution(4 * width, 8 * width, 2)),
        pool=Pool(),
    )
    return Classifier(nn.Sequential(layers), nn.Linear(8 * width, classes), list(layers)[:-1])
