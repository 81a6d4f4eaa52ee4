"""Spearman's rank correlation of a few pairs, with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from miue.core.files import Record

LEAST, DRAWS = 4, 2000
ENOUGH = 10  # pairs from which an interval means something: seven in perfect order would give +1 to +1


class Spearman(Record):
    """A rank correlation of `n` pairs.

    p: two-sided, by permuting one side. low, high: 95 % interval of bootstrap samples of pairs, and of the seeds that a
    pair is the mean of; None for fewer than 10 pairs. least, most: range of rho when one pair is left out.
    """

    n: int
    rho: float
    p: float
    low: float | None
    high: float | None
    least: float
    most: float

    @property
    def interval(self) -> str:
        """Text of the interval; for few pairs why there is none, also in records that have one."""
        if self.n < ENOUGH or self.low is None or self.high is None:
            return f"none (fewer than {ENOUGH})"
        return f"{self.low:+.2f} to {self.high:+.2f}"


Values = Sequence[int | float | Sequence[float]]


def spearman(a: Values, b: Values, generator: Generator) -> Spearman | None:
    """Pearson's correlation of the ranks; equal values share their mean rank.

    Returns None for fewer than 4 pairs or a constant side.

    p = (1 + #{|rho of permuted pairs| >= |rho|}) / (1 + draws). Bootstrap samples with a constant side are left out.
    a, b: an entry is a value, or one value a seed, the same seeds on both sides; then their mean counts.
    """
    of_a, of_b = _by_seed(a), _by_seed(b)
    a, b = ([fmean(values) for values in side] for side in (of_a, of_b))
    n = len(a)
    if n < LEAST or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    u, v = torch.tensor([a, b], dtype=torch.float64)
    rho = float(_rho(u[None], v[None]))
    orders = torch.rand(DRAWS, n, generator=generator).argsort(1)
    above = int((_rho(u.expand(DRAWS, n), v[orders]).abs() >= abs(rho) - 1e-12).sum())
    low, high = _interval(list(zip(of_a, of_b, strict=True)), generator) if n >= ENOUGH else (None, None)
    rest = torch.stack([torch.cat([torch.arange(i), torch.arange(i + 1, n)]) for i in range(n)])
    without = _rho(u[rest], v[rest])
    without = without[~without.isnan()] if not bool(without.isnan().all()) else torch.tensor([rho])
    least, most, p = float(without.min()), float(without.max()), (1 + above) / (1 + DRAWS)
    return Spearman(n=n, rho=rho, p=p, low=low, high=high, least=least, most=most)


def _by_seed(values: Values) -> list[list[float]]:
    return [[float(value)] if isinstance(value, float | int) else list(value) for value in values]


def _interval(pairs: Sequence[tuple[list[float], list[float]]], generator: Generator) -> tuple[float, float]:
    """95 % interval: pairs drawn with replacement, and of each the seeds, the same for both sides."""
    n = len(pairs)
    drawn = torch.randint(n, (DRAWS, n), generator=generator)
    x, y = torch.zeros(2, DRAWS, n, dtype=torch.float64)
    for number, pair in enumerate(pairs):
        sides = torch.tensor(pair, dtype=torch.float64)
        seeds = torch.randint(sides.shape[1], (DRAWS, n, sides.shape[1]), generator=generator)
        for side, means in zip((x, y), sides[:, seeds].mean(-1), strict=True):
            side[drawn == number] = means[drawn == number]
    low, high = _rho(x, y).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _rho(u: Float[Tensor, "k n"], v: Float[Tensor, "k n"]) -> Float[Tensor, "k"]:
    """Rank correlation of each row; nan where a side is constant."""
    u, v = _ranks(u), _ranks(v)
    u, v = (side - side.mean(1, keepdim=True) for side in (u, v))
    return (u * v).sum(1) / (u.square().sum(1) * v.square().sum(1)).sqrt()


def _ranks(x: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
    """Ranks from 1 to n in each row; equal values get the mean of their ranks."""
    below, equal = x[:, :, None] > x[:, None, :], x[:, :, None] == x[:, None, :]
    return below.sum(2) + (equal.sum(2) + 1).to(x.dtype) / 2
