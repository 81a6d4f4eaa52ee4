"""The reach of an attack on its own surrogate: asked once at its end, of the protected pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from miue import nets
from miue.attacks.crafted import Crafted, loss_of
from miue.attacks.gue import GUE
from miue.attacks.min_min import Alternating
from miue.attacks.shape import Shape
from miue.attacks.surrogate import loaded, restored
from miue.core.files import Record
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.training import perturb
from miue.training.mixture import Part, look, parts
from miue.training.perturb import worst

MOST = 1000  # pictures that are looked at
STEPS = 10  # of the adversary
BATCH = 256

Loss = Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]
Reached = Callable[[Any, Tensor, Tensor, Tensor], tuple[str, Bool[Tensor, "b"]] | None]


class Success(Record):
    """An attack on its own surrogate: accuracies without augmentation, of several checkpoints the mean.

    All of it is about the surrogate that the attack knows. A victim is another network.
    """

    pictures: int
    """Number that was looked at."""
    loss_before: float | None
    """The attack's own loss on the clean pictures; None if it compares perturbations, which are all 0 there."""
    loss: float
    """Its loss on the protected ones, which it descends."""
    clean: float | None
    """Accuracy of the surrogate on the clean pictures; None if it does not classify."""
    protected: float | None
    """Accuracy on the protected ones."""
    radius: float = 0.0
    """Grey levels of the adversary that the surrogate was trained against; 0 if there was none."""
    clean_robust: float | None = None
    """Accuracy on clean pictures after 10 steps of PGD of that radius."""
    protected_robust: float | None = None
    """The same on protected ones."""
    goal: str = ""
    """The aim of protected pictures on the surrogate, for attacks that aim at a class."""
    reached: float | None = None
    """Share of the pictures that do it."""

    def __str__(self) -> str:
        """Text for people."""
        before = "" if self.loss_before is None else f"{self.loss_before:.3g} on clean pictures, "
        text = f"loss {before}{self.loss:.3g} on protected ones"
        if self.clean is not None and self.protected is not None:
            text += f"; it knows {self.clean:.1%} of the clean and {self.protected:.1%} of the protected ones"
        if self.clean_robust is not None and self.protected_robust is not None:
            text += (
                f", {self.clean_robust:.1%} and {self.protected_robust:.1%} under PGD of {self.radius:g} grey levels"
            )
        return text if self.reached is None else f"{text}; {self.reached:.1%} of the protected ones {self.goal}"


@dataclass(frozen=True)
class _Surrogate:
    """A frozen network in evaluation mode, and what the attack wants of it."""

    net: Any
    loss: Loss
    mixture: tuple[Part, ...] = ()
    classifies: bool = True
    radius: float = 0.0
    reached: Reached | None = None


def success(
    method: object, clean: ImageSet, protected: ImageSet, budget: Budget, made_for: str, run: Run
) -> Success | None:
    """The reach of a method on its surrogate, which `run` has kept; None if it has none, or if it is not there.

    clean, protected: the set, or some of its pictures, row by row; at most `MOST` are looked at. made_for: digest of
    the pictures that the perturbation was made for. run: that of the attack. Of an attack in two passes this is the
    first. Draws come from the seed: the same state gives the same numbers.
    """
    identity = {"plan": repr(method), "data": made_for, "seed": run.seed, "budget": repr(budget)}

    def state(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if (saved := run.load(name, **identity)) is None:
            raise LookupError(name)
        return saved

    try:
        with run.seeded("success"):
            surrogates = _surrogates(method, clean, budget, state, run)
    except LookupError:
        return None
    if not surrogates:
        return None
    size = min(getattr(method, "noise_batch", BATCH), MOST)
    rows = torch.randperm(len(clean), generator=run.rng("success"))[:MOST]
    pairs = clean.select(rows), protected.select(rows)
    with run.threads_for(*(surrogate.net for surrogate in surrogates)):
        return _mean([_asked(surrogate, *pairs, size, run) for surrogate in surrogates])


def _surrogates(
    method: object, data: ImageSet, budget: Budget, state: Callable[[str], Any], run: Run
) -> list[_Surrogate]:
    """The kept surrogates of a method. Raises LookupError if they are not there."""
    shape, classes = data.shape, len(data.classes)
    if isinstance(method, Crafted):
        form = Shape(method, data, budget, run, torch.arange(len(data)))
        return [
            _Surrogate(
                net,
                partial(loss_of, method, net, method.aim(net, known, classes), form.mixture),
                form.mixture,
                radius=method.against,
                reached=method.reached,
            )
            for net, known in restored(method, data, form, state)
        ]
    if isinstance(method, Alternating):
        net = loaded(run.place(nets.build(method.surrogate, shape, classes)), state("surrogate")[0])
        mixture = parts(method.see)
        loss = partial(_alternating, method, net, mixture)
        return [_Surrogate(net, loss, mixture, method.classifies, method.against)]
    if isinstance(method, GUE) and not method.generator:
        head = "net.net."
        weights = {name.removeprefix(head): v for name, v in state("checkpoint")[0].items() if name.startswith(head)}
        net = loaded(run.place(nets.build(method.surrogate, shape, classes)), weights)
        return [_Surrogate(net, lambda x, y, delta, generator: F.cross_entropy(net(perturb.add(x, delta)), y))]
    return []


def _alternating(
    method: Alternating,
    net: Any,
    mixture: tuple[Part, ...],
    x: Float[Tensor, "b c h w"],
    y: Int[Tensor, "b"],
    delta: Float[Tensor, "b c h w"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    base, view = method.base(x, generator), method.view(generator)
    return method.move(net, look(mixture, net, view(perturb.add(base, delta)), y, generator), y, delta, generator)


def _asked(surrogate: _Surrogate, clean: ImageSet, protected: ImageSet, size: int, run: Run) -> Success:
    """One surrogate, in batches of `size`. The same draws for clean and protected pictures."""
    n, net, goal = len(clean), surrogate.net, ""
    sums: dict[str, float] = {"before": 0.0, "loss": 0.0, "reached": 0.0}
    right = {(side, robust): 0.0 for side in (0, 1) for robust in (False, True)}
    for number, index in enumerate(torch.arange(n).tensor_split(-(-n // size))):
        sides = [run.put(part.images[index]).float().div_(255) for part in (clean, protected)]
        y = run.put(clean.labels[index])
        x, delta = sides[0], sides[1] - sides[0]
        for key, change in (("before", torch.zeros_like(delta)), ("loss", delta)):
            sums[key] += float(surrogate.loss(x, y, change, run.rng("success", number))) * len(index)
        if surrogate.reached and (answer := surrogate.reached(net, sides[1], y, delta)):
            goal = answer[0]
            sums["reached"] += float(answer[1].sum())
        for side, robust in right if surrogate.classifies else ():
            if robust and not surrogate.radius:
                continue
            generator = run.rng("success", number, "look")
            seen = look(surrogate.mixture, net, sides[side], y, generator)
            seen = worst(net, seen, y, surrogate.radius, STEPS, generator) if robust else seen
            with torch.no_grad():
                right[side, robust] += float((net(seen).argmax(1) == y).sum())
    shares = {key: value / n for key, value in right.items()} if surrogate.classifies else {}
    robust = shares if surrogate.radius else {}
    return Success(
        pictures=n,
        loss_before=sums["before"] / n if surrogate.classifies else None,
        loss=sums["loss"] / n,
        clean=shares.get((0, False)),
        protected=shares.get((1, False)),
        radius=surrogate.radius if robust else 0.0,
        clean_robust=robust.get((0, True)),
        protected_robust=robust.get((1, True)),
        goal=goal,
        reached=sums["reached"] / n if goal else None,
    )


def _mean(answers: list[Success]) -> Success:
    """The mean over checkpoints."""
    first, numbers = answers[0], ("loss_before", "loss", "clean", "protected", "clean_robust", "protected_robust")
    means = {}
    for name in (*numbers, "reached"):
        values = [getattr(answer, name) for answer in answers]
        means[name] = None if None in values else sum(values) / len(values)
    return first.model_copy(update=means)
