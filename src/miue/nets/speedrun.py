"""A network for a dozen passes, in the spirit of the CIFAR-10 speed runs (airbench: Jordan, arXiv 2404.00498)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from miue.nets.base import Classifier

SEEN = 32  # places of patches along a side: larger pictures get larger patches, further apart
DIRECTIONS = 48  # most directions of a patch that are kept, those of the largest variance first
LEAST = 5e-4  # added to variances, so that directions without content do not become noise
EMPTY = LEAST / 100  # variance of a direction without content, as every colour direction of grey pictures is
CHUNK = 64  # pictures whose patches are held at once
SCALE = 1 / 9  # of the features, and so of the first logits


class Whitening(nn.Module):
    """Patches in directions that have no correlation and equal variance, each with both signs: 2d channels.

    y = W patch + b with W = +-E^T (L + LEAST)^(-1/2), E and L the eigenvectors and eigenvalues of the covariance of
    patches. W is no weight but a buffer: `prepare` sets it, before that its directions are random. b is a weight.
    A direction without content would be a constant channel, by whose variance of 0 the next norm divides: gradients
    grow ten thousandfold. In its place stands a random one among those with content.
    """

    weight: Tensor

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.stride = max(side // SEEN, 1)
        self.kernel = 2 * self.stride
        size = channels * self.kernel**2
        directions = nn.init.orthogonal_(torch.empty(min(size, DIRECTIONS), size))
        self.register_buffer("weight", self._both(directions, channels))
        self.bias = nn.Parameter(torch.zeros(len(self.weight)))

    def _both(self, directions: Float[Tensor, "d s"], channels: int) -> Float[Tensor, "e c k k"]:
        return torch.cat([directions, -directions]).reshape(-1, channels, self.kernel, self.kernel)

    @torch.no_grad()
    def prepare(self, x: Float[Tensor, "n c h w"]) -> None:
        """Set W from pictures on a device that has float64."""
        moments = x.new_zeros(self.weight[0].numel() + 1, self.weight[0].numel() + 1, dtype=torch.float64)
        for part in x.split(CHUNK):
            patches = F.unfold(part, self.kernel, stride=self.stride).transpose(0, 1).flatten(1).double()
            patches = F.pad(patches, (0, 0, 0, 1), value=1.0)  # a row of ones, whose products are sums and the count
            moments += patches @ patches.T
        moments /= moments[-1, -1].clone()
        half = len(self.weight) // 2
        spectrum = torch.linalg.eigh(moments[:-1, :-1] - torch.outer(moments[-1, :-1], moments[-1, :-1]))
        values, vectors = (part[..., -half:].flip(-1) for part in spectrum)  # the largest variance first
        directions = (vectors / (values.clamp_min(0) + LEAST).sqrt()).T
        full = values > EMPTY
        if full.any():
            random = self.weight[:half].flatten(1).to(x.device)[~full].double() @ vectors[:, full]
            directions[~full] = F.normalize(random) @ directions[full]
        self.weight.copy_(self._both(directions, x.shape[1]).float())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e g g"]:
        return F.gelu(F.conv2d(x, self.weight, self.bias, self.stride))


class _Norm(nn.BatchNorm2d):
    """Batch norm with a weight of 1, which is a buffer, and with statistics of the last few batches."""

    def __init__(self, width: int) -> None:
        super().__init__(width, momentum=0.4)
        del self.weight
        self.register_buffer("weight", torch.ones(width))


class _Block(nn.Module):
    """Two convolutions, each with norm and GELU; the first one with max-pooling where a side can be halved."""

    def __init__(self, inputs: int, outputs: int, size: Sequence[int]) -> None:
        super().__init__()
        self.conv1, self.conv2 = (_convolution(width, outputs) for width in (inputs, outputs))
        self.norm1, self.norm2 = _Norm(outputs), _Norm(outputs)
        self.pool = tuple(min(side, 2) for side in size)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), self.pool)))
        return F.gelu(self.norm2(self.conv2(x)))


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution whose first filters pass their inputs on unchanged at the start."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:inputs])
    return layer


class _Peak(nn.Module):
    """The maximum over positions, scaled, so that the head starts with small logits: b c h w -> b c."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return F.max_pool2d(x, x.shape[2:]).flatten(1) * SCALE


class _Trunk(nn.Sequential):
    """The layers, of which the first one takes its filters from pictures."""

    def prepare(self, x: Float[Tensor, "n c h w"]) -> None:
        for layer in self.children():
            if isinstance(layer, Whitening):
                layer.prepare(x)


def speedrun(shape: tuple[int, int, int], classes: int, width: int = 64) -> Classifier:
    """The speed runs' network: patches whitened by the training pictures, then three blocks of two convolutions.

    The blocks have width, 4 width and 4 width channels. Pictures up to 63 px are seen in patches of 2 x 2, larger ones
    in patches that are as many. Whitened: 2 c 4 channels, at most 96.
    """
    first = Whitening(shape[0], min(shape[1:]))
    size = [(side - first.kernel) // first.stride + 1 for side in shape[1:]]
    layers: OrderedDict[str, nn.Module] = OrderedDict(whitened=first)
    inputs = len(first.weight)
    for number, outputs in enumerate((width, 4 * width, 4 * width), 1):
        layers[f"block{number}"] = _Block(inputs, outputs, size)
        inputs, size = outputs, [max(side // 2, 1) for side in size]
    points = list(layers)
    return Classifier(_Trunk(layers | {"peak": _Peak()}), nn.Linear(inputs, classes, bias=False), points)
