"""Preparation of features for estimators: checks, float64, z-scores, leading principal components."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.run import Run

WIDE = 1024  # features from which principal components are found by iteration
SETTLED = 1e-7  # change of the share of variance at which the iteration ends
DEAD = 1e-6  # a feature is dead if its deviation is below this share of the largest one


def paired(
    x: Float[Tensor, "n dx"], y: Float[Tensor, "m dy"], run: Run, least: int = 4
) -> tuple[Float[Tensor, "n dx"], Float[Tensor, "n dy"]]:
    """Return both sides in float64 on the run's device. Raises UserError if not paired, too few or not finite."""
    if len(x) != len(y):
        raise UserError(f"{len(x)} rows of x but {len(y)} of y: row i of one must belong to row i of the other")
    if len(x) < least:
        raise UserError(f"{len(x)} pairs are too few; at least {least}")
    x, y = run.exact(x.detach()).double(), run.exact(y.detach()).double()
    if not (x.isfinite().all() and y.isfinite().all()):
        raise UserError("features hold values that are not finite; leave those rows out")
    return x, y


def needed(labels: Int[Tensor, "n"] | None, n: int, run: Run, name: str) -> Int[Tensor, "n"]:
    """Return labels as 0..C-1 on the run's device. Raises UserError if None, or for a class of fewer than 2 rows."""
    if labels is None:
        raise UserError(f"{name} needs the class of each row: pass labels=")
    if len(labels) != n:
        raise UserError(f"{len(labels)} labels for {n} pairs")
    _, codes, counts = run.exact(labels).unique(return_inverse=True, return_counts=True)
    if int(counts.min()) < 2:
        raise UserError(f"{name} needs two rows or more of every class; leave out classes with one")
    return codes


def standardised(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """z-scores of each feature. Dead features become zeros, so that they change no distance."""
    x = x - x.mean(0)
    deviation = x.std(0, correction=0)
    alive = (deviation > DEAD * deviation.max()).double()
    return x * alive / torch.where(alive > 0, deviation, 1.0)


def axes(x: Float[Tensor, "n d"], rank: int | None) -> tuple[Float[Tensor, "d r"], float]:
    """Principal directions of centred rows, leading first, and their share of the variance."""
    values, vectors = torch.linalg.eigh(x.T @ x)
    largest = values[-rank:] if rank else values
    share = float(largest.sum() / values.sum().clamp_min(torch.finfo(x.dtype).tiny))
    return vectors[:, -len(largest) :].flip(1), share


def leading(x: Float[Tensor, "n d"], rank: int | None, run: Run) -> tuple[Float[Tensor, "n r"], float]:
    """Scores on the first `rank` principal components (None: all of x as it is), and their share of variance."""
    if rank is None or x.shape[1] <= rank:
        return x, 1.0
    centred = x - x.mean(0)
    wide = x.shape[1] > WIDE
    directions, share = _iterated(centred, rank, run) if wide else axes(centred, rank)
    return x @ directions, share


def _iterated(x: Float[Tensor, "n d"], rank: int, run: Run) -> tuple[Float[Tensor, "d r"], float]:
    """As `axes`, by block iteration, which for many features is far quicker: q <- orthonormal basis of x^T x q.

    It ends when the share changes by less than `SETTLED`.
    """
    start = torch.randn(x.shape[1], 2 * rank + 8, generator=run.rng("mi", "components"), dtype=x.dtype)
    q, share, total = torch.linalg.qr(run.exact(start))[0], 0.0, x.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    while True:
        z = x @ q
        values, vectors = torch.linalg.eigh(z.T @ z)
        before, share = share, float(values[-rank:].sum() / total)
        if share - before < SETTLED:
            return (q @ vectors)[:, -rank:].flip(1), share
        q = torch.linalg.qr(x.T @ z)[0]


def one_scale(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Centred, with an RMS deviation of 1: one scale for all features, so that noise is the same in all directions."""
    x = x - x.mean(0)
    return x / x.square().mean().sqrt().clamp_min(torch.finfo(x.dtype).tiny)


def residual(x: Float[Tensor, "n d"], labels: Int[Tensor, "n"], c: int) -> Float[Tensor, "n d"]:
    """Each row less the mean of its class."""
    onehot = F.one_hot(labels, c).double()
    return x - (onehot.T @ x / onehot.sum(0)[:, None])[labels]
