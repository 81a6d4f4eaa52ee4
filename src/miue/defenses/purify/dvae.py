"""D-VAE: a disentangled variational autoencoder that takes perturbations out of pictures (Yu et al., ICML 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from miue.core.errors import UserError
from miue.core.files import tensor_digest
from miue.core.method import Facts, at_least
from miue.core.run import Run
from miue.core.types import eight_bits
from miue.nets.base import Residual, convolution
from miue.training.loop import Training

CLIP = 5.0  # largest norm of a gradient
QUIET = 11  # first epochs, in which the size of the perturbation is not in the loss
LOUD = 0.002  # mean square of a perturbation up to which its size costs nothing
PART = 256  # pictures processed at once


class Autoencoder(nn.Module):
    """Picture and class in; picture again and perturbation out, both through one sampled code of half the side.

    The code is too narrow for fine patterns of single pictures; what is the same all over a class can be learnt by the
    class's own embedding, and is told apart as the perturbation.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, width: int, latent: int) -> None:
        super().__init__()
        channels, *self.side = shape
        self.grid = [-(-side // 2) for side in self.side]
        blocks = convolution(channels, width), Residual(width), Residual(width)
        self.encoder = nn.Sequential(*blocks, convolution(width, 2 * width, 2), Residual(2 * width))
        self.code = nn.Conv2d(2 * width, 2 * latent, 1)
        self.back = nn.Conv2d(latent, 2 * width, 1)
        self.own = nn.Embedding(classes, 2 * width * self.grid[0] * self.grid[1])
        self.picture, self.perturbation = (_decoder(channels, width) for _ in range(2))
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def forward(
        self, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], noise: Float[Tensor, "b l hh wh"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"], Float[Tensor, ""]]:
        """Return the picture in [0,1], the perturbation, and the divergence of the code from N(0, I) in nats."""
        with self.autocast():
            mean, log_variance = self.code(self.encoder(x)).float().chunk(2, 1)
            z = self.back(mean + noise * (0.5 * log_variance).exp())
            own = self.own(y).view(len(y), -1, *self.grid)
            picture, perturbation = self.picture(z), self.perturbation(own + z)
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        height, width = self.side
        return picture.float().sigmoid()[..., :height, :width], perturbation.float()[..., :height, :width], divergence


def _decoder(channels: int, width: int) -> nn.Sequential:
    """Layers from features to channels that double the side."""
    return nn.Sequential(
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.Conv2d(width, width, 3, padding=1),
        nn.InstanceNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width // 2, 3, padding=1),
        nn.InstanceNorm2d(width // 2),
        nn.ReLU(),
        nn.Conv2d(width // 2, channels, 3, padding=1),
    )


def loss(
    x: Float[Tensor, "b c h w"],
    picture: Float[Tensor, "b c h w"],
    perturbation: Float[Tensor, "b c h w"],
    divergence: Float[Tensor, ""],
    floor: float,
    quiet: bool,
) -> Float[Tensor, ""]:
    """MSE(picture, x) + MSE(clamp(picture + p), x) + w max(divergence, floor), then + max(mean p^2, 0.002).

    w: 0.01, and 0.5 for a floor below 0.99 nats, as in the source. quiet: without the last term.
    """
    both, weight = (picture + perturbation).clamp(0, 1), 0.01 if floor > 0.99 else 0.5
    value = F.mse_loss(picture, x) + F.mse_loss(both, x) + weight * divergence.clamp_min(floor)
    return value if quiet else value + perturbation.square().mean().clamp_min(LOUD)


@dataclass(frozen=True, kw_only=True)
class DVAE:
    """Train an autoencoder that separates what a class has in common, take that out, and redraw with a second one.

    x <- clamp(x - p), rounded to 8 bits (the source truncates); then, with a second one trained on these, its picture
    of clamp(x - p). Adam with a cosine rate. first, second: nats of divergence below which it costs nothing to use
    them: the more, the sharper the pictures. width, latent: channels; the source's encoder is the beginning of a
    ResNet-18, ours has as many blocks of our own. Slow without a GPU; `dvae:width=16,epochs=20` is for small sets.
    """

    epochs: int = 60
    batch: int = 128
    lr: float = 5e-3
    first: float = 1.0
    second: float = 3.0
    width: int = 64
    latent: int = 256

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(name="dvae", year=2024, reference="Yu et al., ICML 2024, arXiv 2405.01460")

    def __post_init__(self) -> None:
        at_least(self, epochs=1, batch=1, first=0, second=0, width=2, latent=1)
        if not self.lr > 0:
            raise UserError(f"dvae: lr={self.lr:g} is not positive")

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        net = self.trained(x, y, self.first, run, "first")
        x = eight_bits(x - self._through(net, x, y, run, "first")[1]).float() / 255
        net = self.trained(x, y, self.second, run, "second")
        x = (x - self._through(net, x, y, run, "second")[1]).clamp_(0, 1)
        return self._through(net, x, y, run, "redrawn")[0]

    def trained(
        self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], floor: float, run: Run, name: str
    ) -> Autoencoder:
        """An autoencoder fitted to these pictures. Resumes after the last finished epoch if `run` keeps state."""
        with run.seeded("dvae", name):
            net = run.place(Autoencoder(tuple(x.shape[1:]), int(y.max()) + 1, self.width, self.latent)).train()
        count = -(-len(x) // self.batch)
        optimizer = torch.optim.Adam(net.parameters(), self.lr)
        identity = {"dvae": repr(self), "pictures": tensor_digest(x), "labels": tensor_digest(y), "seed": run.seed}
        training = Training(net, optimizer, run, f"D-VAE, {name} of two", f"dvae-{name}", identity)

        def stream(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            generator = run.rng("dvae", name, epoch)
            for rows in torch.randperm(len(x), generator=generator).tensor_split(count):
                noise = self._noise(net, len(rows), generator)
                yield run.put(x[rows]), run.put(y[rows]), run.put(noise)

        def value(quiet: bool, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            picture, perturbation, divergence = net(*batch)
            return loss(batch[0], picture, perturbation, divergence, floor, quiet)

        for epoch in training.epochs(self.epochs, count):
            training.learn(partial(value, epoch < QUIET), stream(epoch), clip=CLIP)
        return net.eval()

    @torch.no_grad()
    def _through(
        self, net: Autoencoder, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run, name: str
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
        """Return redrawn pictures and perturbations, in main memory; the code is sampled, not its mean."""
        generator, redrawn, taken = run.rng("dvae", "sample", name), torch.empty_like(x), torch.empty_like(x)
        for rows in torch.arange(len(x)).split(PART):
            noise = self._noise(net, len(rows), generator)
            picture, p, _ = net(run.put(x[rows]), run.put(y[rows]), run.put(noise))
            redrawn[rows], taken[rows] = picture.to(x.device), p.to(x.device)
        return redrawn, taken

    def _noise(self, net: Autoencoder, count: int, generator: torch.Generator) -> Float[Tensor, "b l hh wh"]:
        return torch.randn(count, self.latent, *net.grid, generator=generator)
