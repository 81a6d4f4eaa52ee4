"""The public contract suite for attacks, defenses, nets and estimators. Test your own with `check_attack(Yours())`.

A failed check raises AssertionError with one sentence. The sets are tiny; give your method fast hyper-parameters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from miue import nets
from miue.core.errors import UserError
from miue.core.method import Attack, BaseAttack, own_budget
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, Perturbation, eight_bits
from miue.mi.estimate import Estimator, KnownPairs
from miue.training.batches import Batches
from miue.victims.slots import Augment, Finish, Loss, Purify, Start


def tiny(
    per_class: int = 4, classes: int = 3, channels: int = 3, size: int = 8, seed: int = 0, lone: bool = False
) -> ImageSet:
    """Return a random labelled set; with `lone`, class 0 has one picture."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat(per_class)
    if lone:
        labels = labels[(labels != 0) | (torch.arange(len(labels)) == 0)]
    images = torch.randint(256, (len(labels), channels, size, size), generator=generator, dtype=torch.uint8)
    return ImageSet(images, labels, tuple(f"class {i}" for i in range(classes)), "tiny")


def check_attack(attack: Attack, budget: Budget | None = None) -> None:
    """Check budget, rows, dtype, determinism, unchanged inputs, grey and colour, sizes, many classes, resuming.

    budget None: the method's own.
    """
    assert is_dataclass(attack) and attack.__dataclass_params__.frozen, "a method is a frozen dataclass"  # type: ignore[attr-defined]
    assert attack == attack and hash(attack) == hash(attack), "a method has equality and a hash"
    final = not isinstance(attack, BaseAttack) or type(attack).__call__ is BaseAttack.__call__
    assert final, "the call of a BaseAttack keeps the budget and is final: write `craft`"
    sizes = (tiny(size=13), tiny(2, 20, size=16), tiny(2, 2, size=64), tiny(1, 100))
    for data in (tiny(), tiny(channels=1), tiny(lone=True), *sizes):
        before = data.digest
        allowed = budget or own_budget(attack, data.shape)
        _check_perturbation(attack(data, allowed, Run(seed=1)), data, allowed)
        assert ImageSet(data.images, data.labels, data.classes, data.name).digest == before, "the pictures were changed"
    allowed = budget or own_budget(attack, tiny().shape)
    _check_determinism(attack, allowed)
    _check_resume(attack, allowed)


def _check_perturbation(perturbation: Perturbation, data: ImageSet, budget: Budget) -> None:
    assert len(perturbation) == len(data), f"{len(perturbation)} rows for {len(data)} pictures"
    assert perturbation.labels is None or torch.equal(perturbation.labels, data.labels), (
        "rows a class that are not those of the labels"
    )
    assert perturbation.budget == budget, f"the budget became {perturbation.budget}"
    assert perturbation.delta.dtype in (torch.int8, torch.int16), (
        f"a delta is of integers, not {perturbation.delta.dtype}"
    )
    protected = perturbation.apply(data)
    assert torch.equal(protected.labels, data.labels), "labels or their order changed"
    change = protected.images.to(torch.int16) - data.images
    assert budget.allows(change), f"change of {float(budget.measure(change).max()):g} in a budget of {budget.eps:g}"


def _check_determinism(attack: Attack, budget: Budget) -> None:
    data = tiny(per_class=6)
    first = attack(data, budget, Run(seed=1)).delta
    torch.manual_seed(99)  # detects a method that draws from the global generator
    assert torch.equal(first, attack(data, budget, Run(seed=1)).delta), "the same seed gave another perturbation"


def _check_resume(attack: Attack, budget: Budget) -> None:
    data = tiny(per_class=6)
    whole = attack(data, budget, Run(seed=1)).delta
    with TemporaryDirectory() as folder:
        for stop in (1, 2, 3):
            try:
                attack(data, budget, Stopping(seed=1, keep=Path(folder), after=stop))
            except KeyboardInterrupt:
                continue
        again = attack(data, budget, Run(seed=1, keep=Path(folder))).delta
    assert torch.equal(whole, again), "an interrupted run ended in another perturbation"


@dataclass
class Stopping(Run):
    """A run that is interrupted after `after` ticks of progress."""

    after: int = 1

    @contextmanager
    def progress(self, text: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        left = self.after

        def tick(note: str = "", by: int = 1) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        yield tick


def check_defense(defense: Any) -> None:
    """Check slot, shape, range, determinism by its generator, unchanged inputs, label mass, grey and colour, sizes.

    It may refuse greyscale pictures with a UserError.
    """
    assert is_dataclass(defense) and defense.__dataclass_params__.frozen, "a method is a frozen dataclass"  # type: ignore[attr-defined]
    assert defense == defense and hash(defense) == hash(defense), "a method has equality and a hash"
    kinds: dict[str, tuple[type, Callable[..., Tensor]]] = {
        "start": (Start, _moved),
        "purify": (Purify, _purified),
        "augment": (Augment, _augmented),
        "loss": (Loss, _lost),
        "finish": (Finish, _moved),
    }
    slot = getattr(defense, "slot", None)
    assert slot in kinds, f"its slot is {slot!r}, not one of {', '.join(kinds)}"
    kind, call = kinds[slot]
    assert isinstance(defense, kind), f"it lacks the call, or `probe`, which {slot} needs"
    for data in (tiny(size=16), tiny(channels=1, size=16), tiny(size=13), tiny(2, 5, size=16)):
        run = Run(seed=1)
        x = run.put(data.images.float() / 255)
        y = run.put(torch.eye(len(data.classes))[data.labels])
        torch.manual_seed(98)
        before, state = (x.clone(), y.clone(), data.labels.clone()), torch.get_rng_state()
        try:
            first = call(defense, x, y, data.labels, run)
        except UserError as error:
            assert data.shape[0] == 1, f"it refuses pictures in colour: {error}"
            continue
        assert torch.equal(state, torch.get_rng_state()), "it moved the global generator"
        assert all(torch.equal(a, b) for a, b in zip((x, y, data.labels), before, strict=True)), "its input was changed"
        torch.manual_seed(99)
        assert torch.equal(first, call(defense, x, y, data.labels, run)), "the same generator gave something else"
        torch.set_rng_state(state)


def _check_pictures(defense: Any, made: Tensor, x: Tensor) -> Tensor:
    assert made.shape == x.shape and made.dtype == x.dtype, f"pictures became {tuple(made.shape)}, {made.dtype}"
    assert made.isfinite().all(), "it made values that are not finite"
    inside = getattr(defense, "unbounded", False) or (made.min() >= 0 and made.max() <= 1)
    assert inside, f"values from {float(made.min()):g} to {float(made.max()):g} are no picture"
    return made


def _purified(defense: Purify, x: Tensor, y: Tensor, labels: Tensor, run: Run) -> Tensor:
    return _check_pictures(defense, defense(x, labels, run), x)


def _augmented(defense: Augment, x: Tensor, y: Tensor, labels: Tensor, run: Run) -> Tensor:
    pictures, soft = defense(x, y, run.rng("check"))
    assert soft.shape == y.shape and (soft >= 0).all(), "labels are no longer one row of shares a picture"
    assert torch.allclose(soft.sum(1), torch.ones(len(y), device=y.device), atol=1e-5), "labels lost or gained mass"
    return torch.cat([_check_pictures(defense, pictures, x).flatten(), soft.flatten()])


def _lost(defense: Loss, x: Tensor, y: Tensor, labels: Tensor, run: Run) -> Tensor:
    """Value of the loss and gradients of the weights, as one vector."""
    with run.seeded("net"):
        net = run.place(nets.build("small-cnn:width=4", tuple(x.shape[1:]), y.shape[1])).train()  # type: ignore[arg-type]
    values = []
    for done in (0.0, 0.9):
        value = defense(net, x, y, run.rng("check"), done)
        assert value.ndim == 0 and value.isfinite(), "a loss is one finite number"
        assert net.training and all(p.requires_grad for p in net.parameters()), "it left the network in another mode"
        values += [value.detach().flatten(), *(g.flatten() for g in torch.autograd.grad(value, list(net.parameters())))]
    return torch.cat(values)


def _moved(defense: Any, x: Tensor, y: Tensor, labels: Tensor, run: Run) -> Tensor:
    """Weights of a network after the defense changed it, as one vector."""
    data = ImageSet(eight_bits(x.cpu()), labels.cpu(), tuple(f"class {i}" for i in range(y.shape[1])), "check")
    images = data.images.clone()
    with run.seeded("net"):
        net = run.place(nets.build("small-cnn:width=4", data.shape, y.shape[1]))
    old = [p.detach().clone() for p in net.parameters()]
    defense(net, Batches(data, run), run)
    assert torch.equal(data.images, images), "it changed the training set"
    assert any(not torch.equal(a, b) for a, b in zip(old, net.parameters(), strict=True)), "it did nothing"
    assert all(p.requires_grad for p in net.parameters()), "it left weights frozen"
    return torch.cat([value.detach().flatten().float() for value in net.state_dict().values()])


def check_net(name: str | Path, sizes: Sequence[int] = (32, 48), channels: int = 3) -> None:
    """Check logits, features, depth, gradients, both modes, seeds, state, numbers of classes, sizes of pictures.

    name: as for `--victim`: one that `miue networks` lists, one of timm's, or "path/to/file.py:Net".
    """
    for size, classes in itertools.product(sizes, (5, 2)):
        try:
            nets.tried(str(name), (channels, size, size), classes)
            _check_net(str(name), (channels, size, size), classes)
        except UserError as error:
            raise AssertionError(str(error)) from None


def _check_net(name: str, shape: tuple[int, int, int], classes: int) -> None:
    run = Run(seed=1)

    def build(seed: int = 1) -> nets.Classifier:
        with Run(seed=seed).seeded("net"):
            return run.place(nets.build(name, shape, classes)).eval()

    net, twin = build(), build()
    torch.manual_seed(98)
    state = torch.get_rng_state()
    x = run.put(torch.rand(3, *shape, generator=run.rng("x"))).requires_grad_()
    z, logits = net.embed(x), net(x)
    assert torch.equal(state, torch.get_rng_state()), "in evaluation mode it draws random numbers"
    assert z.ndim == 2 and len(z) == 3, f"embed gives {tuple(z.shape)}, not one vector a picture"
    assert logits.shape == (3, classes), f"the head gives {tuple(logits.shape)} for {classes} classes"
    assert z.dtype == logits.dtype == torch.float32, f"features are {z.dtype}, logits {logits.dtype}; float32 is needed"
    assert logits.isfinite().all(), "logits are not finite"
    assert torch.equal(logits, net.head(z)), "forward is not head of embed, or the same pictures gave something else"
    assert torch.equal(logits, twin(x)), "weights do not follow the seed: the same one gave others"
    other = build(2)
    assert not (torch.equal(z, other.embed(x)) and torch.equal(logits, other(x))), (
        "weights do not follow the seed: another one gave the same"
    )
    fewer, tolerance = net(x[:2]), 0.05 * float(logits.detach().abs().max())
    assert torch.allclose(fewer, logits[:2], atol=tolerance), (
        "in evaluation mode the logits of a picture depend on the others in its batch"
    )
    stages = net.stages(x)
    assert torch.equal(stages[-1], z), "stages do not end in embed"
    assert all(s.ndim == 2 and len(s) == 3 for s in stages), "a stage is not one vector a picture"
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), x, allow_unused=True)
    assert gradient is not None and gradient.isfinite().all() and gradient.any(), "no gradient reaches the picture"
    _check_training(net, other, x.detach(), classes, run)
    assert torch.equal(logits, twin(x)), "two networks of it share weights, or something else"
    assert len(stages) > 1, "there are no features by depth: name modules of it in `points`"


def _check_training(net: nets.Classifier, other: nets.Classifier, x: Tensor, classes: int, run: Run) -> None:
    """Train `net` for one step, and copy its state to `other`."""
    net.train()
    assert all(module.training for module in net.modules()), "train() does not reach all of its modules"
    with run.seeded("layers"):
        logits = net(x)
    assert logits.shape == (len(x), classes), f"in training mode it gives {tuple(logits.shape)}"
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    loss = F.cross_entropy(logits, run.put(torch.arange(len(x)) % classes))
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    before = set(net.trunk.parameters())  # none in a linear network
    reached = {p for p, g in zip(parameters, gradients, strict=True) if g is not None and g.any()}
    assert not before or before & reached, "no gradient reaches the weights before its head"
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.01 * gradient
    net.eval()
    assert not any(module.training for module in net.modules()), "eval() does not reach all of its modules"
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x)), (
        "its state_dict is not all of it: some of its weights are in no parameter or buffer (layers in a plain list?)"
    )


def check_estimator(
    estimator: Estimator, cases: Iterable[KnownPairs], absolute: float = 0.1, share: float = 0.2
) -> None:
    """Check known answers to absolute + share * truth nats, determinism, dtypes, dead or equal features, refusals.

    cases: `miue.mi.known.suite(run)`, or pairs of your own. An estimate must lie around the truth, a lower bound below
    it. In at least one case true pairs must give more than shuffled ones.
    """
    assert is_dataclass(estimator) and estimator.__dataclass_params__.frozen, "a method is a frozen dataclass"  # type: ignore[attr-defined]
    assert estimator == estimator and hash(estimator) == hash(estimator), "a method has equality and a hash"
    cases = list(cases)
    answers = [_check_answer(estimator, case, absolute + share * case.nats + 4 * case.error) for case in cases]
    pairs = reversed(list(zip(cases, answers, strict=True)))
    assert any(value > _shuffled(estimator, case) + 0.02 for case, value in pairs), (
        "shuffled pairs give as much as true ones everywhere"
    )
    _check_manners(estimator, cases[-1])


def _check_answer(estimator: Estimator, case: KnownPairs, tolerance: float) -> float:
    estimate = estimator(case.x, case.y, Run(seed=1), case.labels)
    text = f"{case.name}: {estimate.nats:.3f} nats ({estimate.kind}) where the truth is {case.nats:.3f}"
    assert math.isfinite(estimate.nats), text
    assert estimate.nats <= estimate.ceiling + 1e-9, f"{text}, above its own ceiling of {estimate.ceiling:.3f}"
    assert estimate.nats <= case.nats + tolerance, f"{text}: too much"
    assert estimate.kind == "lower bound" or estimate.nats >= case.nats - tolerance, f"{text}: too little"
    return estimate.nats


def _shuffled(estimator: Estimator, case: KnownPairs) -> float:
    order = torch.randperm(len(case.y), generator=torch.Generator().manual_seed(0))
    return estimator(case.x, case.y[order], Run(seed=1), case.labels).nats


def _check_manners(estimator: Estimator, case: KnownPairs) -> None:
    x, y, labels = case.x, case.y, case.labels
    before = x.clone(), y.clone(), labels.clone()
    first = estimator(x, y, Run(seed=1), labels)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, y, labels), strict=True)), "the features were changed"
    torch.manual_seed(99)
    assert estimator(x, y, Run(seed=1), labels).nats == first.nats, "the same seed gave another value"
    single = estimator(x.float(), y.float(), Run(seed=1), labels)
    assert abs(single.nats - first.nats) < 0.02 + 0.02 * abs(first.nats), f"float32 features give {single.nats:.3f}"
    dead = torch.cat([x, torch.zeros_like(x[:, :2])], 1)
    assert math.isfinite(estimator(dead, y, Run(seed=1), labels).nats), "features that never fire break it"
    rows = torch.arange(len(x)) // 2 * 2  # every row twice
    assert math.isfinite(estimator(x[rows], y[rows], Run(seed=1), labels[rows]).nats), "rows that coincide break it"
    for bad in (x.clone().fill_(torch.nan), x[:1]):
        try:
            estimator(bad, y[: len(bad)], Run(seed=1), labels[: len(bad)])
        except UserError:
            continue
        raise AssertionError(f"{'one row' if len(bad) == 1 else 'values that are not numbers'}: no UserError")
