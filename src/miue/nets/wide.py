"""Wide residual networks for small pictures (Zagoruyko, Komodakis, BMVC 2016); torchvision and timm have none."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from miue.core.errors import UserError
from miue.nets.base import Classifier, Pool


class _Block(nn.Module):
    """Normalisation and ReLU before each of two convolutions; a 1 x 1 shortcut if the widths differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.norm1(x))
        body = self.conv2(F.relu(self.norm2(self.conv1(z))))
        return body + (x if self.shortcut is None else self.shortcut(z))


def wide_resnet(shape: tuple[int, int, int], classes: int, depth: int = 28, width: int = 10) -> Classifier:
    """WRN-depth-width: a 3 x 3 stem, then three groups of (depth - 4) / 6 blocks with 16, 32, 64 times width channels.

    Raises UserError if the depth is not 6 n + 4.
    """
    if depth < 10 or (depth - 4) % 6:
        raise UserError(f"wrn: depth={depth} is not 6 n + 4, as in 16, 28 or 34")
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Conv2d(shape[0], 16, 3, 1, 1, bias=False))
    inputs = 16
    for number, stride in enumerate((1, 2, 2), 1):
        outputs = 16 * width * 2 ** (number - 1)
        blocks = [
            _Block(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1) for i in range((depth - 4) // 6)
        ]
        layers[f"group{number}"] = nn.Sequential(*blocks)
        inputs = outputs
    tail = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), Pool())
    return Classifier(nn.Sequential(layers | {"pool": tail}), nn.Linear(inputs, classes), list(layers))
