"""GUE: a generator of unlearnable examples found as a game (Liu, Wang, Gao, AAAI 2024, arXiv 2401.17523)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from miue import nets
from miue.core.errors import UserError
from miue.core.files import file_digest
from miue.core.method import AttackFacts, BaseAttack, Kept, at_least
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, stretch
from miue.nets.base import convolution
from miue.training import perturb
from miue.training.batches import Batch, Batches, prepare
from miue.training.loop import Training, descend, diverged


class UNet(nn.Module):
    """U-Net from a picture to unbounded values of the same shape: the side is halved twice, with skip connections.

    The last layer is a 1 x 1 convolution and a batch norm, without which a part of all values is one constant colour.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.top, self.middle = convolution(channels, width), convolution(width, 2 * width, 2)
        self.bottom = convolution(2 * width, 4 * width, 2)
        self.back, self.out = convolution(6 * width, 2 * width), convolution(3 * width, width)
        self.last = nn.Sequential(nn.Conv2d(width, channels, 1), nn.BatchNorm2d(channels))
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        with self.autocast():
            top = self.top((x - 0.5) * 4)
            middle = self.middle(top)
            back = self.back(torch.cat([middle, stretch(self.bottom(middle), *middle.shape[-2:])], 1))
            out = self.out(torch.cat([top, stretch(back, *top.shape[-2:])], 1))
        return self.last(out.float())


def farthest(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"]) -> Float[Tensor, ""]:
    """Mean over pictures of the largest cross-entropy to a wrong class, nats: small if all of them are likely."""
    own = F.one_hot(y, logits.shape[1]).bool()
    return (-logits.log_softmax(1)).masked_fill(own, -torch.inf).amax(1).mean()


def multiplier(f: Sequence[Tensor], q: Sequence[Tensor], eta: float) -> Float[Tensor, ""]:
    """lambda = max(0, (eta |grad q|^2 - <grad f, grad q>) / (|grad q|^2 + 1e-8)), so that q falls with f's descent."""
    square = torch.stack([b.square().sum() for b in q]).sum()
    product = torch.stack([(a * b).sum() for a, b in zip(f, q, strict=True)]).sum()
    return ((eta * square - product) / (square + 1e-8)).relu()


@dataclass(frozen=True, kw_only=True)
class GUE(BaseAttack):
    """delta = eps tanh(G_a(x)), where G leads a game: the classifier that follows it should fail on clean pictures.

    minimise f(theta) over a and theta while q(a, theta) = g(a, theta) - g(a, theta*) <= 0: g is the cross-entropy on
    x + delta, theta* is theta after `inner_steps` of Adam on g, f is `farthest` on clean pictures. Each batch steps
    against grad f + lambda grad q (BOME, Ye et al., NeurIPS 2022), with `lr` for theta and `generator_lr` for a.
    width: of the generator. Once trained, G protects in one pass; it is kept as generator.safetensors where `run` keeps
    state (`protect`: in the private folder, under checkpoint). generator: such a file, which then protects any pictures
    with as many channels, without training; keep it private.
    Source: the paper and its released settings. Unlike the released code, the generator is that of the last epoch, not
    the best by clean test accuracy, and is a smaller UNet of our own, with two halvings and single convolutions for
    four and double ones; the gradients in lambda are those of a and theta.
    """

    surrogate: str = "resnet18"
    epochs: int = 50
    batch: int = 256
    lr: float = 0.01
    generator_lr: float = 0.1
    inner_steps: int = 10
    inner_lr: float = 1e-4
    eta: float = 1.5
    width: int = 32
    generator: str = ""
    content: str = field(init=False, default="")
    """Digest of the generator's file, so that another one under the same name is another attack."""

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="gue",
        title="GUE",
        year=2024,
        reference="Liu et al., AAAI 2024, arXiv 2401.17523",
        summary="a generator is trained against a classifier as leader of a game, then protects in one pass",
        passes=650,
        needs="surrogate",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"surrogate": "small-cnn:width=16", "epochs": 4, "batch": 32, "width": 16},  # ours
    }

    def __post_init__(self) -> None:
        object.__setattr__(self, "surrogate", nets.named(self.surrogate))
        at_least(self, epochs=1, batch=2, inner_steps=1, width=1)
        for name in ("lr", "generator_lr", "inner_lr", "eta"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name):g} is not positive")
        if self.generator:
            file = Path(self.generator).expanduser()
            if not file.is_file():
                raise UserError(f"gue: {self.generator!r} is no file; give generator=PATH")
            object.__setattr__(self, "content", file_digest(file))

    def trials(self, count: int, later: bool = False) -> list[tuple[GUE, float]]:
        """A short version with a factor; factor x seconds forecasts the seconds of this one.

        later: of pictures that are added, which one pass of the generator protects.
        """
        return [(self, 1.0)] if later or self.generator else [(replace(self, epochs=1), float(self.epochs))]

    def kept_bytes(self, count: int, shape: tuple[int, int, int], classes: int, processes: int) -> int:
        """Largest number of bytes that a run keeps on disk, while a checkpoint is replaced by the next one."""
        if self.generator:
            return 0
        with torch.random.fork_rng(devices=[]):
            generator = nets.weight(UNet(shape[0], self.width))
        return 2 * nets.tried(self.surrogate, shape, classes) + 3 * generator

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Float[Tensor, "n c h w"]:
        """Delta of the whole set. Resumes after the last finished epoch if `run` keeps state."""
        batches = Batches(data, run, run.mine(len(data)))
        if self.generator:
            net = run.place(_read(Path(self.generator).expanduser(), data.shape[0]))
            return run.total(_deltas(net, batches, self.batch, budget, run))
        if len(data.classes) < 2:
            raise UserError("GUE needs at least two classes: it makes wrong ones likely")
        game = _Game(self, data, budget, run)
        for net in (game.net, game.ahead):
            prepare(net, batches, run)
        optimizer = torch.optim.SGD(game.players.parameters(), self.lr)
        identity = self.identity(data, budget, run)
        text = f"{type(self).__name__} on {data.name}"
        training = Training(game.players, optimizer, run, text, "checkpoint", identity)
        for epoch in training.epochs(self.epochs, batches.count(self.batch), lambda _: self.lr):
            game.players.train()
            training.learn(game.value, batches.shuffled(self.batch, "train", epoch), "layers", epoch, run.rank)
        if run.rank == 0:  # the same in every process
            run.save("generator", game.generator.state_dict(), identity)
        return run.total(_deltas(game.generator, batches, self.batch, budget, run))

    def craft_more(self, new: ImageSet, kept: Kept, budget: Budget, run: Run) -> Float[Tensor, "n c h w"]:
        """Delta of later pictures, by one pass of the kept generator."""
        if self.generator:
            return self.craft(new, budget, run)
        net = run.place(UNet(new.shape[0], self.width))
        net.load_state_dict(kept.state("generator")[0])
        return run.total(_deltas(net, Batches(new, run, run.mine(len(new))), self.batch, budget, run))


def _read(file: Path, channels: int) -> UNet:
    """Read a generator from a file. Raises UserError if there is none, or one for other pictures."""
    try:
        tensors = load_file(file)
        own_channels, width = tensors["last.0.weight"].shape[:2]
        net = UNet(own_channels, width)
        net.load_state_dict(tensors)
        if diverged(net):
            raise ValueError
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError):
        raise UserError(f"{file} holds no generator of GUE; it is kept as checkpoint/generator.safetensors") from None
    if own_channels != channels:
        raise UserError(f"{file} is a generator for pictures of {own_channels} channels; these have {channels}")
    return net


@torch.no_grad()
def _deltas(net: Any, batches: Batches, size: int, budget: Budget, run: Run) -> Float[Tensor, "n c h w"]:
    """Deltas of this process's pictures by one pass of a generator, in rows of the whole set; zeros elsewhere."""
    net.eval()
    whole = torch.zeros(batches.data.images.shape, device=run.device)
    for index, x, _ in batches.in_order(size):
        whole[run.put(index)] = perturb.keep_in_range(budget.unit * torch.tanh(net(x)), x)
    return whole


class _Game:
    """The generator, the classifier that follows it, and a copy of the classifier that looks ahead."""

    def __init__(self, plan: GUE, data: ImageSet, budget: Budget, run: Run) -> None:
        self.plan, self.run, self.eps = plan, run, budget.unit
        with run.seeded("surrogate"):
            self.net, self.ahead = (
                run.place(nets.build(plan.surrogate, data.shape, len(data.classes))) for _ in range(2)
            )
        with run.seeded("generator"):
            self.generator: Any = run.place(UNet(data.shape[0], plan.width))
        self.players = nn.ModuleDict({"net": self.net, "generator": self.generator})

    def value(self, batch: Batch) -> Float[Tensor, ""]:
        """A number whose gradient is the game's direction: the sum of <p, direction of p> over all parameters p."""
        plan, run = self.plan, self.run
        _, x, y = batch
        theta, a = list(self.net.parameters()), list(self.generator.parameters())
        protected = perturb.add(x, self.eps * torch.tanh(self.generator(x)))
        self._look_ahead(protected.detach(), y)
        q = F.cross_entropy(self.net(protected), y) - F.cross_entropy(self.ahead(protected), y)
        grad_q = torch.autograd.grad(q, [*theta, *a])
        grad_f = torch.autograd.grad(farthest(self.net(x), y), theta)
        run.average(grad_q)
        run.average(grad_f)
        push = multiplier([*grad_f, *map(torch.zeros_like, a)], grad_q, plan.eta)
        faster = plan.generator_lr / plan.lr  # one optimizer with one rate, which is linear in the gradient
        of_theta = [f + push * g for f, g in zip(grad_f, grad_q, strict=False)]
        of_a = [faster * push * g for g in grad_q[len(theta) :]]
        return torch.stack([(p * d).sum() for p, d in zip([*theta, *a], [*of_theta, *of_a], strict=True)]).sum()

    def _look_ahead(self, protected: Tensor, y: Tensor) -> None:
        """theta*: the classifier after some steps of Adam on this protected batch, frozen."""
        plan = self.plan
        self.ahead.load_state_dict(self.net.state_dict())
        self.ahead.train().requires_grad_(True)
        optimizer = torch.optim.Adam(self.ahead.parameters(), plan.inner_lr)
        loss, batches = (lambda y: F.cross_entropy(self.ahead(protected), y)), [y] * plan.inner_steps
        for _ in descend(loss, batches, optimizer, lambda _: plan.inner_lr, self.run):
            pass
        self.ahead.requires_grad_(False)
