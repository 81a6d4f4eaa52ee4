"""Samples with known mutual information, to test estimators."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from miue.core.errors import UserError
from miue.core.run import Run
from miue.mi.estimate import KnownPairs


def gaussian_pairs(n: int, d: int, nats: float, generator: Generator, spread_over: int | None = None) -> KnownPairs:
    """Gaussians of unit variance with I = -(r/2) log(1 - rho^2) = `nats` spread over r of d coordinate pairs.

    spread_over: r; None correlates all d pairs equally ("dense"). Otherwise each side is rotated ("lowrank"): all
    directions have equal variance, so principal components cannot find the correlated ones.
    """
    r = d if spread_over is None else min(spread_over, d)
    rho = math.sqrt(-math.expm1(-2 * nats / r))
    x, e = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    y = e.clone()
    y[:, :r] = rho * x[:, :r] + math.sqrt(1 - rho**2) * e[:, :r]
    if spread_over is not None:
        x, y = x @ rotation(d, generator), y @ rotation(d, generator)
    name = f"{'dense' if spread_over is None else 'lowrank'}, d={d}"
    return KnownPairs(name, x, y, torch.randint(4, (n,), generator=generator), nats)


def warped(pairs: KnownPairs) -> KnownPairs:
    """x -> x sqrt|x| (half-cube) and y -> asinh(4 y): invertible, so the mutual information stays the same."""
    x, y = pairs.x * pairs.x.abs().sqrt(), torch.asinh(4 * pairs.y)
    return KnownPairs(f"warp of {pairs.name}", x, y, pairs.labels, pairs.nats, pairs.error)


def rotation(d: int, generator: Generator) -> Float[Tensor, "d d"]:
    """A random orthogonal matrix."""
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]


@dataclass(frozen=True, kw_only=True)
class ClassMixture:
    """x and y of C classes: unit Gaussians around the corners of a simplex, like penultimate features.

    separation_x, separation_y: distance of class means in standard deviations. rho: correlation of x_j with y_j within
    a class, in each of C latent dimensions. Dimensions beyond C are noise of deviation 0.3; all are rotated.
    """

    separation_x: float
    separation_y: float = 8.0
    rho: float = 0.0
    classes: int = 10

    def __post_init__(self) -> None:
        if not -1 < self.rho < 1 or self.classes < 1 or min(self.separation_x, self.separation_y) < 0:
            raise UserError(f"{self}: |rho| < 1, at least one class, no negative separation")

    @property
    def within(self) -> float:
        """I(x; y | class) = -(C/2) log(1 - rho^2), nats."""
        return -self.classes / 2 * math.log1p(-(self.rho**2))

    def latent(
        self, n: int, generator: Generator
    ) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n c"], Int[Tensor, "n"]]:
        """Return latent x, latent y and class of n samples."""
        labels = torch.randint(self.classes, (n,), generator=generator)
        e, f = (torch.randn(n, self.classes, generator=generator, dtype=torch.float64) for _ in range(2))
        means = self._means()
        return e + means[0][labels], self.rho * e + math.sqrt(1 - self.rho**2) * f + means[1][labels], labels

    def sample(self, n: int, d: int, generator: Generator, truth: tuple[float, float] | None = None) -> KnownPairs:
        """n pairs in d >= C dimensions. truth: result of `nats`, to avoid computing it for every sample."""
        if d < self.classes:
            raise UserError(f"d={d} is below the {self.classes} latent dimensions")
        x, y, labels = self.latent(n, generator)
        extra = (0.3 * torch.randn(n, d - self.classes, generator=generator, dtype=torch.float64) for _ in range(2))
        turn = rotation(d, generator)  # the same for both: clean and protected features share one space
        x, y = (torch.cat([z, noise], 1) @ turn for z, noise in zip((x, y), extra, strict=True))
        nats, error = truth or self.nats(generator)
        return KnownPairs(f"class, d={d}", x, y, labels, nats, error)

    def nats(self, generator: Generator, draws: int = 100_000) -> tuple[float, float]:
        """I(x; y) = E[log p(x, y) - log p(x) - log p(y)] by Monte Carlo, and its standard error."""
        x, y, _ = self.latent(draws, generator)
        terms = self.log_density(x, y) - self.log_density(x) - self.log_density(y=y)
        return float(terms.mean()), float(terms.std()) / math.sqrt(draws)

    def log_density(
        self, x: Float[Tensor, "n c"] | None = None, y: Float[Tensor, "n c"] | None = None
    ) -> Float[Tensor, "n"]:
        """log p(x), log p(y) or log p(x, y) of latent points."""
        return self.log_parts(x, y).logsumexp(1) - math.log(self.classes)

    def log_parts(
        self, x: Float[Tensor, "n c"] | None = None, y: Float[Tensor, "n c"] | None = None
    ) -> Float[Tensor, "n k"]:
        """Log density of latent points given each class."""
        mx, my = self._means()
        parts = []
        u = None if x is None else x[:, None] - mx
        if u is not None:
            parts.append(_log_normal(u))
        if y is not None:
            v = y[:, None] - my
            rest = math.sqrt(1 - self.rho**2) if u is not None else 1.0
            parts.append(_log_normal((v if u is None else v - self.rho * u) / rest) - self.classes * math.log(rest))
        return torch.stack(parts).sum(0)

    def _means(self) -> tuple[Tensor, Tensor]:
        corner = torch.eye(self.classes, dtype=torch.float64) / math.sqrt(2)
        return self.separation_x * corner, self.separation_y * corner


def _log_normal(x: Float[Tensor, "n k c"]) -> Float[Tensor, "n k"]:
    return -0.5 * x.square().sum(-1) - x.shape[-1] / 2 * math.log(2 * math.pi)


# about 0, 0.5, 2 and 5 nats; the truth of each is computed, not taken from here
LEVELS = (
    ClassMixture(separation_x=0.0),
    ClassMixture(separation_x=1.54),
    ClassMixture(separation_x=4.2),
    ClassMixture(separation_x=8.0, rho=0.646),
)


def suite(run: Run, n: int = 1000) -> Iterator[KnownPairs]:
    """Cases for `miue.testing.check_estimator`: independence, two correlations, classes."""
    yield gaussian_pairs(n, 2, 0.0, run.rng("known", 0))
    yield gaussian_pairs(n, 1, 0.5, run.rng("known", 1))
    yield gaussian_pairs(n, 1, 2.0, run.rng("known", 2))
    yield LEVELS[2].sample(n, 10, run.rng("known", 3))
