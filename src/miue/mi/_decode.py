"""Labels decoded from features by a linear classifier: cross-fitted, with its held-out cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.mi._features import axes

RANKS = (4, 9, 16, 32, 64, 128)  # tried in turn; the best one on held-out rows is used
FOLDS = 5


def components(side: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
    """Scores of a side on its leading principal components, the input of `decode`; labels are not used."""
    centred = side - side.mean(0)
    return centred @ axes(centred, RANKS[-1])[0]


def decode(
    sides: Sequence[Float[Tensor, "n _"]], labels: Int[Tensor, "n"], generator: torch.Generator
) -> tuple[Float[Tensor, "n c"], float]:
    """Return held-out log posteriors of the labels given all sides together, and their mean cross-entropy in nats.

    sides: the `components` of each. Linear discriminant analysis on the leading ones is fitted to four fifths of the
    rows and predicts the last fifth. The cross-entropy bounds H(Y|Z) from above in expectation, even for classes that
    are not Gaussian: no label is used in its own prediction.
    """
    n, c = len(labels), int(labels.max()) + 1
    fold = _stratified(labels, generator)
    widest = max(side.shape[1] for side in sides)
    ranks = [r for r in RANKS if r < widest] + [widest]
    order = torch.cat([torch.arange(side.shape[1]) for side in sides])  # rank of each component on its own side
    sizes = [int((order < rank).sum()) for rank in ranks]
    z = torch.cat(list(sides), 1)[:, order.argsort(stable=True).to(labels.device)]  # sorted by rank
    posteriors = torch.full((len(ranks), n, c), -math.log(c), dtype=torch.float64, device=labels.device)
    for f in range(FOLDS):
        train, test = fold != f, fold == f
        dof = int(train.sum()) - c
        allowed = [size for size in sizes if size < dof - 1]
        if allowed:
            predictions = _posteriors(z[train, : allowed[-1]], labels[train], z[test], c, allowed)
            posteriors[: len(allowed), test] = torch.stack(predictions)
    losses = torch.stack([F.nll_loss(t, labels) for t in posteriors])
    best = int(losses.argmin())
    return posteriors[best], float(losses[best])


def _stratified(labels: Int[Tensor, "n"], generator: torch.Generator) -> Int[Tensor, "n"]:
    """Fold number of each row; every class is spread evenly over the folds."""
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    onehot = F.one_hot(labels[order])
    place = onehot.cumsum(0).gather(1, labels[order, None]).squeeze(1)
    return torch.empty_like(labels).scatter_(0, order, place % FOLDS)


def _posteriors(
    z: Float[Tensor, "n p"], y: Int[Tensor, "n"], new: Float[Tensor, "m _"], c: int, sizes: Sequence[int]
) -> list[Float[Tensor, "m c"]]:
    """log p(y | new) of Gaussians with a common covariance and smoothed priors, one entry per number of features."""
    onehot = F.one_hot(y, c).double()
    count = onehot.sum(0)
    means = onehot.T @ z / count.clamp_min(1)[:, None]
    residual = z - means[y]
    dof = len(z) - c
    covariance = residual.T @ residual / dof
    covariance.diagonal().add_(1e-9 * covariance.diagonal().mean().clamp_min(torch.finfo(z.dtype).tiny))
    factor = torch.linalg.cholesky(covariance)  # its leading block factors the leading block: one for all sizes
    prior = ((count + 0.5) / (len(z) + 0.5 * c)).log()
    posteriors = []
    for size in sizes:
        # the inverse of a sample covariance is too large by dof / (dof - p - 1): posteriors would be overconfident
        weights = torch.cholesky_solve(means.T[:size], factor[:size, :size]) * (dof - size - 1) / dof
        line = 0.5 * (means.T[:size] * weights).sum(0)
        posteriors.append(F.log_softmax(new[:, :size] @ weights - line + prior, dim=1))
    return posteriors
