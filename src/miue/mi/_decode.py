"""What a linear classifier reads off features: cross-fitted discriminant analysis and its held-out cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.mi._features import axes

RANKS = (4, 9, 16, 32, 64, 128)  # tried in turn; the one that predicts best on held-out rows is taken
FOLDS = 5


def decode(
    sides: Sequence[Float[Tensor, "n _"]], labels: Int[Tensor, "n"], generator: torch.Generator
) -> tuple[Float[Tensor, "n c"], float]:
    """Held-out log posteriors of the labels given all sides together, and their mean cross-entropy in nats.

    Linear discriminant analysis on the leading principal components of each side, fitted to the labels of four fifths
    of the rows for the last fifth. The cross-entropy bounds H(Y|Z) from above in expectation, whether classes are
    Gaussian or not: no label has a part in its own prediction. Components come from all rows, without labels.
    """
    n, c = len(labels), int(labels.max()) + 1
    fold = _stratified(labels, generator)
    widest = max(side.shape[1] for side in sides)
    ranks = [r for r in RANKS if r < widest] + [min(widest, RANKS[-1])]
    told = torch.full((len(ranks), n, c), -math.log(c), dtype=torch.float64, device=labels.device)
    centred = [side - side.mean(0) for side in sides]
    scores = [side @ axes(side, RANKS[-1])[0] for side in centred]
    order = torch.cat([torch.arange(s.shape[1]) for s in scores]).to(labels.device)  # of each component on its side
    z = torch.cat(scores, 1)
    for f in range(FOLDS):
        train, test = fold != f, fold == f
        moments, new = _Moments.of(z[train], labels[train], c), z[test]
        for i, rank in enumerate(ranks):
            at = (order < rank).nonzero()[:, 0]
            if moments.dof > len(at) + 1:
                told[i, test] = _posterior(moments, at, new[:, at])
    losses = torch.stack([F.nll_loss(t, labels) for t in told])
    best = int(losses.argmin())
    return told[best], float(losses[best])


def _stratified(labels: Int[Tensor, "n"], generator: torch.Generator) -> Int[Tensor, "n"]:
    """A fold for each row, every class spread evenly over the folds."""
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    onehot = F.one_hot(labels[order])
    place = onehot.cumsum(0).gather(1, labels[order, None]).squeeze(1)
    return torch.empty_like(labels).scatter_(0, order, place % FOLDS)


@dataclass(frozen=True)
class _Moments:
    """Of Gaussian classes with one covariance: rows by class, class means, covariance, its degrees of freedom."""

    count: Float[Tensor, "c"]
    means: Float[Tensor, "c p"]
    covariance: Float[Tensor, "p p"]
    dof: int

    @classmethod
    def of(cls, z: Float[Tensor, "n p"], y: Int[Tensor, "n"], c: int) -> _Moments:
        onehot = F.one_hot(y, c).double()
        count = onehot.sum(0)
        means = onehot.T @ z / count.clamp_min(1)[:, None]
        residual = z - means[y]
        return cls(count, means, residual.T @ residual / (len(z) - c), len(z) - c)


def _posterior(moments: _Moments, at: Int[Tensor, "q"], new: Float[Tensor, "m q"]) -> Float[Tensor, "m c"]:
    """log p(y | new) from the components `at` alone; smoothed priors, unbiased precision."""
    count, means, dof = moments.count, moments.means[:, at], moments.dof
    covariance = moments.covariance[at[:, None], at]
    covariance.diagonal().add_(1e-9 * covariance.diagonal().mean().clamp_min(torch.finfo(new.dtype).tiny))
    # the inverse of a sample covariance is too large by dof / (dof - p - 1): posteriors would be overconfident
    weights = torch.linalg.solve(covariance, means.T) * (dof - len(at) - 1) / dof
    prior = ((count + 0.5) / (count.sum() + 0.5 * len(count))).log()
    return F.log_softmax(new @ weights - 0.5 * (means.T * weights).sum(0) + prior, dim=1)
