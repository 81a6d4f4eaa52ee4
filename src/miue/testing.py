"""The public contract suite: what every attack and every network promises. Run it on your own: `check_attack(Yours())`.

Each check raises AssertionError with a sentence. The sets are tiny; give your method fast hyper-parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from miue import nets
from miue.run import Run
from miue.spec import own_budget
from miue.types import Attack, Budget, ImageSet, Perturbation


def tiny(
    per_class: int = 4, classes: int = 3, channels: int = 3, size: int = 8, seed: int = 0, lone: bool = False
) -> ImageSet:
    """A random labelled set; `lone` leaves one picture in class 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat(per_class)
    if lone:
        labels = labels[(labels != 0) | (torch.arange(len(labels)) == 0)]
    images = torch.randint(256, (len(labels), channels, size, size), generator=generator, dtype=torch.uint8)
    return ImageSet(images, labels, tuple(f"class {i}" for i in range(classes)), "tiny")


def check_attack(attack: Attack, budget: Budget | None = None) -> None:
    """Budget, rows, dtype, determinism, untouched inputs, grey and colour, sizes, many classes, resuming.

    budget None: the method's own.
    """
    assert is_dataclass(attack) and attack.__dataclass_params__.frozen, "a method is a frozen dataclass"  # type: ignore[attr-defined]
    assert attack == attack and hash(attack) == hash(attack), "a method has equality and a hash"
    for data in (tiny(), tiny(channels=1), tiny(size=13), tiny(2, 20, size=16), tiny(lone=True), tiny(classes=2)):
        before = data.digest
        allowed = budget or own_budget(attack, data.shape)
        _check_perturbation(attack(data, allowed, Run(seed=1)), data, allowed)
        assert ImageSet(data.images, data.labels, data.classes, data.name).digest == before, "the pictures were changed"
    allowed = budget or own_budget(attack, tiny().shape)
    _check_determinism(attack, allowed)
    _check_resume(attack, allowed)


def _check_perturbation(made: Perturbation, data: ImageSet, budget: Budget) -> None:
    assert len(made) == len(data), f"{len(made)} rows for {len(data)} pictures"
    assert made.budget == budget, f"the budget became {made.budget}"
    assert made.delta.dtype in (torch.int8, torch.int16), f"a delta is of integers, not {made.delta.dtype}"
    protected = made.apply(data)
    assert torch.equal(protected.labels, data.labels), "labels or their order changed"
    change = protected.images.to(torch.int16) - data.images
    assert budget.allows(change), f"change of {float(budget.measure(change).max()):g} in a budget of {budget.eps:g}"


def _check_determinism(attack: Attack, budget: Budget) -> None:
    data = tiny(per_class=6)
    first = attack(data, budget, Run(seed=1)).delta
    torch.manual_seed(99)  # a method that draws from the global generator shows it here
    assert torch.equal(first, attack(data, budget, Run(seed=1)).delta), "the same seed gave another perturbation"


def _check_resume(attack: Attack, budget: Budget) -> None:
    data = tiny(per_class=6)
    whole = attack(data, budget, Run(seed=1)).delta
    with TemporaryDirectory() as folder:
        for stop in (1, 2, 3):
            try:
                attack(data, budget, _Stopping(seed=1, keep=Path(folder), after=stop))
            except KeyboardInterrupt:
                continue
        again = attack(data, budget, Run(seed=1, keep=Path(folder))).delta
    assert torch.equal(whole, again), "an interrupted run ended in another perturbation"


@dataclass
class _Stopping(Run):
    """A run that is interrupted after some ticks of progress."""

    after: int = 1

    @contextmanager
    def progress(self, text: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        left = self.after

        def tick(note: str = "") -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        yield tick


def check_net(name: str, size: int = 32, channels: int = 3) -> None:
    """embed and head agree with forward, stages end in embed, gradients reach the picture, weights follow the seed."""
    run = Run(seed=1)
    with run.seeded("net"):
        net = run.place(nets.build(name, (channels, size, size), 5)).eval()
    with run.seeded("net"):
        twin = run.place(nets.build(name, (channels, size, size), 5)).eval()
    x = run.put(torch.rand(3, channels, size, size, generator=run.rng("x"))).requires_grad_()
    z = net.embed(x)
    assert z.ndim == 2 and len(z) == 3, f"embed gives {tuple(z.shape)}, not one vector a picture"
    assert torch.equal(net(x), net.head(z)), "forward is not head of embed"
    assert net(x).shape == (3, 5), f"the head gives {tuple(net(x).shape)} for 5 classes"
    assert torch.equal(net(x), twin(x)), "weights do not follow the seed"
    stages = net.stages(x)
    assert len(stages) > 1 and torch.equal(stages[-1], z), "stages do not end in embed"
    assert all(s.ndim == 2 and len(s) == 3 for s in stages), "a stage is not one vector a picture"
    (gradient,) = torch.autograd.grad(net(x).logsumexp(1).sum(), x)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0, "no gradient reaches the picture"
