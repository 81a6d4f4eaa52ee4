"""The form of the noise, by its file: brightness, class means, frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from miue.core.types import Perturbation

MOST = 2000  # rows whose spectrum is taken, evenly spaced


@dataclass(frozen=True)
class Noise:
    """Shares of the energy of a perturbation, its mean square."""

    rows: int
    side: int
    level: float
    """Root mean square, in grey levels."""
    brightness: float | None
    """Share that is equal in all three channels; None for one channel."""
    classes: float
    """Share of the means of classes."""
    chance: float
    """The same share if the noise of every picture were drawn by itself."""
    octaves: Sequence[tuple[str, float]]
    """Share by frequency, in cycles a side: the mean, 1 to 2, 2 to 4 and so on."""


def measured(perturbation: Perturbation, labels: Sequence[int]) -> Noise:
    """Measure the noise on its own grid, all of it, where `evaluation.profile` looks at what some pictures show of it.

    labels: the class of every picture, in row order. With one row for each class the share of class means is 1 by
    construction.
    """
    delta = perturbation.delta
    energy = sum(float(part.float().square().sum()) for part in delta.split(1024)) or 1.0
    whose = torch.arange(len(delta)) if perturbation.labels is not None else torch.tensor(list(labels))
    count = int(whose.max()) + 1
    sums = torch.zeros(count, *delta.shape[1:])
    brightness = 0.0
    for rows, label in zip(delta.split(1024), whose.split(1024), strict=True):
        sums.index_add_(0, label, rows.float())
        brightness += float(rows.float().mean(1).square().sum()) * delta.shape[1]
    sizes = whose.bincount(minlength=count).clamp(min=1)
    of_classes = float((sums.square().flatten(1).sum(1) / sizes).sum())
    return Noise(
        rows=len(delta),
        side=delta.shape[-1],
        level=(energy / delta.numel()) ** 0.5,
        brightness=brightness / energy if delta.shape[1] == 3 else None,
        classes=of_classes / energy,
        chance=min(int((whose.bincount() > 0).sum()) / len(delta), 1.0),
        octaves=_octaves(delta[:: max(len(delta) // MOST, 1)].float()),
    )


def _octaves(delta: Float[Tensor, "n c h w"]) -> list[tuple[str, float]]:
    """Share of the energy by octaves of the distance from frequency 0; above the Nyquist frequency in the last one."""
    height, width = delta.shape[-2:]
    power = torch.zeros(height, width)
    for part in delta.split(256):
        power += torch.fft.fft2(part).abs().square().sum((0, 1))
    y, x = torch.fft.fftfreq(height, 1 / height), torch.fft.fftfreq(width, 1 / width)
    radius = (y[:, None].square() + x[None].square()).sqrt()
    total, shares, low = float(power.sum()) or 1.0, [("mean", float(power[0, 0]))], 1
    while low <= max(height, width) / 2:
        last = 2 * low > max(height, width) / 2
        inside = (radius >= low) & (radius < (float("inf") if last else 2 * low))
        shares.append((f"{low} and more" if last else f"{low} to {2 * low}", float(power[inside].sum())))
        low *= 2
    return [(name, share / total) for name, share in shares]
