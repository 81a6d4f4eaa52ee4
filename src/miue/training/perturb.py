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
from miue.training import perturb


def check_cells(cells: int, side: int) -> None:
    """Raise UserError for a noise grid that is finer than the canvas, or has a negative side."""
    if not 0 <= cells <= side:
        raise UserError(f"cells={cells} is not between 0 (pixel-wise) and {side}, the side of the canvas")


def add(x: Float[Tensor, "b c h w"], delta: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """x + delta with the values of a picture, clamp(x + delta, 0, 1), and the gradient of the plain sum.

    With the clamp's own gradient a delta that pushed a white pixel further up would never come back.
    """
    y = x + delta
    return y + (y.detach().clamp(0, 1) - y.detach())


def signed_step(
    delta: Float[Tensor, "*shape"], gradient: Float[Tensor, "*shape"], step: float, budget: Budget
) -> Float[Tensor, "*shape"]:
    """delta - step * sign(gradient), back in the budget: one descent step. Raises ValueError unless it is in "linf"."""
    if budget.norm != "linf":
        raise ValueError(f"signed steps keep a budget in linf, not in {budget.norm}: the facts of the attack are wrong")
    return (delta - step * gradient.sign()).clamp_(-budget.unit, budget.unit)


def direction(gradient: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
    """Every row divided by its mean absolute value, so that rows count alike in sums; rows of zeros stay zeros."""
    size = gradient.flatten(1).abs().mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / size.reshape(-1, *[1] * (gradient.ndim - 1))


def class_mean(
    rows: Float[Tensor, "b *shape"],
    y: Int[Tensor, "b"],
    k: int,
    total: Callable[[Tensor], Tensor] = lambda table: table,
) -> Float[Tensor, "b *shape"]:
    """For every row the mean over all rows of its class, one of k; `total` sums a table over processes."""
    return class_means(rows, y, k, total)[y]


def class_means(
    rows: Float[Tensor, "b *shape"],
    y: Int[Tensor, "b"],
    k: int,
    total: Callable[[Tensor], Tensor] = lambda table: table,
) -> Float[Tensor, "k *shape"]:
    """The mean row of each of k classes; 0 for one without rows."""
    sums = total(rows.new_zeros(k, *rows.shape[1:]).index_add_(0, y, rows))
    count = total(y.bincount(minlength=k).to(rows.dtype)).clamp_min(1)
    return sums / count.reshape(-1, *[1] * (rows.ndim - 1))


def keep_in_range(delta: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The part of delta that a picture can hold: clamp(x + delta, 0, 1) - x. Never larger than delta."""
    return torch.minimum(torch.maximum(delta, -x), 1 - x)


def random_start(shape: tuple[int, ...], budget: Budget, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Random rows of the budget's full size: uniform in the L-infinity ball; a uniform direction of length eps for
    "l2"; uniform values at eps random pixels for "l0"."""
    if budget.norm == "l2":
        direction = torch.randn(shape, generator=generator)
        return scaled(direction, budget)
    values = torch.rand(shape, generator=generator) * 2 - 1
    if budget.norm == "l0":
        rank = torch.rand(shape[0], shape[-2] * shape[-1], generator=generator).argsort(1)
        return values * (rank < budget.eps).reshape(shape[0], 1, *shape[-2:])
    return values * budget.unit


def scaled(delta: Float[Tensor, "k c h w"], budget: Budget) -> Float[Tensor, "k c h w"]:
    """Each row at the full size of an "l2" or "linf" budget, within [-1, 1]; rows of zeros stay."""
    order = 2 if budget.norm == "l2" else torch.inf
    size = torch.linalg.vector_norm(delta.flatten(1), order, dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
    wanted = budget.eps if budget.norm == "l2" else budget.unit
    return (delta * (wanted / size).reshape(-1, 1, 1, 1)).clamp_(-1, 1)  # no picture changes by more


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
    was = net.training
    net.eval()
    near = ascend(lambda v: F.cross_entropy(net(v), y), x, radius, step, steps, generator)
    net.train(was)
    return near


def ascend(
    loss: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b c h w"],
    radius: float,
    step: float,
    steps: int,
    generator: torch.Generator,
) -> Float[Tensor, "b c h w"]:
    """Pictures near x where `loss` is high: `steps` signed steps from a uniform start in the L-infinity ball (PGD).

    They stay in [0,1] as far as x does. radius, step: in [0,1] units. With 0 steps, the uniform start itself. Source:
    Madry et al., ICLR 2018.
    """
    start = x.detach()  # where it lies outside [0,1], as after `op`, it may stay there
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
    """x moved within `radius` grey levels to where the network, in evaluation mode, has a high cross-entropy.

    Signed steps of 2 / steps of the radius, so that they cross the ball; 0 steps: uniform noise. Gradients go straight
    through to x: the change counts as a constant.
    """
    step = 2 * radius / max(steps, 1) / 255
    near = perturb.adversarial(net, x, y, radius / 255, step, steps, generator)
    return x + (near - x.detach())
