"""AR: autoregressive perturbations (Sandoval-Segura et al., NeurIPS 2022, arXiv 2206.03693)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, product
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import AttackFacts, BaseAttack, Kept
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.training import perturb

MARGIN = 4  # first rows and columns that are cut off: two are noise, the next two are still close to it
TRIALS = 3  # signals that a new process must generate without growing
BATCH = 2048  # channels drawn at once; about one in six is stable
SIDE = 32  # side of the signals that compare processes, for pictures of any size: limits are known for it
POOL = 3200  # candidates; 10 processes of distance 10 take 500 to 2500
MOST = 30  # of 1,140 processes 99 % answer each other with less than 16
ASKED = 64  # signals by which filters are compared
WINDOW = tuple(product(range(3), range(3)))[:-1]


def signals(coefficients: Float[Tensor, "n c 3 3"], start: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """x[i, j] = sum over (a, b) != (2, 2) of coefficients[a, b] x[i - 2 + a, j - 2 + b] for i, j >= 2.

    The first two rows and columns are those of `start`. Values of one anti-diagonal do not depend on each other, so a
    whole diagonal of all pictures is one step; diagonals lie in memory as rows.
    """
    n, c, h, w = start.shape
    i, j = (index.flatten() for index in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))
    x = torch.zeros(h + w - 1, h, n, c, device=start.device)
    x[i + j, i] = start.permute(2, 3, 0, 1).reshape(h * w, n, c)
    weight = coefficients.permute(2, 3, 0, 1)
    for diagonal in range(4, h + w - 1):
        first, last = max(2, diagonal - w + 1), min(h, diagonal - 1)
        value = x[diagonal, first:last].zero_()
        for a, b in WINDOW:
            value.addcmul_(weight[a, b], x[diagonal - 4 + a + b, first - 2 + a : last - 2 + a])
    return x[i + j, i].reshape(h, w, n, c).permute(2, 3, 0, 1)


def generated(
    coefficients: Float[Tensor, "n c 3 3"], height: int, width: int, generator: torch.Generator
) -> Float[Tensor, "n c {height} {width}"]:
    """Signals from standard normal starts, without the first rows and columns."""
    n, c = coefficients.shape[:2]
    start = torch.randn(n, c, height + MARGIN, width + MARGIN, generator=generator).to(coefficients.device)
    return signals(coefficients, start)[..., MARGIN:, MARGIN:]


def candidates(n: int, generator: torch.Generator) -> Float[Tensor, "{n} 1 3 3"]:
    """Normal coefficients of one channel that sum to 1; the last one, that of the value itself, is 0."""
    drawn = torch.randn(n, 1, 8, generator=generator)
    return F.pad(drawn / drawn.sum(2, keepdim=True), (0, 1)).reshape(n, 1, 3, 3)


def matching(coefficients: Float[Tensor, "n c 3 3"]) -> Float[Tensor, "n c 3 3"]:
    """Filter with response 0 to its own process: the coefficients, with -1 for the value itself."""
    return coefficients - F.pad(torch.ones_like(coefficients[..., :1, :1]), (2, 0, 2, 0))


def response(signals: Float[Tensor, "n c h w"], filters: Float[Tensor, "k c 3 3"]) -> Float[Tensor, "n k"]:
    """Response of each filter to each signal of length 1: the sum of the positive part of the convolution."""
    unit = signals / signals.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    return torch.cat([F.conv2d(part, filters).relu().sum((2, 3)) for part in unit.split(8)])  # a part fits the cache


def stable(
    drawn: Float[Tensor, "n 1 3 3"], height: int, width: int, generator: torch.Generator, trials: int = TRIALS
) -> Float[Tensor, "m 1 3 3"]:
    """Channels whose `trials` signals are all finite, with a norm of at most 50 / sqrt(3) on 32 x 32."""
    limit = 50 * (height * width / 3072) ** 0.5
    for _ in range(trials):
        size = generated(drawn, height, width, generator).flatten(1).norm(dim=1)
        drawn = drawn[size <= limit]  # False for NaN
    return drawn


def apart(
    signals: Float[Tensor, "n c h w"], filters: Float[Tensor, "n c 3 3"], classes: int, distance: float
) -> Int[Tensor, "m"]:
    """Rows, at most `classes`, whose filters respond to the signals of all later rows with at least `distance`.

    Greedy: the next row is the one whose filter responds to most of the remaining signals (a sample of them).
    """
    left, taken = torch.arange(len(signals)), []
    while len(left) and len(taken) < classes:
        best = left[(response(signals[left[:ASKED]], filters[left]) >= distance).sum(0).argmax()]
        taken.append(best)
        left = left[(response(signals[left], filters[best][None])[:, 0] >= distance) & (left != best)]
    return torch.stack(taken)


def search(classes: int, shape: tuple[int, int, int], distance: float, run: Run) -> Float[Tensor, "{classes} c 3 3"]:
    """One process per class from seeded candidates: each channel `stable`, all of them `apart` on 32 x 32.

    Each failed attempt doubles the candidates, up to POOL or four times the classes; after that it lowers the distance
    by a fifth.
    """
    c, h, w = shape
    processes, signal, wanted = torch.empty(0, c, 3, 3), torch.empty(0, c, SIDE, SIDE), 2 * classes
    for number in count():
        generator = run.rng("ar", "search", number)
        drawn = stable(candidates(BATCH, generator), SIDE, SIDE, generator)
        if max(h, w) > SIDE:  # slow growth only shows at this size
            drawn = stable(drawn, h, w, generator, 1)
        drawn = drawn[: len(drawn) // c * c].reshape(-1, c, 3, 3)
        processes = torch.cat([processes, drawn])
        signal = torch.cat([signal, generated(drawn, SIDE, SIDE, generator)])
        if len(processes) < wanted:
            continue
        most = max(POOL, 4 * classes)
        while len(rows := apart(signal, matching(processes), classes, distance)) < classes and wanted >= most:
            distance *= 0.8
        if len(rows) == classes:
            return processes[rows]
        wanted = min(2 * len(processes), most)
    raise AssertionError("unreachable")


@dataclass(frozen=True, kw_only=True)
class AR(BaseAttack):
    """Every class has a linear process of 3 x 3 windows; every picture gets its own signal of its class's process.

    Scaled to the full L2 budget, or to the largest value in an L-infinity one. distance: how different processes must
    be (`search`); the reference takes 10, and 3 for 100 classes. Deviation: the processes come from our own search,
    which lowers the distance by fifths where its candidates do not suffice (100 classes on 32 x 32 get 4.1).
    """

    distance: float = 10.0

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="ar",
        title="AR",
        year=2022,
        reference="Sandoval-Segura et al., NeurIPS 2022, arXiv 2206.03693",
        summary="noise from a linear process of the class, which no plane separates",
        passes=0,
        needs="nothing",
        natural=Budget(1.0, "l2"),
        norms=("l2", "linf"),
    )

    def __post_init__(self) -> None:
        if not 0 <= self.distance <= MOST:
            raise UserError(f"distance={self.distance:g} is not between 0 and {MOST}: no processes are so different")

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Float[Tensor, "n c h w"]:
        return self._signals(data, budget, run, 0)

    def craft_more(self, new: ImageSet, kept: Kept, budget: Budget, run: Run) -> Float[Tensor, "n c h w"]:
        """Delta of later pictures: signals of their own, of the same processes, which come from the seed."""
        return self._signals(new, budget, run, kept.count)

    def _signals(self, data: ImageSet, budget: Budget, run: Run, first: int) -> Float[Tensor, "n c h w"]:
        """first: number of the first picture, which no earlier one has."""
        processes = search(len(data.classes), data.shape, self.distance, run)
        delta = torch.empty(data.images.shape)
        for rows in torch.arange(len(data)).split(4096):
            own = run.put(processes[data.labels[rows]])
            signal = generated(own, *data.shape[1:], run.rng("ar", "signal", first + int(rows[0])))
            delta[rows] = perturb.scaled(signal, budget).cpu()
        return delta
