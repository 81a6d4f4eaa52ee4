"""The surrogate of crafted attacks: trained once on clean pictures, and kept at its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.attacks.shape import Shape
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.training.batches import Batch, Batches, prepare
from miue.training.colour import chroma
from miue.training.loop import Training
from miue.training.mixture import look
from miue.training.perturb import worst
from miue.training.views import augmented

if TYPE_CHECKING:
    from miue.attacks.crafted import Crafted

STEPS = 10  # of the adversary that it may be trained against

Checkpoints = list[tuple[Any, dict[str, Tensor]]]
"""Frozen networks in evaluation mode, each with what its aim needs to know."""


def trained(plan: Crafted, batches: Batches, form: Shape, identity: Mapping[str, Any]) -> Checkpoints:
    """Checkpoints of one training. Process 0 writes the state, all processes read it."""
    run, suffix = form.run, form.suffix
    net, optimizer = _started(plan, batches, form)
    text = f"{type(plan).__name__} on {batches.data.name}, surrogate{suffix}"
    training = Training(net, optimizer, run, text, f"training{suffix}", identity)
    ends = _ends(plan)
    done = {end: run.load(f"surrogate{suffix}-{end}", **identity) for end in ends if end <= training.done}
    weights = {end: part[0] for end, part in done.items() if part}
    if len(weights) < len(done):  # a checkpoint was lost: train again from the start
        net, optimizer = _started(plan, batches, form)
        training.net, training.optimizer, training.done = net, optimizer, 0
    for epoch in training.epochs(plan.epochs, batches.count(plan.batch)):
        generator = run.rng(*form.names("view", "train", epoch), run.rank)
        loss = partial(_loss, plan, net, form, generator)
        net.train()
        stream = batches.shuffled(plan.batch, *form.names("train", epoch))
        training.learn(loss, stream, *form.names("layers", epoch), run.rank)
        if (end := epoch + 1) in ends:
            weights[end] = {name: value.clone() for name, value in net.state_dict().items()}
            if run.rank == 0:
                run.save(f"surrogate{suffix}-{end}", weights[end], identity)
    nets = [loaded(_fresh(plan, batches.data, form), weights[end]) for end in ends]
    pictures = _InChroma(batches.data, run, batches.rows) if form.colour else batches
    checkpoints = [(net, plan.known(net, pictures, run)) for net in nets]
    for end, (_, known) in zip(ends, checkpoints, strict=True):
        if run.rank == 0:
            run.save(f"known{suffix}-{end}", known, identity)
    return checkpoints


def restored(
    plan: Crafted, data: ImageSet, form: Shape, state: Callable[[str], tuple[dict[str, Tensor], Any]]
) -> Checkpoints:
    """The checkpoints of an earlier training. state: tensors and facts that it saved under a name."""
    checkpoints = []
    for end in _ends(plan):
        net = loaded(_fresh(plan, data, form), state(f"surrogate{form.suffix}-{end}")[0])
        known = state(f"known{form.suffix}-{end}")[0]
        checkpoints.append((net, {name: form.run.put(table) for name, table in known.items()}))
    return checkpoints


def _ends(plan: Crafted) -> list[int]:
    """Number of finished epochs at every checkpoint."""
    return [(i + 1) * plan.epochs // plan.checkpoints for i in range(plan.checkpoints)]


def _started(plan: Crafted, batches: Batches, form: Shape) -> tuple[Any, torch.optim.Optimizer]:
    net = _fresh(plan, batches.data, form)
    prepare(net, batches, form.run)
    return net, torch.optim.SGD(net.parameters(), plan.lr, plan.momentum, weight_decay=plan.weight_decay)


def _fresh(plan: Crafted, data: ImageSet, form: Shape) -> Any:
    with form.run.seeded(*form.names("surrogate")):
        return form.run.place(plan.network(data.shape, len(data.classes)))


def loaded(net: Any, weights: Mapping[str, Tensor]) -> Any:
    """The network with these weights, in evaluation mode and without gradients of its own."""
    net.load_state_dict(weights)
    return net.eval().requires_grad_(False)


def _loss(plan: Crafted, net: Any, form: Shape, generator: torch.Generator, batch: Batch) -> Float[Tensor, ""]:
    """Cross-entropy on clean pictures, or on their worst neighbours."""
    _, x, y = batch
    augment = plan.augment if plan.train_augment == "same" else plan.train_augment
    seen = look(form.mixture, net, augmented(augment, x, generator), y, generator)
    if plan.adversary:
        seen = worst(net, seen, y, plan.adversary, STEPS, generator)
    return F.cross_entropy(net(seen), y)


class _InChroma(Batches):
    """The pictures as the surrogate of the colour part knows them."""

    def take(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        return chroma(super().take(index))


@torch.no_grad()
def centres(net: Any, batches: Batches, run: Run, size: int = 512) -> Float[Tensor, "k d"]:
    """Mean features of every class over the clean set; 0 for a class without pictures."""
    members = [(F.one_hot(y, len(batches.data.classes)).float(), net.embed(x)) for _, x, y in batches.in_order(size)]
    total = torch.stack([member.T @ z for member, z in members]).sum(0)
    count = torch.stack([member.sum(0) for member, _ in members]).sum(0)
    return run.total(total) / run.total(count).clamp_min(1)[:, None]
