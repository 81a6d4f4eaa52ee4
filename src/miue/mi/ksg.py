"""KSG: mutual information from nearest neighbours (Kraskov, Stögbauer, Grassberger, Phys. Rev. E 69, 2004)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import Run
from miue.mi._features import leading, paired, standardised
from miue.mi.estimate import Estimate

ELEMENTS = 2**19  # of one block of distances: 4 MiB, about the size of a processor cache
COINCIDE = 32  # squared distances below this many roundings of the largest squared norm count as 0


def ksg_ceiling(n: int, k: int) -> float:
    """psi(n) - psi(k): the largest value that KSG can give for n points."""
    return float(torch.digamma(torch.tensor(n).double()) - torch.digamma(torch.tensor(k).double()))


def _factors(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d+2"], Float[Tensor, "n d+2"]]:
    """Two matrices whose product holds all squared distances: |a - b|^2 = |a|^2 - 2 ab + |b|^2."""
    square, one = x.square().sum(1, keepdim=True), torch.ones_like(x[:, :1])
    return torch.cat([-2 * x, one, square], 1), torch.cat([x, square, one], 1)


def ksg_nats(x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], k: int) -> float:
    """I = psi(k) + psi(n) - mean_i[psi(n_x(i) + 1) + psi(n_y(i) + 1)], the first KSG algorithm.

    Euclidean distance within x and within y, the larger of the two between pairs. eps(i) is the distance to the k-th
    neighbour, n_x(i) counts points strictly closer than eps(i) in x. Where k neighbours coincide with the point (eps =
    0) coinciding points are counted on all three sides, which is the plug-in rule for discrete values.
    """
    n, sides = len(x), [_factors(side - side.mean(0)) for side in (x, y)]
    # squares below `least` count as equal to it, on both sides: this map is monotone, so neighbours stay the same
    least = COINCIDE * torch.finfo(x.dtype).eps * max(float(rows[:, -1].max()) for rows, _ in sides)
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for at in torch.arange(n, device=x.device).split(max(ELEMENTS // n, 1)):
        dx, dy = ((columns[at] @ rows.T).clamp_min_(least) for rows, columns in sides)
        joint = torch.maximum(dx, dy)
        # the first neighbour of a point is itself, or a point that coincides with it
        eps = joint.topk(k + 1, dim=1, largest=False).values[:, -1:]
        tied = eps[:, 0] <= least
        # eps is one of these distances, so rounding never counts the neighbour on the boundary
        nx, ny = (torch.where(tied, (d <= least).sum(1), (d < eps).sum(1)) for d in (dx, dy))
        near = torch.where(tied, (joint <= least).sum(1), k)
        total += (near.double().digamma() - nx.double().digamma() - ny.double().digamma()).sum()
    return float(torch.digamma(torch.tensor(n).double())) + float(total) / n


@dataclass(frozen=True, kw_only=True)
class KSG:
    """The default: z-scores, the first `rank` principal components of each side, KSG with k neighbours.

    rank=None keeps all dimensions. Errs downwards, the more so the larger the truth and the more dimensions carry it;
    never above psi(n) - psi(k).
    """

    k: int = 5
    rank: int | None = 8

    any_width: ClassVar[bool] = True
    facts: ClassVar[Facts] = Facts(
        name="ksg", year=2004, reference="Kraskov, Stögbauer, Grassberger, Phys. Rev. E 69, 2004"
    )

    def __post_init__(self) -> None:
        if self.k < 1 or (self.rank is not None and self.rank < 1):
            raise UserError(f"k={self.k}, rank={self.rank}: both at least 1, or rank=None for all dimensions")

    def __call__(
        self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], run: Run, labels: Int[Tensor, "n"] | None = None
    ) -> Estimate:
        x, y = paired(x, y, run, self.k + 2)
        (x, share_x), (y, share_y) = (leading(standardised(side), self.rank, run) for side in (x, y))
        parts = {"variance kept of x": share_x, "variance kept of y": share_y}
        wide = max(x.shape[1], y.shape[1])
        notes = (f"{wide} dimensions: errs downwards",) if wide > 10 else ()
        return Estimate(
            ksg_nats(x, y, self.k), "estimate", ceiling=ksg_ceiling(len(x), self.k), parts=parts, notes=notes
        )
