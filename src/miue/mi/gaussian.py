"""Mutual information of Gaussians in closed form, and of Gaussian copulas: building blocks and oracles.

Not offered as an estimator of features: one Gaussian over several classes counts their means as correlation and reports
several times the truth, and a deterministic pair has no finite value.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError


def _log_det(covariance: Float[Tensor, "d d"]) -> float:
    """log det by Cholesky; -inf if the matrix is singular."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    return -math.inf if int(failed) else 2 * float(factor.diagonal().log().sum())


def wishart_bias(d: int, dof: int) -> float:
    """E log det S - log det Sigma for a sample covariance S with `dof` degrees of freedom:

    sum_{i=1..d} psi((dof - i + 1) / 2) - d log(dof / 2), below 0.
    """
    half = (dof - torch.arange(d, dtype=torch.float64)) / 2
    return float(half.digamma().sum()) - d * math.log(dof / 2)


def gaussian(x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], correct: bool = True, dof: int | None = None) -> float:
    """I = 1/2 (log det S_x + log det S_y - log det S_xy), nats; unbiased for Gaussians if `correct`.

    dof: degrees of freedom of rows that were centred by more than one mean (n minus the number of means). Infinite
    if y is a linear function of x. Raises UserError if pairs are too few or the features of one side are linearly
    dependent.
    """
    n, dx, dy = len(x), x.shape[1], y.shape[1]
    dof = n - 1 if dof is None else dof
    if dof <= dx + dy:
        raise UserError(f"{n} pairs are too few for {dx} + {dy} dimensions; reduce the rank or take more rows")
    both = torch.cat([x, y], 1)
    both = both - both.mean(0)
    both = both / both.std(0, correction=0).clamp_min(torch.finfo(both.dtype).tiny)  # scale-free, better conditioned
    covariance = both.T @ both / dof
    of_x, of_y, of_both = _log_det(covariance[:dx, :dx]), _log_det(covariance[dx:, dx:]), _log_det(covariance)
    if math.isinf(of_x) or math.isinf(of_y):
        raise UserError("features of one side are constant or linearly dependent; reduce the rank")
    bias = wishart_bias(dx, dof) + wishart_bias(dy, dof) - wishart_bias(dx + dy, dof)
    return 0.5 * (of_x + of_y - of_both - (bias if correct else 0.0))


def gaussian_copula(x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"]) -> float:
    """`gaussian` of normal scores: every feature is replaced by the normal quantile of its rank.

    Exact if monotone maps of single features make the pair Gaussian (Ince et al., Human Brain Mapping 38, 2017).
    """
    normal = [torch.special.ndtri((side.argsort(0).argsort(0) + 1).double() / (len(side) + 1)) for side in (x, y)]
    return gaussian(*normal)
