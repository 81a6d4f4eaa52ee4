"""A recipe: the complete description of a victim's training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from miue import nets
from miue.core.errors import UserError
from miue.core.spelling import spell
from miue.training.views import crop, flip
from miue.victims.slots import Augment, Defense, Finish, Loss, Purify, Start


@dataclass(frozen=True)
class FlipCrop:
    """The field's usual augmentation: random crop after zero padding, then a random flip, per sample."""

    share: float = 1 / 8
    flip: bool = True
    slot: ClassVar[Literal["augment"]] = "augment"

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        x = crop(x, generator, self.share)
        return (flip(x, generator) if self.flip else x), y


@dataclass(frozen=True)
class Shift:
    """Move every picture by up to a share of its side (2 px of 32), with mirrored borders."""

    share: float = 1 / 16
    slot: ClassVar[Literal["augment"]] = "augment"

    def __call__(
        self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        return crop(x, generator, self.share, "reflect"), y


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy with (possibly soft) labels, in nats."""

    slot: ClassVar[Literal["loss"]] = "loss"

    def __call__(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator, done: float
    ) -> Float[Tensor, ""]:
        return F.cross_entropy(net(x), y)


@dataclass(frozen=True)
class Smoothed:
    """Cross-entropy, in nats, with a share of every label spread evenly over all classes (Szegedy, CVPR 2016)."""

    smoothing: float = 0.1

    slot: ClassVar[Literal["loss"]] = "loss"

    def __call__(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator, done: float
    ) -> Float[Tensor, ""]:
        return F.cross_entropy(net(x), y, label_smoothing=self.smoothing)


PLAIN = FlipCrop, Shift, CrossEntropy, Smoothed
"""Parts of a recipe that do not count as defenses."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The training of a victim: the network, SGD or AdamW, the course of the rate, and the defenses in their slots."""

    net: str = "resnet18"
    """Any name that `nets.build` takes. For a network in a user's file the repr, and so every digest, includes its
    code."""
    epochs: int = 60
    batch: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    """Largest learning rate."""
    bias_lr: float = 1.0
    """Factor of the rate of biases; their weight decay is divided by it, so that a step takes the same share of all."""
    schedule: Literal["cosine", "triangle"] = "cosine"
    """Course of the rate after its rise: half a cosine to 0, or a straight line to 7 % of `lr`."""
    warmup: float = 0.0
    """Share of all steps with a linear rise of the rate."""
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    slow: int = 0
    """Steps after which weights are pulled back to an average of them (`training.loop.Lookahead`); 0: never."""
    alternate: bool = False
    """True if every picture is mirrored in every other epoch, which ones first is drawn."""
    crops: bool = False
    """True if tests take the mean over six views of a picture."""
    hold_out: float = 0.0
    """Share of the training set that is held out. The victim gets the weights of the epoch that is best on it; with 0,
    those of the last epoch. The held-out part of a protected set is protected too, so it says little about clean
    pictures. Somebody with clean pictures could pick the best epoch, which records give."""
    patience: int = 0
    """Training stops after this many epochs without a gain on the held-out part; 0: never."""
    purify: tuple[Purify, ...] = ()
    augment: tuple[Augment, ...] = (FlipCrop(),)
    loss: Loss = CrossEntropy()
    start: tuple[Start, ...] = ()
    finish: tuple[Finish, ...] = ()
    source: str = ""
    """Where the numbers come from."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "net", nets.named(self.net))
        if self.epochs < 1 or self.batch < 2 or not self.lr > 0:
            raise UserError(
                f"epochs={self.epochs}, batch={self.batch}, lr={self.lr:g}: at least 1, 2 and a positive rate"
            )
        if self.slow < 0 or not 0 < self.bias_lr < float("inf"):
            raise UserError(f"slow={self.slow}, bias_lr={self.bias_lr:g}: at least 0 and a positive factor")
        if not (0 <= self.momentum < 1 and 0 <= self.warmup < 1 and 0 <= self.weight_decay < float("inf")):
            raise UserError(
                f"momentum={self.momentum:g}, warmup={self.warmup:g}, weight_decay={self.weight_decay:g}: the first "
                "two are shares from 0 to below 1, and the decay is not negative"
            )
        if self.nesterov and self.optimizer == "sgd" and not self.momentum:
            raise UserError("momentum=0 with nesterov=true: Nesterov's rule needs a momentum; add nesterov=false")
        if not 0 <= self.hold_out < 1 or self.patience < 0 or (self.patience and not self.hold_out):
            raise UserError(
                f"hold_out={self.hold_out:g}, patience={self.patience}: a share below 1, and patience only with one"
            )

    def defended(self, *defenses: Defense) -> Recipe:
        """A copy of the recipe with defenses added, each in its slot. A loss replaces the plain one.

        Raises UserError if there are two losses.
        """
        several = "purify", "augment", "start", "finish"
        slots: dict[str, tuple[Any, ...]] = {slot: getattr(self, slot) for slot in several} | {"loss": ()}
        for defense in defenses:
            slots[defense.slot] += (defense,)
        losses = slots.pop("loss") if type(self.loss) in PLAIN else (self.loss, *slots.pop("loss"))
        if len(losses) > 1:
            raise UserError(f"{' and '.join(map(repr, losses))}: a victim has one loss; leave one of them out")
        return replace(self, **slots, loss=losses[0] if losses else self.loss)

    @property
    def defense(self) -> str:
        """Spelling of its defenses, such as "gray+jpeg:quality=10"; empty if there are none."""
        parts = (*self.purify, *self.start, *self.augment, self.loss, *self.finish)
        return "+".join(spell(part) for part in parts if type(part) not in PLAIN)

    @property
    def victim(self) -> str:
        """The name of the victim: the network, and the defense if there is one."""
        return f"{self.net} + {self.defense}" if self.defense else str(self.net)

    def described(self) -> dict[str, Any]:
        """The recipe as plain values, for records."""
        several = {slot: [repr(d) for d in getattr(self, slot)] for slot in ("purify", "augment", "start", "finish")}
        own = {"net": str(self.net)} | ({"net_code": code} if (code := nets.code(self.net)) else {})
        return asdict(self) | several | {"loss": repr(self.loss)} | own
