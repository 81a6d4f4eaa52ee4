"""CUDA: convolution-based unlearnable data (Sadasivan et al., CVPR 2023, arXiv 2303.04278)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import AttackFacts, BaseAttack, Kept
from miue.core.run import Run
from miue.core.types import Budget, ImageSet
from miue.training.batches import Batches


def kernels(classes: int, blur: float, generator: torch.Generator) -> Float[Tensor, "{classes} 3 3"]:
    """One 3 x 3 kernel per class: uniform in [0, blur], with one entry at a random place set to 1."""
    entries = torch.rand(classes, 9, generator=generator) * blur
    peak = torch.randint(9, (classes, 1), generator=generator)
    return entries.scatter_(1, peak, 1.0).reshape(classes, 3, 3)


def filtered(x: Float[Tensor, "b c h w"], kernel: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b c h w"]:
    """Each picture correlated with its own kernel, the same for its channels, zeros around it; divided by its maximum.

    A black picture stays black.
    """
    b, c, h, w = x.shape
    weight = kernel.repeat_interleave(c, 0)[:, None]
    y = F.conv2d(x.reshape(1, b * c, h, w), weight, padding=1, groups=b * c).reshape(b, c, h, w)
    peak = y.amax((1, 2, 3), keepdim=True)
    return y / torch.where(peak > 0, peak, 1.0)


@dataclass(frozen=True, kw_only=True)
class CUDA(BaseAttack):
    """Every picture is blurred by the kernel of its class: delta = filtered(x) - x. No bound on the change.

    blur: largest side entry of a kernel. Rounded and not truncated, unlike the reference. On pictures of another size
    than the canvas the change at canvas size is stretched, which is not the same as filtering them at their size.
    """

    blur: float = 0.3

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="cuda",
        title="CUDA",
        year=2023,
        reference="Sadasivan et al., CVPR 2023, arXiv 2303.04278",
        summary="every class is blurred by a random kernel of its own; unbounded",
        passes=0,
        needs="nothing",
        natural=Budget(0, "none"),
        norms=("none",),
    )

    def __post_init__(self) -> None:
        if not 0 < self.blur <= 1:
            raise UserError(f"blur={self.blur:g} is not above 0 and at most 1")

    def craft(self, data: ImageSet, budget: Budget, run: Run) -> Float[Tensor, "n c h w"]:
        kernel = run.put(kernels(len(data.classes), self.blur, run.rng("kernels")))
        delta = torch.empty(data.images.shape)
        for rows, x, y in Batches(data, run).in_order(512):
            delta[rows] = (filtered(x, kernel[y]) - x).cpu()
        return delta

    def craft_more(self, new: ImageSet, kept: Kept, budget: Budget, run: Run) -> Float[Tensor, "n c h w"]:
        """Delta of later pictures: the kernels of the classes come from the seed."""
        return self.craft(new, budget, run)
