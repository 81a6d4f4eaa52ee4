"""Mutual information of two single numbers, by histogram and by kernel densities."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.mi._tables import counts, miller_madow, plug_in

ELEMENTS = 2**22


def bin_count(n: int) -> int:
    """Number of bins per side, n^(1/3)."""
    return max(int(n ** (1 / 3) + 1e-9), 2)


def binned(x: Float[Tensor, "n s"], bins: int, equal: str = "counts") -> Int[Tensor, "s n"]:
    """Bin number of each value; bins have equal "counts", or equal "widths" from the least to the largest value.

    Equal values share a bin: ties broken by row number would look like dependence.
    """
    columns = x.T.contiguous()
    if equal == "widths":
        low, high = columns.aminmax(dim=1, keepdim=True)
        width = (high - low).clamp_min(torch.finfo(x.dtype).tiny)
        return ((columns - low) / width * bins).long().clamp_(max=bins - 1)
    edges = columns.sort(1).values[:, torch.arange(1, bins, device=x.device) * len(x) // bins].contiguous()
    return torch.searchsorted(edges, columns, right=True)


def histogram_nats(
    x: Float[Tensor, "n s"], y: Float[Tensor, "n s"], bins: int, correct: bool, equal: str = "counts"
) -> list[float]:
    """Plug-in mutual information of every pair of binned columns, at most log bins.

    correct: subtract the expected bias, about (bins - 1)^2 / 2n.
    """
    slices = x.shape[1]
    number = torch.arange(slices, device=x.device)[:, None]
    tables = counts(number * bins + binned(x, bins, equal), binned(y, bins, equal), slices * bins, bins).reshape(
        slices, bins, bins
    )
    return [min(plug_in(t) - (miller_madow(t) if correct else 0.0), math.log(bins)) for t in tables.cpu()]


def kde_nats(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> float:
    """Mean of log p(x, y) / (p(x) p(y)), each density leave-one-out with Gaussian kernels of width n^(-1/6) deviations.

    One width for all three densities (Silverman's for two dimensions), so that most of the smoothing cancels.
    """
    n = len(x)
    x, y = ((v - v.mean()) / v.std().clamp_min(torch.finfo(v.dtype).tiny) * n ** (1 / 6) for v in (x, y))
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for at in torch.arange(n, device=x.device).split(max(ELEMENTS // n, 1)):
        px, py = (-0.5 * (v[at, None] - v).square().scatter_(1, at[:, None], torch.inf) for v in (x, y))
        total += ((px + py).logsumexp(1) - px.logsumexp(1) - py.logsumexp(1)).sum()
    return float(total) / n + math.log(n - 1)
