"""Fine-tuning on clean pictures: a trainer who knows that the set was protected, and has some that were not."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F

from miue import data
from miue.core.errors import UserError
from miue.core.method import Facts, at_least
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.training.batches import Batch, Batches
from miue.training.loop import Training, weights_digest
from miue.victims.recipe import FlipCrop


@dataclass(frozen=True, kw_only=True)
class Tune:
    """After the training, go on with clean pictures of the same classes alone, at a lower rate; SGD, flip and crop.

    clean: where they are, as for `--clean`; split: of them; per_class: only the first ones of every class, 0 takes all.
    head=true trains the head alone: last-layer retraining, with SGD where the source takes LBFGS. What the clean
    pictures teach without the protected ones is the comparison that shows whether those were worth anything.
    """

    clean: str
    split: str | None = None
    per_class: int = 0
    epochs: int = 20
    batch: int = 32
    lr: float = 0.01
    head: bool = False
    content: str = field(init=False, default="")
    """Digest of the pictures: other pictures at the same path are another defense."""

    slot: ClassVar[Literal["finish"]] = "finish"
    facts: ClassVar[Facts] = Facts(
        name="tune",
        year=2023,
        reference="last-layer retraining: Sandoval-Segura et al., NeurIPS 2023, arXiv 2305.19254",
    )

    def __post_init__(self) -> None:
        at_least(self, per_class=0, epochs=1, batch=2)
        if not self.lr > 0:
            raise UserError(f"tune: lr={self.lr:g} is not positive")
        object.__setattr__(self, "content", data.scan(self.clean, split=self.split, canvas=0).digest)

    def __call__(self, net: Any, train: Batches, run: Run) -> None:
        batches = Batches(self.pictures(train.data), run)
        parameters = list((net.head if self.head else net).parameters())
        optimizer = torch.optim.SGD(parameters, self.lr, 0.9, weight_decay=5e-4, nesterov=True)
        pictures = batches.data.digest
        identity = {"tune": repr(self), "pictures": pictures, "network": weights_digest(net), "seed": run.seed}
        training = Training(net, optimizer, run, f"fine-tuning on {batches.data.name}", "tune", identity)

        def loss(generator: torch.Generator, batch: Batch) -> torch.Tensor:
            x, y = FlipCrop()(batch[1], F.one_hot(batch[2], len(train.data.classes)).float(), generator)
            return F.cross_entropy(net(x), y)

        for epoch in training.epochs(self.epochs, batches.count(self.batch)):
            net.train(not self.head)
            training.learn(partial(loss, run.rng("tune", epoch)), batches.shuffled(self.batch, "tune", epoch))

    def pictures(self, train: ImageSet) -> ImageSet:
        """The clean pictures, with the classes and the size of the training set."""
        source = data.scan(self.clean, split=self.split, canvas=train.shape[1])
        clean = data.read_like(source, train, self.clean, "the training set")
        return clean.first_per_class(self.per_class) if self.per_class else clean
