"""Permutation tests of independence with HSIC and CKA, which are not mutual information."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.run import Run
from miue.mi._features import paired, standardised
from miue.mi.measure import shuffled_rows

Kernels = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Independence:
    """A statistic (not in nats), its mean when pairs are shuffled, p = (1 + #{shuffled >= value}) / (1 + shuffles)."""

    value: float
    null: float
    p: float


def independence_test(
    x: Float[Tensor, "n dx"],
    y: Float[Tensor, "n dy"],
    run: Run,
    statistic: Literal["hsic", "cka"] = "hsic",
    shuffles: int = 99,
) -> Independence:
    """Permutation test of independence of z-scored features.

    A large p proves nothing: in many dimensions power is low.
    """
    if statistic not in KERNELS or shuffles < 1:
        raise UserError(f"statistic={statistic!r}, shuffles={shuffles}; allowed: {', '.join(KERNELS)}, and at least 1")
    x, y = paired(x, y, run, 8)
    k, m = (_centred(KERNELS[statistic](standardised(side))) for side in (x, y))
    scale = _product(k, k) * _product(m, m) if statistic == "cka" else None

    def value(other: Tensor) -> float:
        hsic = _product(k, other)
        return float(hsic if scale is None else hsic / scale.clamp_min(torch.finfo(x.dtype).tiny).sqrt())

    orders = (run.exact(shuffled_rows(len(x), None, run.rng("mi", "shuffle", "all", i))) for i in range(shuffles))
    observed, nulls = value(m), [value(m[order][:, order]) for order in orders]
    return Independence(observed, sum(nulls) / shuffles, (1 + sum(v >= observed for v in nulls)) / (1 + shuffles))


def _gaussian_kernel(x: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """exp(-d^2 / 2 s^2), s the median distance."""
    square = torch.cdist(x, x).square()
    return (
        torch.exp(-square / (2 * square[square > 0].median())) if bool((square > 0).any()) else torch.ones_like(square)
    )


def _linear_kernel(x: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    return x @ x.T


def _centred(k: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """U-centring: row sums without the diagonal become 0, so that products are unbiased (Song et al., JMLR 2012)."""
    n = len(k)
    k = k - torch.diag(k.diagonal())
    rows = k.sum(0) / (n - 2)
    centred = k - rows[:, None] - rows[None, :] + k.sum() / ((n - 1) * (n - 2))
    return centred - torch.diag(centred.diagonal())


def _product(k: Float[Tensor, "n n"], m: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    return (k * m).sum() / (len(k) * (len(k) - 3))


KERNELS: Mapping[str, Kernels] = {"hsic": _gaussian_kernel, "cka": _linear_kernel}
