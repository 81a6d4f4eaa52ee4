"""Moves inside a budget: add, signed step, projection, random start. Deltas are float in [0,1] units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.types import Budget
from miue.training.rows import Rows, parts


def check_cells(cells: int, side: int) -> None:
    """Raise UserError if a noise grid is finer than the canvas or has a negative side."""
    if not 0 <= cells <= side:
        raise UserError(f"cells={cells} is not between 0 (pixel-wise) and {side}, the side of the canvas")


def add(x: Float[Tensor, "b c h w"], delta: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """clamp(x + delta, 0, 1), but with the gradient of the plain sum.

    With the gradient of the clamp, a delta that pushes a white pixel further up would never come back.
    """
    return clamped(x + delta, 0, 1)


def clamped(x: Float[Tensor, "*shape"], low: float | int, high: float | int) -> Float[Tensor, "*shape"]:
    """The clamp of x, with the gradient of x itself."""
    return _Clamped.apply(x, low, high)


class _Clamped(torch.autograd.Function):
    """The clamp in one pass over the memory, in place of three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float | int, high: float | int) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient, None, None


def signed_step(
    delta: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    step: float,
    budget: Budget,
    share: Tensor | float = 1.0,
) -> Float[Tensor, "*shape"]:
    """One descent step: delta - step * sign(gradient), clamped to the budget. Raises ValueError unless it is "linf".

    share: parts of the step and of the budget, for planes that have less than all of it.
    """
    if budget.norm != "linf":
        raise ValueError(f"signed steps keep a budget in linf, not in {budget.norm}: the facts of the attack are wrong")
    limit: Any = share * budget.unit
    return (delta - step * share * gradient.sign()).clamp(-limit, limit)


def direction(gradient: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
    """Each row divided by its mean absolute value, so that all rows have equal weight in sums. Zero rows stay zero."""
    size = gradient.flatten(1).abs().mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / size.reshape(-1, *[1] * (gradient.ndim - 1))


def class_mean(
    rows: Float[Tensor, "b *shape"],
    y: Int[Tensor, "b"],
    k: int,
    total: Callable[[Tensor], Tensor] = lambda table: table,
) -> Float[Tensor, "b *shape"]:
    """For each row, the mean over all rows of its class (one of k). `total` sums a table over processes."""
    return class_means(rows, y, k, total)[y]


def class_means(
    rows: Float[Tensor, "b *shape"] | Rows,
    y: Int[Tensor, "b"],
    k: int,
    total: Callable[[Tensor], Tensor] = lambda table: table,
) -> Float[Tensor, "k *shape"]:
    """The mean row of each of k classes; 0 for a class without rows. `total` sums a table over processes."""
    sums = y.new_zeros(k, *rows.shape[1:], dtype=torch.float32)
    for index in parts(len(rows)):
        index = index.to(y.device)
        sums.index_add_(0, y[index], rows[index])
    sums, count = total(sums), total(y.bincount(minlength=k).to(sums.dtype)).clamp_min(1)
    return sums / count.reshape(-1, *[1] * (sums.ndim - 1))


def keep_in_range(delta: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The part of delta that a picture can hold: clamp(x + delta, 0, 1) - x. Never larger than delta."""
    return torch.minimum(torch.maximum(delta, -x), 1 - x)


def random_start(shape: tuple[int, ...], budget: Budget, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Random rows inside the budget.

    "linf": uniform in the ball. "l2": a uniform direction of length eps. "l0": uniform values at eps random pixels.
    """
    if budget.norm == "l2":
        direction = torch.randn(shape, generator=generator)
        return scaled(direction, budget)
    values = torch.rand(shape, generator=generator) * 2 - 1
    if budget.norm == "l0":
        rank = torch.rand(shape[0], shape[-2] * shape[-1], generator=generator).argsort(1)
        return values * (rank < budget.eps).reshape(shape[0], 1, *shape[-2:])
    return values * budget.unit


def scaled(delta: Float[Tensor, "k c h w"], budget: Budget) -> Float[Tensor, "k c h w"]:
    """Each row scaled to the full size of an "l2" or "linf" budget, then clamped to [-1, 1]. Zero rows stay zero."""
    order = 2 if budget.norm == "l2" else torch.inf
    size = torch.linalg.vector_norm(delta.flatten(1), order, dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
    target = budget.eps if budget.norm == "l2" else budget.unit
    return (delta * (target / size).reshape(-1, 1, 1, 1)).clamp_(-1, 1)  # no value of a picture can change by more


def adversarial(
    net: Any,
    x: Float[Tensor, "b c h w"],
    y: Tensor,
    radius: float,
    step: float,
    steps: int,
    generator: torch.Generator,
) -> Float[Tensor, "b c h w"]:
    """Pictures near x on which the network, in evaluation mode, has a high cross-entropy to y (classes or shares)."""
    mode = net.training
    net.eval()
    near = ascend(lambda v: F.cross_entropy(net(v), y), x, radius, step, steps, generator)
    net.train(mode)
    return near


def ascend(
    loss: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b c h w"],
    radius: float,
    step: float,
    steps: int,
    generator: torch.Generator,
) -> Float[Tensor, "b c h w"]:
    """Pictures near x with a high `loss`: `steps` signed steps from a uniform start in the L-infinity ball (PGD).

    They stay in [0,1] where x does. radius, step: in [0,1] units. With 0 steps the result is the uniform start.
    Source: Madry et al., ICLR 2018.
    """
    start = x.detach()  # values outside [0,1], as after `op`, may stay there
    low = torch.minimum((start - radius).clamp_min(0), start)
    high = torch.maximum((start + radius).clamp_max(1), start)
    draw = torch.rand(x.shape, generator=generator).to(x.device) * 2 - 1
    moved = torch.minimum(torch.maximum(start + radius * draw, low), high)
    for _ in range(steps):
        leaf = moved.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        moved = torch.minimum(torch.maximum(leaf.detach() + step * gradient.sign(), low), high)
    return moved


def worst(
    net: Any, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], radius: float, steps: int, generator: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """x moved by at most `radius` grey levels to a high cross-entropy of the network, in evaluation mode.

    Each signed step is 2 / steps of the radius, so that the steps can cross the ball; 0 steps: uniform noise. Gradients
    reach x as if the change were a constant.
    """
    step = 2 * radius / max(steps, 1) / 255
    near = adversarial(net, x, y, radius / 255, step, steps, generator)
    return x + (near - x.detach())
