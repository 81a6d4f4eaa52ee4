"""The one training loop of the package, accuracy, and the state of a network and its optimizer as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.training.batches import Batches

HUGE = 1e6  # no weight of a network that learned anything
B = TypeVar("B")


def descend(
    loss: Callable[[B], Float[Tensor, ""]],
    stream: Iterable[B],
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    run: Run,
    step: int = 0,
    clip: float = math.inf,
) -> Iterator[Float[Tensor, ""]]:
    """One optimizer step a batch; gradients are averaged over processes. Yields losses still on the device.

    rate(step) is the learning rate, so that resuming at a step needs no scheduler state. clip: largest L2 norm of the
    gradient of all parameters together.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, batch in enumerate(stream, step):
        for group in optimizer.param_groups:
            group["lr"] = rate(number)
        optimizer.zero_grad(set_to_none=True)
        value = loss(batch)
        value.backward()
        run.average(p.grad for p in parameters)
        if clip < math.inf:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        yield value.detach()


def cosine(peak: float, steps: int, warmup: float = 0.0, floor: float = 0.0) -> Callable[[int], float]:
    """Linear rise over the share `warmup` of all steps, then a half cosine from `peak` down to `floor`."""
    rise = int(steps * warmup)

    def rate(step: int) -> float:
        if step < rise:
            return peak * (step + 1) / (rise + 1)
        done = (step - rise) / max(steps - rise, 1)
        return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))

    return rate


@torch.no_grad()
def accuracy(net: Any, pictures: ImageSet | Batches, run: Run, size: int = 512) -> float:
    """Share of pictures that the network, in evaluation mode, puts in their class."""
    batches = pictures if isinstance(pictures, Batches) else Batches(pictures, run)
    net.eval()
    right = torch.zeros((), dtype=torch.long, device=run.device)
    for _, x, y in batches.in_order(size):
        right += (net(x).argmax(1) == y).sum()
    return right.item() / len(batches.rows)


def state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers and optimizer moments under flat names."""
    moments = optimizer.state_dict()["state"]
    flat = {f"moment.{i}.{k}": v for i, s in moments.items() for k, v in s.items() if isinstance(v, Tensor)}
    return {f"net.{k}": v for k, v in net.state_dict().items()} | flat


def restore(net: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `state` took."""
    net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("moment."):
            _, index, key = name.split(".", 2)
            moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def check_steps(step: float | int, lr: float | int, momentum: float | int) -> None:
    """Raise UserError for steps of the noise, or of the surrogate's SGD, that cannot be taken."""
    if not (step > 0 and lr > 0):
        raise UserError(f"step_size={step:g}, lr={lr:g}: both must be positive")
    if not 0 <= momentum < 1:
        raise UserError(f"momentum={momentum:g} is not between 0 and 1")


def refuse_diverged(net: nn.Module) -> None:
    """Raise UserError where training has left weights of no use: perturbations made with them would do nothing."""
    if not all((p.abs() < HUGE).all() for p in net.parameters()):
        raise UserError("the training of the network diverged, its weights are no numbers or huge; a smaller lr helps")


def resume(net: nn.Module, optimizer: torch.optim.Optimizer, run: Run, name: str, identity: Mapping[str, Any]) -> int:
    """Put back what the run kept under a name; how many epochs are done, 0 where nothing of this identity was kept."""
    if not (kept := run.load(name, **identity)):
        return 0
    restore(net, optimizer, kept[0])
    return kept[1]["epoch"]
