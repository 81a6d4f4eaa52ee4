"""SimCLR: training without labels first (Chen, Kornblith, Norouzi, Hinton, ICML 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from miue.core.errors import UserError
from miue.core.files import tensor_digest
from miue.core.method import Facts, at_least
from miue.core.run import Run
from miue.training.batches import Batches
from miue.training.contrastive import contrast_loss, contrastive
from miue.training.loop import Training, weights_digest


class _Projected(nn.Module):
    """The trunk with a projection head, which is discarded after training."""

    def __init__(self, net: Any, width: int, out: int) -> None:
        super().__init__()
        self.net = net
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p"]:
        return self.projection(self.net.embed(x))


@dataclass(frozen=True, kw_only=True)
class SimCLR:
    """Learn features by contrast on the training pictures without their labels, then train the head on them.

    NT-Xent at temperature tau of two views of each picture, through a projection head with one hidden layer. probe:
    the head alone learns afterwards; false trains everything on. Unlike the source: Adam instead of LARS, and a batch
    that fits one machine. strength: of the views, 1 is the source's.
    """

    epochs: int = 100
    batch: int = 256
    lr: float = 1e-3
    tau: float = 0.5
    strength: float = 1.0
    width: int = 128
    probe: bool = True

    slot: ClassVar[Literal["start"]] = "start"
    facts: ClassVar[Facts] = Facts(name="simclr", year=2020, reference="Chen et al., ICML 2020, arXiv 2002.05709")

    def __post_init__(self) -> None:
        at_least(self, epochs=1, batch=2, width=1)
        if not (self.lr > 0 and self.tau > 0 and 0 < self.strength <= 1):
            raise UserError(
                f"simclr: lr={self.lr:g}, tau={self.tau:g}, strength={self.strength:g}: positive, strength at most 1"
            )

    def __call__(self, net: Any, train: Batches, run: Run) -> None:
        with torch.no_grad():
            width = net.eval().embed(train.take(train.rows[:1])).shape[1]
        with run.seeded("simclr"):
            whole = run.place(_Projected(net, width, self.width))
        optimizer = torch.optim.Adam(whole.parameters(), self.lr)
        pictures = tensor_digest(train.images)  # as purified
        identity = {"simclr": repr(self), "pictures": pictures, "network": weights_digest(net), "seed": run.seed}
        training = Training(whole, optimizer, run, f"SimCLR on {train.data.name}", "simclr", identity)

        def views(epoch: int) -> Iterator[Float[Tensor, "v c h w"]]:
            generator = run.rng("simclr", epoch)
            for _, x, _ in train.shuffled(self.batch, "simclr", epoch):
                yield torch.cat([contrastive(x, generator, self.strength) for _ in range(2)])

        for epoch in training.epochs(self.epochs, train.count(self.batch)):
            whole.train()
            training.learn(lambda x: contrast_loss(whole(x), self.tau), views(epoch))
