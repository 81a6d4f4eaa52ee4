"""Moves inside a budget: add, signed step, projection, random start. Deltas are float in [0,1] units."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from miue.types import Budget


def add(x: Float[Tensor, "b c h w"], delta: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """x + delta with the values of a picture, clamp(x + delta, 0, 1), and the gradient of the plain sum.

    With the clamp's own gradient a delta that pushed a white pixel further up would never come back.
    """
    y = x + delta
    return y + (y.detach().clamp(0, 1) - y.detach())


def signed_step(
    delta: Float[Tensor, "*shape"], gradient: Float[Tensor, "*shape"], step: float, budget: Budget
) -> Float[Tensor, "*shape"]:
    """delta - step * sign(gradient), back in the budget: one descent step for "linf"."""
    return (delta - step * gradient.sign()).clamp_(-budget.unit, budget.unit)


def keep_in_range(delta: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The part of delta that a picture can hold: clamp(x + delta, 0, 1) - x. Never larger than delta."""
    return torch.minimum(torch.maximum(delta, -x), 1 - x)


def random_start(shape: tuple[int, ...], budget: Budget, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Random rows of the budget's full size: uniform in the L-infinity ball; a uniform direction of length eps for
    "l2"; uniform values at eps random pixels for "l0"."""
    if budget.norm == "l2":
        direction = torch.randn(shape, generator=generator)
        return scaled(direction, budget).clamp_(-1, 1)
    values = torch.rand(shape, generator=generator) * 2 - 1
    if budget.norm == "l0":
        rank = torch.rand(shape[0], shape[-2] * shape[-1], generator=generator).argsort(1)
        return values * (rank < budget.eps).reshape(shape[0], 1, *shape[-2:])
    return values * budget.unit


def scaled(delta: Float[Tensor, "k c h w"], budget: Budget) -> Float[Tensor, "k c h w"]:
    """Each row at the full size of an "l2" or "linf" budget; rows of zeros stay."""
    order = 2 if budget.norm == "l2" else torch.inf
    size = torch.linalg.vector_norm(delta.flatten(1), order, dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
    return delta * ((budget.eps if budget.norm == "l2" else budget.unit) / size).reshape(-1, 1, 1, 1)
