"""UEraser (Qin, Gao, Zhao, Ye, Xu, ICCVW 2023): strong random views, and the worst of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.defenses.augment.library import Plasma, TrivialAugment


@dataclass(frozen=True, kw_only=True)
class UEraser:
    """Cross-entropy on the worst of K random views of each picture: plasma, then TrivialAugment.

    mode: "lite" is K = 1, "max" is K = `views` always, "standard" is K = `views` for the share `until` of the training
    and K = 1 after. Its variant against TAP and AR is `jpeg:quality=10+ueraser`. The worst views are chosen without
    gradients and then learnt in a pass of their own; the authors' code keeps K passes instead, so its batch statistics
    differ; and of TrivialAugment groups of pictures share a draw (`trivial`), where the source draws for each. Their
    notebook does not compute the standard mode that they describe; this does. Published results for it contradict each
    other.
    """

    mode: Literal["lite", "standard", "max"] = "max"
    views: int = 5
    until: float = 0.3
    p: float = 0.5

    slot: ClassVar[Literal["loss"]] = "loss"
    facts: ClassVar[Facts] = Facts(name="ueraser", year=2023, reference="Qin et al., ICCVW 2023, arXiv 2303.15127")

    def __post_init__(self) -> None:
        if self.views < 2 or not 0 < self.until < 1:
            raise UserError(f"ueraser: views={self.views}, until={self.until:g}: at least 2 views, a share below 1")
        Plasma(p=self.p)  # raises UserError if kornia is missing

    def __call__(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], generator: torch.Generator, done: float
    ) -> Float[Tensor, ""]:
        several = self.mode == "max" or (self.mode == "standard" and done < self.until)
        seen = [self._view(x, y, generator) for _ in range(self.views if several else 1)]
        return F.cross_entropy(net(worst(net, seen, y)), y)

    def _view(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        for change in (Plasma(p=self.p), TrivialAugment()):
            x, y = change(x, y, generator)
        return x


@torch.no_grad()
def worst(net: Any, views: list[Float[Tensor, "b c h w"]], y: Float[Tensor, "b k"]) -> Float[Tensor, "b c h w"]:
    """For each picture, the view with the largest cross-entropy."""
    if len(views) == 1:
        return views[0]
    losses = torch.stack([F.cross_entropy(net(view), y, reduction="none") for view in views])
    return torch.stack(views)[losses.argmax(0), torch.arange(len(y), device=y.device)]
