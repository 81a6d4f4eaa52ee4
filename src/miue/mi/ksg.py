"""KSG: mutual information from nearest neighbours (Kraskov, Stögbauer, Grassberger, Phys. Rev. E 69, 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.mi._features import leading, paired, standardised
from miue.run import Run
from miue.types import Estimate, UserError

ELEMENTS = 2**19  # of one block of distances: 4 MiB, near a processor's caches
EXACT_BELOW = 32  # dimensions; above, distances come from a matrix product, good to about 1e-8 of the norm


def _distances(some: Float[Tensor, "b d"], others: Float[Tensor, "n d"], at: Int[Tensor, "b"]) -> Float[Tensor, "b n"]:
    exact = "donot_use_mm_for_euclid_dist" if some.shape[1] <= EXACT_BELOW else "use_mm_for_euclid_dist"
    d = torch.cdist(some, others, compute_mode=exact)
    return d.scatter_(1, at[:, None], 0.0)  # a point is at distance 0 of itself, whatever rounding says


def ksg_ceiling(n: int, k: int) -> float:
    """psi(n) - psi(k): the largest value that KSG can give for n points."""
    return float(torch.digamma(torch.tensor(n).double()) - torch.digamma(torch.tensor(k).double()))


def ksg_nats(x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], k: int) -> float:
    """I = psi(k) + psi(n) - mean_i[psi(n_x(i) + 1) + psi(n_y(i) + 1)], the first KSG algorithm.

    Euclidean distance within x and within y, the larger of the two between pairs. eps(i) is the distance to the k-th
    neighbour, n_x(i) counts points strictly closer than eps(i) in x. Where k neighbours coincide with the point (eps =
    0) coinciding points are counted on all three sides, which is the plug-in rule for discrete values.
    """
    n = len(x)
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for at in torch.arange(n, device=x.device).split(max(ELEMENTS // n, 1)):
        dx, dy = _distances(x[at], x, at), _distances(y[at], y, at)
        joint = torch.maximum(dx, dy)
        eps = joint.topk(k + 1, dim=1, largest=False).values[:, -1:]  # the first is the point itself
        tied = eps[:, 0] == 0
        # the same distances are compared that gave eps, so the neighbour on the boundary is never counted by rounding
        nx, ny = (torch.where(tied, (d <= 0).sum(1), (d < eps).sum(1)) for d in (dx, dy))
        near = torch.where(tied, (joint <= 0).sum(1), k)
        total += (near.double().digamma() - nx.double().digamma() - ny.double().digamma()).sum()
    return float(torch.digamma(torch.tensor(n).double())) + float(total) / n


@dataclass(frozen=True, kw_only=True)
class Ksg:
    """The default: z-scores, the first `rank` principal components of each side, KSG with k neighbours.

    rank=None keeps all dimensions. Errs downwards, the more so the larger the truth and the more dimensions carry it;
    never above psi(n) - psi(k).
    """

    k: int = 5
    rank: int | None = 8

    def __post_init__(self) -> None:
        if self.k < 1 or (self.rank is not None and self.rank < 1):
            raise UserError(f"k={self.k}, rank={self.rank}: both at least 1, or rank=None for all dimensions")

    def __call__(
        self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], run: Run, labels: Int[Tensor, "n"] | None = None
    ) -> Estimate:
        x, y = paired(x, y, run, self.k + 2)
        (x, share_x), (y, share_y) = (leading(standardised(side), self.rank) for side in (x, y))
        parts = {"variance kept of x": share_x, "variance kept of y": share_y}
        wide = max(x.shape[1], y.shape[1])
        notes = (f"{wide} dimensions: errs downwards",) if wide > 10 else ()
        return Estimate(
            ksg_nats(x, y, self.k), "estimate", ceiling=ksg_ceiling(len(x), self.k), parts=parts, notes=notes
        )
