"""Spread of features within and between classes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.files import Record
from miue.core.run import Run
from miue.mi._features import axes, needed, paired


class Covariance(Record):
    """Summaries of features of length 1, means over classes; `trace` = 1 - `cosine` up to rounding.

    trace: of a class's covariance (divisor n - 1). log_det: of the covariances in the leading subspace that all
    classes share, `rank` dimensions, nats of 2 h; -inf if features of a class coincide. cosine: mean over pairs of
    different rows of one class. distance: Euclidean, mean over pairs of class means.
    """

    trace: float
    log_det: float
    cosine: float
    distance: float
    rank: int


def covariance(z: Float[Tensor, "n d"], labels: Int[Tensor, "n"], run: Run, rank: int = 8) -> Covariance:
    """tr Sigma_y, log det of P Sigma_y P', E cos(z_i, z_j | y), mean ||m_y - m_y'||; u = z / ||z||.

    P holds the `rank` leading eigenvectors of the mean of Sigma_y. Raises UserError if a class has too few rows.
    """
    z, _ = paired(z, z, run)
    codes = needed(labels, len(z), run, "covariance")
    counts = codes.bincount()
    rank = min(rank, z.shape[1])
    if rank < 1 or int(counts.min()) <= rank:
        raise UserError(f"rank={rank} needs classes of more than {rank} rows; the smallest has {int(counts.min())}")
    unit = F.normalize(z, dim=1)
    classes = [unit[codes == c] for c in range(len(counts))]
    means = torch.stack([u.mean(0) for u in classes])
    # weighted so that the leading subspace is that of the mean covariance, whatever the class sizes
    residual = [(u - u.mean(0)) / math.sqrt(len(u) - 1) for u in classes]
    directions, _ = axes(torch.cat(residual), rank)
    traces, cosines, dets = [], [], []
    for u, centred in zip(classes, residual, strict=True):
        n = len(u)
        traces.append(float(centred.square().sum()))
        # sum over i != j of u_i . u_j is ||sum u||^2 minus the squared lengths: no n x n matrix
        cosines.append(float(u.sum(0).square().sum() - u.square().sum()) / (n * (n - 1)))
        dets.append(float(torch.linalg.slogdet((centred @ directions).T @ (centred @ directions)).logabsdet))
    between = F.pdist(means)
    c = len(classes)
    distance = float(between.mean()) if c > 1 else 0.0
    return Covariance(
        trace=sum(traces) / c, log_det=sum(dets) / c, cosine=sum(cosines) / c, distance=distance, rank=rank
    )
