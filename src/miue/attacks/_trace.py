"""The change of a surrogate's features of the protected pictures while an attack makes them: three numbers an epoch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from miue.core.run import Run
from miue.core.types import ImageSet
from miue.nets.base import Net

MOST = 512  # largest number of pictures in a trace


def watched(data: ImageSet, mine: Int[Tensor, "m"], run: Run) -> Int[Tensor, "k"]:
    """Rows of this process to trace: the same in every epoch, equally many of every class."""
    order = mine[torch.randperm(len(mine), generator=run.rng("trace"))]
    rank = F.one_hot(data.labels[order], len(data.classes)).cumsum(0).gather(1, data.labels[order, None]).squeeze(1)
    return order[rank <= max(MOST // len(data.classes), 2)].sort().values


@torch.no_grad()
def traced(
    net: Net, see: Callable[[Tensor], Tensor], rows: Int[Tensor, "k"], labels: Int[Tensor, "k"]
) -> tuple[float, float, float]:
    """(mean cosine of pairs of one class, of pairs of two classes, share of the variance that lies within classes).

    The first is 1 - tr Sigma_y of features of length 1. see: maps row numbers to pictures as the surrogate sees them.
    """
    z = torch.cat([net.embed(see(part)) for part in rows.split(256)]).cpu().double()
    onehot = F.one_hot(labels.cpu()).double()
    count, u = onehot.sum(0), F.normalize(z, dim=1)
    sums = onehot.T @ u
    whole, same = float(u.sum(0).square().sum()), float(sums.square().sum())
    pairs = float((count * (count - 1)).sum())
    others = len(z) ** 2 - float(count.square().sum())
    means = onehot.T @ z / count.clamp_min(1)[:, None]
    within = float((z - means[labels.cpu()]).square().sum())
    variance = float((z - z.mean(0)).square().sum())
    return (same - float(u.square().sum())) / max(pairs, 1), (whole - same) / max(others, 1), within / (variance or 1.0)
