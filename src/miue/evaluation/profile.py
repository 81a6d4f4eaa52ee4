"""The noise of a protection in figures: the spread of its energy, and how far it tells the class."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int16
from torch import Tensor

from miue.core.files import Record
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data.split import holdout

MOST, VALUES = 2000, 2**26  # pictures that are looked at, the same number of every class, and values in all of them
BLOCK = 2**21  # values that are float64 at once
HELD_OUT = 0.2
RIDGE = 1e-3  # of the linear classifier, beside the mean energy of a picture
EDGES = (1 / 16, 1 / 8, 1 / 4)  # between the bands, cycles per pixel


class Profile(Record):
    """The noise of a set, protected less clean, on its canvas. Energy is the sum of squares; shares lie in [0,1]."""

    pictures: int
    """Number that was looked at."""
    common: float
    """Share of the energy that all pictures have in common."""
    of_class: float
    """Further share that the pictures of a class have in common; both without what chance leaves in a mean."""
    luminance: float
    """Share that is the same in all channels."""
    bands: tuple[float, float, float, float]
    """Shares by the larger of the two frequencies: periods of more than 16 pixels, 8 to 16, 4 to 8, less than 4."""
    separable: float | None
    """Accuracy on held-out pictures of a linear classifier that sees the noise alone; None for very small classes."""

    def __str__(self) -> str:
        """Text for people."""
        parts = " / ".join(f"{share:.0%}" for share in self.bands)
        guess = "" if self.separable is None else f"; it tells a linear classifier the class in {self.separable:.0%}"
        return (
            f"{self.of_class:.0%} of its energy is common to a class and {self.common:.0%} to all pictures; "
            f"{self.luminance:.0%} is luminance; by period, over 16 / 8 to 16 / 4 to 8 / below 4 pixels: {parts}{guess}"
        )


def profile(clean: ImageSet, protected: ImageSet, run: Run) -> Profile | None:
    """The profile of protected pictures beside their clean ones, row by row; None if nothing changed."""
    rows = sample(clean)
    labels = clean.labels[rows]
    delta = protected.images[rows].to(torch.int16) - clean.images[rows]
    if not delta.any():
        return None
    flat = delta.flatten(1)
    energy, common, of_class = _in_means(flat, labels)
    luminance, spectrum = 0.0, torch.zeros(delta.shape[2:], dtype=torch.float64)
    for part in delta.split(max(BLOCK // flat.shape[1], 1)):
        x = part.double() / 255
        luminance += float(x.mean(1).square().sum()) * x.shape[1] / len(rows)
        spectrum += torch.fft.fft2(x).abs().square().sum((0, 1))
    return Profile(
        pictures=len(rows),
        common=common / energy,
        of_class=of_class / energy,
        luminance=luminance / energy,
        bands=_bands(spectrum),
        separable=_separable(flat, clean.select(rows), run),
    )


def sample(data: ImageSet) -> Int[Tensor, "m"]:
    """The rows that a profile looks at: at most `MOST` with `VALUES`, the first of each class, but at least two."""
    most = min(MOST, VALUES // prod(data.shape))
    per_class = max(most // max(len(data.labels.unique()), 1), 2)
    chosen = [(data.labels == label).nonzero().flatten()[:per_class] for label in data.labels.unique()]
    return torch.cat(chosen).sort().values


def _blocks(levels: Int16[Tensor, "n d"]) -> Iterator[Float[Tensor, "n b"]]:
    """Yield some columns at a time, in [0,1] units: all of them at once would take four times the memory."""
    for columns in levels.split(max(BLOCK // len(levels), 1), dim=1):
        yield columns.double() / 255


def _in_means(levels: Int16[Tensor, "n d"], labels: Int[Tensor, "n"]) -> tuple[float, float, float]:
    """Energy of a picture, that of the mean of all, and that of class means beyond it.

    The last two are less what n independent rows would leave in a mean.
    """
    n, (_, index, counts) = len(levels), labels.unique(return_inverse=True, return_counts=True)
    member = F.one_hot(index).double()
    energy = shared = everything = 0.0
    classes, rest = torch.zeros(len(counts), dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for x in _blocks(levels):
        means, mean = member.T @ x / counts[:, None], x.mean(0)
        energy += float(x.square().sum()) / n
        shared += float(mean.square().sum())
        everything += float((x - mean).square().sum()) / max(n - 1, 1)
        classes += means.square().sum(1)
        rest += (x - means[index]).square().sum(1)
    within = member.T @ rest / (counts - 1).clamp_min(1)  # variance of a row in its class, summed over values
    in_classes = float((counts * (classes - within / counts)).sum()) / n
    common = max(shared - everything / n, 0.0)
    return energy, common, max(in_classes - common, 0.0)


def _bands(spectrum: Float[Tensor, "h w"]) -> tuple[float, float, float, float]:
    fy, fx = (torch.fft.fftfreq(side, dtype=torch.float64).abs() for side in spectrum.shape)
    frequency, edges = torch.maximum(fy[:, None], fx[None, :]), torch.tensor(EDGES, dtype=torch.float64)
    band = torch.bucketize(frequency, edges, right=True)
    a, b, c, d = (float(spectrum[band == number].sum() / spectrum.sum()) for number in range(4))
    return a, b, c, d


def _separable(levels: Int16[Tensor, "n d"], data: ImageSet, run: Run) -> float | None:
    """Held-out accuracy of ridge regression to one-hot labels, in its dual form: (K + r I)^-1 Y, K = x x^T + c^2.

    c: the constant that every row has as a further value, as large as a picture.
    """
    if int(data.labels.bincount()[data.labels.unique()].min()) < 5:
        return None
    train, held = holdout(data, HELD_OUT, run.reseeded(0))
    gram = torch.zeros(len(levels), len(levels), dtype=torch.float64)
    for x in _blocks(levels):
        gram += x @ x.T
    gram += gram.diagonal().mean()
    known, target = gram[train][:, train], F.one_hot(data.labels[train], len(data.classes)).double()
    ridge = RIDGE * float(known.diagonal().mean()) * len(train)
    weights = torch.linalg.solve(known + ridge * torch.eye(len(train), dtype=gram.dtype), target)
    guess = (gram[held][:, train] @ weights).argmax(1)
    return float((guess == data.labels[held]).double().mean())
