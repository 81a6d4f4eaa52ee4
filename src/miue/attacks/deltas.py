"""The deltas of the min-min driver: whose they are, where they begin, how they move, and all of them at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.attacks.shape import Shape
from miue.core.run import Run
from miue.core.types import ImageSet, stretch
from miue.training import perturb

if TYPE_CHECKING:
    from miue.attacks.min_min import Alternating


class Deltas:
    """Planes of delta, one row for each picture of this process or one for each class, and their momentum.

    form: of the pass; its rows are those of this process. tied: deltas of a first pass that stay, while this one makes
    the colour part. saved: `tensors` of a call that this one goes on with; empty if there was none.
    """

    def __init__(
        self,
        plan: Alternating,
        data: ImageSet,
        form: Shape,
        run: Run,
        tied: Tensor | None,
        saved: Mapping[str, Tensor],
    ) -> None:
        self.plan, self.data, self.form, self.run, self.tied = plan, data, form, run, tied
        # row of delta that belongs to picture i: itself among ours, or its class
        self.owner = data.labels if plan.per == "class" else torch.zeros(len(data), dtype=torch.long)
        if plan.per == "image":
            self.owner[form.mine] = torch.arange(len(form.mine))
        rows = len(data.classes) if plan.per == "class" else len(form.mine)
        grid = (plan.cells, plan.cells) if plan.cells else data.shape[1:]
        self.shape = (rows, form.count, *grid)
        zeros = run.put(torch.zeros(self.shape))
        self.velocity = saved.get("velocity", zeros.clone()) if plan.noise_momentum else None
        self.planes = saved.get("delta", self._with_tied(zeros) if plan.start == "zero" else self._random(0))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a call needs to go on."""
        return {"delta": self.planes} | ({} if self.velocity is None else {"velocity": self.velocity})

    def begin(self, epoch: int) -> None:
        """Begin anew in this epoch, if the plan says so."""
        if self.plan.start == "anew":
            self.planes = self._random(epoch + 1)
            self.velocity = None if self.velocity is None else torch.zeros_like(self.planes)

    def rows(self, index: Int[Tensor, "b"]) -> tuple[Int[Tensor, "r"], Int[Tensor, "b"]]:
        """The rows that a batch moves, and for each of its pictures the index of its row among them."""
        rows = self.owner[index]
        return rows.unique(return_inverse=True) if self.plan.per == "class" else (rows, torch.arange(len(rows)))

    def of(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """The change of these pictures, at their size."""
        return self.stretched(self.planes, self.owner[index])

    def stretched(self, planes: Float[Tensor, "r p g g2"], rows: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """The change that these rows of the planes are, at the size of the pictures. Differentiable."""
        return stretch(self.form.joined(planes[self.run.put(rows)]), *self.data.shape[1:])

    def move(
        self,
        index: Int[Tensor, "b"],
        rows: Int[Tensor, "r"],
        gradient: Float[Tensor, "r p g g2"],
        y: Int[Tensor, "b"],
        step: float,
        base: Float[Tensor, "b c h w"],
    ) -> None:
        """Take one signed step against the gradient of the rows of a batch. base: its pictures without deltas."""
        plan, at = self.plan, self.run.put(rows)
        if plan.per == "class":  # a class is shared by processes: its gradient is summed over them
            whole = torch.zeros_like(self.planes).index_add_(0, at, gradient)
            at, gradient = self.run.put(torch.arange(len(self.planes))), self.run.total(whole)
        elif plan.class_gradient:
            gradient = self.form.shared(index, gradient, y)
        if self.velocity is not None:
            gradient = plan.noise_momentum * self.velocity[at] + perturb.direction(gradient)
            self.velocity[at] = gradient
        moved = self.form.moved(self.planes[at], gradient, step)
        # only a pixel-wise delta of one picture can be clipped to the range of that picture
        single = plan.per == "image" and not plan.cells
        self.planes[at] = self.form.keep_in_range(moved, base) if single else moved

    def balance(self) -> None:
        """Take out the means of classes, if the plan says so."""
        if self.plan.balanced:
            self.planes = self.form.balance(self.planes)

    def finished(self) -> Float[Tensor, "k c g g2"]:
        """All deltas, in data-set order."""
        delta = self.form.joined(self.planes)
        if self.plan.per == "class":
            return delta
        whole = torch.zeros(len(self.data), *delta.shape[1:], device=delta.device)
        whole[self.run.put(self.form.mine)] = delta
        return self.run.total(whole)

    def _random(self, epoch: int) -> Float[Tensor, "r p g g2"]:
        """Uniform random planes; those of classes are the same in every process."""
        rank = self.run.rank if self.plan.per == "image" else "all"
        return self._with_tied(self.form.random_start(self.shape, self.run.rng(*self.form.names("start", epoch), rank)))

    def _with_tied(self, planes: Float[Tensor, "r p g g2"]) -> Float[Tensor, "r p g g2"]:
        """Planes whose first is the tied part of an earlier pass, if there was one."""
        if self.tied is not None:
            planes[:, :1] = self.tied
        return planes
