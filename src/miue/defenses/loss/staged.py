"""Staged training: shallow layers learn less and less, then nothing (after Dang et al., arXiv 2306.02064)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.training.colour import coloured


@dataclass(frozen=True, kw_only=True)
class Staged:
    """Slow the layers down in stages, shallow ones first: they fall for the noise first; on jittered or grey colours.

    The gradients of stage s of S (0 is the shallowest, the points of `miue analyze`) are multiplied by
    max(0, 1 - done / t_s), t_s = first + (1 - first) s / S; the head is never slowed down. colour: whether the pictures
    get the colour jitter and the random grey of SimCLR at full strength, as in the source's variant ST-CG.

    The source has no code, and we have read its abstract and summaries only. There a measure of how activations cluster
    decides when layers are slowed down; here a schedule does, and its numbers are ours. So results say nothing about
    the source's. For SGD a factor on gradients is one on the rate, except that weight decay stays; AdamW undoes it
    unless it is 0. Batch norm goes on counting everywhere.
    """

    first: float = 0.3
    colour: bool = True

    slot: ClassVar[Literal["loss"]] = "loss"
    facts: ClassVar[Facts] = Facts(
        name="staged", year=2023, reference="a simple form of ST-CG: Dang et al., 2023, arXiv 2306.02064"
    )

    def __post_init__(self) -> None:
        if not 0 < self.first <= 1:
            raise UserError(f"staged: first={self.first:g} is not above 0 and at most 1: a share of the training")

    def __call__(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator, done: float
    ) -> Float[Tensor, ""]:
        seen = coloured(x, generator, 1.0) if self.colour else x
        weights = dict(net.named_parameters())
        # the weight itself in value, with a share of its gradient
        slowed = {
            name: (old := weights[name].detach()) + f * (weights[name] - old) for name, f in self.factors(net, done)
        }
        return F.cross_entropy(torch.func.functional_call(net, slowed, (seen,)), y)

    def factors(self, net: Any, done: float) -> list[tuple[str, float]]:
        """The factor of every weight of the trunk, by its name in the network."""
        count = max(len(net.points), 1)
        ends = [self.first + (1 - self.first) * stage / count for stage in range(count)]
        return [(name, max(0.0, 1 - done / ends[stage])) for name, stage in stages(net).items()]


def stages(net: Any) -> Mapping[str, int]:
    """The stage of every weight of the trunk: the point that it belongs to, or the last one before it."""
    stage, table = 0, {}
    for name, _ in net.trunk.named_parameters():
        stage = next((i for i, point in enumerate(net.points) if f"{name}.".startswith(f"{point}.")), stage)
        table[f"trunk.{name}"] = stage
    return table
