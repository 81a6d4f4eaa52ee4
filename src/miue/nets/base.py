"""The interface of all networks: a trunk that turns pictures into a feature vector, and a linear head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@runtime_checkable
class Net(Protocol):
    """A classifier in two halves. Pictures are float in [0,1]; normalisation happens inside."""

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]: ...
    def head(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]: ...
    def stages(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _"]]: ...
    def __call__(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]: ...


class Classifier(nn.Module):
    """head(trunk(normalised x)). Pictures are float in [0,1]; (x - 0.5) / 0.25 happens inside.

    points: names of the trunk's modules whose outputs are the features by depth, shallow to deep.
    positions: the spatial axes of such an output, if it has four axes.
    plain: the trunk is code of a user that knows nothing of miue. It gets pictures in [0,1] as they are, in the memory
    layout that `view` needs.
    """

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Module,
        points: Sequence[str] = (),
        positions: tuple[int, int] = (2, 3),
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.head, self.points, self.positions = trunk, head, tuple(points), positions
        self.plain = plain
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Penultimate features in float32. Only the trunk runs in the precision that `Run.place` sets."""
        with self.autocast():
            z = self.trunk(self._normalised(x))
        return z.float()

    def _normalised(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        # flatten resets the strides: one-channel tensors count as contiguous in any layout, and odd strides spread
        return x.flatten().view(x.shape) if self.plain else (x - 0.5) * 4

    @property
    def prepares(self) -> bool:
        """True if the trunk takes something from the training pictures before its first step."""
        return callable(getattr(self.trunk, "prepare", None))

    def prepare(self, x: Float[Tensor, "n c h w"]) -> None:
        """Show the trunk training pictures, on a device that has float64. Call it only if it `prepares`."""
        self.trunk.prepare(self._normalised(x))  # pyright: ignore[reportCallIssue]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.head(self.embed(x))

    def stages(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _"]]:
        """Features at every point (mean over positions or tokens), followed by the penultimate features."""
        features: list[Tensor] = []
        collect = _collect(features, self.positions)
        hooks = [self.trunk.get_submodule(p).register_forward_hook(collect) for p in self.points]
        try:
            last = self.embed(x)  # runs the hooks
            return [*features, last]
        finally:
            for hook in hooks:
                hook.remove()


@dataclass
class Passes:
    """Number of pictures that went through networks so far."""

    count: int = 0


@contextmanager
def counted() -> Iterator[Passes]:
    """Count the pictures that go through any network of this process inside the block, with gradients on.

    A network is the outermost module of a call, if it has weights.
    """
    passes, depth = Passes(), 0

    def enter(module: nn.Module, inputs: Any) -> None:
        nonlocal depth
        if not depth and torch.is_grad_enabled() and next(module.parameters(), None) is not None:
            passes.count += len(inputs[0])
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def weight(net: nn.Module) -> int:
    """Bytes of a network's weights and buffers."""
    return sum(tensor.nbytes for tensor in net.state_dict().values())


def _pooled(x: Tensor, positions: tuple[int, int]) -> Float[Tensor, "b d"]:
    return x.mean(positions) if x.ndim == 4 else x.mean(1) if x.ndim == 3 else x


def _collect(store: list[Tensor], positions: tuple[int, int]) -> Callable[[nn.Module, object, Any], None]:
    def hook(_module: nn.Module, _inputs: object, output: Any) -> None:
        features = output[0] if isinstance(output, tuple) else output  # some models also return class tokens
        store.append(_pooled(features.float(), positions))

    return hook


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Pool(nn.Module):
    """Mean over positions: b c h w -> b c."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return x.mean((2, 3))


class Residual(nn.Module):
    """x + f(x), where f is two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
