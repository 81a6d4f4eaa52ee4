"""Spearman's rank correlation of a few pairs, with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from miue.core.files import Record

LEAST, DRAWS = 4, 2000


class Spearman(Record):
    """A rank correlation of `n` pairs.

    p: two-sided, by permuting one side. low, high: 95 % interval of bootstrap samples of pairs. least, most: range of
    rho when one pair is left out.
    """

    n: int
    rho: float
    p: float
    low: float
    high: float
    least: float
    most: float


def spearman(a: Sequence[float], b: Sequence[float], generator: Generator) -> Spearman | None:
    """Pearson's correlation of the ranks; equal values share their mean rank.

    Returns None for fewer than 4 pairs or a constant side.

    p = (1 + #{|rho of permuted pairs| >= |rho|}) / (1 + draws). Bootstrap samples with a constant side are left out.
    """
    n = len(a)
    if n < LEAST or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    u, v = torch.tensor([a, b], dtype=torch.float64)
    rho = float(_rho(u[None], v[None]))
    orders = torch.rand(DRAWS, n, generator=generator).argsort(1)
    above = int((_rho(u.expand(DRAWS, n), v[orders]).abs() >= abs(rho) - 1e-12).sum())
    drawn = torch.randint(n, (DRAWS, n), generator=generator)
    low, high = _rho(u[drawn], v[drawn]).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    rest = torch.stack([torch.cat([torch.arange(i), torch.arange(i + 1, n)]) for i in range(n)])
    without = _rho(u[rest], v[rest])
    without = without[~without.isnan()] if not bool(without.isnan().all()) else torch.tensor([rho])
    least, most, p = float(without.min()), float(without.max()), (1 + above) / (1 + DRAWS)
    return Spearman(n=n, rho=rho, p=p, low=low, high=high, least=least, most=most)


def _rho(u: Float[Tensor, "k n"], v: Float[Tensor, "k n"]) -> Float[Tensor, "k"]:
    """Rank correlation of each row; nan where a side is constant."""
    u, v = _ranks(u), _ranks(v)
    u, v = (side - side.mean(1, keepdim=True) for side in (u, v))
    return (u * v).sum(1) / (u.square().sum(1) * v.square().sum(1)).sqrt()


def _ranks(x: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
    """Ranks from 1 to n in each row; equal values get the mean of their ranks."""
    below, equal = x[:, :, None] > x[:, None, :], x[:, :, None] == x[:, None, :]
    return below.sum(2) + (equal.sum(2) + 1).to(x.dtype) / 2
