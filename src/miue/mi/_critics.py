"""MINE of many slices at once: a small critic for each, all of which train together."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from miue.core.run import Run
from miue.training.loop import descend

WIDTH, OUT = 64, 8  # of a critic T(x, y) = f(x) . g(y), where f and g have one hidden layer: a slice has few dimensions
STEPS, BATCH, RATE, DECAY = 300, 64, 1e-2, 1e-3
EVERY, PATIENCE = 20, 5  # steps between two looks at the rows that decide when to stop, and looks without a better one
ELEMENTS = 2**22  # scores of held-out pairs at once: 16 MiB


def mine_nats(x: Float[Tensor, "n s k"], y: Float[Tensor, "n s k"], run: Run) -> list[float]:
    """The Donsker-Varadhan bound of every slice: mean_i T_ii - log mean_{i != j} exp T_ij on held-out rows, in nats.

    60 % of the rows train, 20 % decide when to stop, 20 % give the value, as in `MINE`.
    """
    order = torch.randperm(len(x), generator=run.rng("mi", "split")).to(x.device)
    parts = order.tensor_split([len(x) * 3 // 5, len(x) * 4 // 5])
    many = max(ELEMENTS // len(parts[2]) ** 2, 1)
    sides = zip(*(side.float().transpose(0, 1).split(many) for side in (x, y)), strict=True)
    return [nats for number, (a, b) in enumerate(sides) for nats in _trained(a, b, parts, number, run)]


class _Sides(nn.Module):
    """A small network for each slice: s n k -> s n OUT."""

    def __init__(self, slices: int, inputs: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = ((inputs, WIDTH), (WIDTH, OUT))

        def drawn(rows: int, fan_in: int, columns: int) -> Tensor:
            return (torch.rand(slices, rows, columns, generator=generator) * 2 - 1) / math.sqrt(fan_in)

        self.weights = nn.ParameterList(drawn(fan_in, fan_in, fan_out) for fan_in, fan_out in sizes)
        self.biases = nn.ParameterList(drawn(1, fan_in, fan_out) for fan_in, fan_out in sizes)

    def forward(self, x: Float[Tensor, "s n k"]) -> Float[Tensor, "s n o"]:
        hidden = torch.baddbmm(self.biases[0], x, self.weights[0]).relu()
        return torch.baddbmm(self.biases[1], hidden, self.weights[1])


def _trained(
    x: Float[Tensor, "s n k"], y: Float[Tensor, "s n k"], parts: tuple[Tensor, ...], number: int, run: Run
) -> list[float]:
    """Train the critics of some slices; the loss is their sum, so that each learns by itself.

    Of each the best one counts, by the rows for that; an untrained one is a candidate.
    """
    (train, stop, held), start = parts, run.rng("mi", "critics", number)
    nets = nn.ModuleList(_Sides(len(x), x.shape[2], start) for _ in range(2)).to(x.device)

    def bounds(rows: Tensor) -> Float[Tensor, "s"]:
        scores = nets[0](x[:, rows]) @ nets[1](y[:, rows]).mT
        true, b = scores.diagonal(dim1=1, dim2=2), len(rows)
        others = scores.masked_fill(torch.eye(b, dtype=torch.bool, device=x.device), -torch.inf)
        return true.mean(1) - others.flatten(1).logsumexp(1) + math.log(b * (b - 1))

    def stream() -> Iterator[Tensor]:
        generator = run.rng("mi", "batches", number)
        for _ in range(STEPS):
            yield train[torch.randperm(len(train), generator=generator)[:BATCH].to(train.device)]

    optimizer, weights = torch.optim.AdamW(nets.parameters(), weight_decay=DECAY), list(nets.parameters())
    with torch.no_grad():
        best, best_weights, waited = bounds(stop), [value.clone() for value in weights], 0
    for step, _ in enumerate(descend(lambda rows: -bounds(rows).sum(), stream(), optimizer, lambda _: RATE, run), 1):
        if step % EVERY:
            continue
        with torch.no_grad():
            values, waited = bounds(stop), waited + 1
            if (better := values > best).any():
                best, waited = torch.where(better, values, best), 0
                for old, new in zip(best_weights, weights, strict=True):
                    old[better] = new[better]
        if waited == PATIENCE:
            break
    with torch.no_grad():
        for old, new in zip(best_weights, weights, strict=True):
            new.copy_(old)
        return bounds(held).double().tolist()
