"""The noise of a protection in figures: the spread of its energy, and how far it tells the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.files import Record
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.data.split import holdout

MOST = 2000  # pictures that are looked at, the same number of every class
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
    rows = sample(clean.labels)
    labels = clean.labels[rows]
    delta = (protected.images[rows].double() - clean.images[rows].double()) / 255
    energy = float(delta.square().sum()) / len(rows)
    if not energy:
        return None
    flat = delta.flatten(1)
    common, of_class = _in_means(flat, labels)
    return Profile(
        pictures=len(rows),
        common=common / energy,
        of_class=of_class / energy,
        luminance=float(delta.mean(1).square().sum()) * delta.shape[1] / len(rows) / energy,
        bands=_bands(delta),
        separable=_separable(flat, clean.select(rows), run),
    )


def sample(labels: Int[Tensor, "n"]) -> Int[Tensor, "m"]:
    """The rows that a profile looks at: at most `MOST`, the first of every class, but two of each at least."""
    per_class = max(MOST // max(len(labels.unique()), 1), 2)
    chosen = [(labels == label).nonzero().flatten()[:per_class] for label in labels.unique()]
    return torch.cat(chosen).sort().values


def _in_means(x: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> tuple[float, float]:
    """Energy a picture of the mean of all, and of class means beyond it, less what n independent rows would leave."""
    n, (_, index, counts) = len(x), labels.unique(return_inverse=True, return_counts=True)
    member = F.one_hot(index).double()
    means = member.T @ x / counts[:, None]
    rest = (x - means[index]).square().sum(1)
    within = member.T @ rest / (counts - 1).clamp_min(1)  # variance of a row in its class, summed over values
    classes = float((counts * (means.square().sum(1) - within / counts)).sum()) / n
    everything = (x - x.mean(0)).square().sum() / max(n - 1, 1)
    common = max(float(x.mean(0).square().sum() - everything / n), 0.0)
    return common, max(classes - common, 0.0)


def _bands(delta: Float[Tensor, "n c h w"]) -> tuple[float, float, float, float]:
    spectrum = torch.fft.fft2(delta).abs().square().sum((0, 1))
    fy, fx = (torch.fft.fftfreq(side, dtype=torch.float64).abs() for side in delta.shape[2:])
    frequency, edges = torch.maximum(fy[:, None], fx[None, :]), torch.tensor(EDGES, dtype=torch.float64)
    band = torch.bucketize(frequency, edges, right=True)
    a, b, c, d = (float(spectrum[band == number].sum() / spectrum.sum()) for number in range(4))
    return a, b, c, d


def _separable(x: Float[Tensor, "n d"], data: ImageSet, run: Run) -> float | None:
    """Held-out accuracy of ridge regression to one-hot labels, in its dual form: (K + r I)^-1 Y, K = x x^T."""
    if int(data.labels.bincount()[data.labels.unique()].min()) < 5:
        return None
    train, held = holdout(data, HELD_OUT, run.reseeded(0))
    x = torch.cat([x, torch.full((len(x), 1), float(x.square().sum(1).mean()) ** 0.5, dtype=x.dtype)], 1)
    gram, target = x[train] @ x[train].T, F.one_hot(data.labels[train], len(data.classes)).double()
    ridge = RIDGE * float(gram.diagonal().mean()) * len(train)
    weights = torch.linalg.solve(gram + ridge * torch.eye(len(train), dtype=x.dtype), target)
    guess = (x[held] @ x[train].T @ weights).argmax(1)
    return float((guess == data.labels[held]).double().mean())
