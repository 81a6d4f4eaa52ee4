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
from miue.core.types import eight_bits
from miue.data import recoded
from miue.defenses.augment.library import Plasma, TrivialAugment


@dataclass(frozen=True, kw_only=True)
class UEraser:
    """Cross-entropy on the worst of K random views of each picture: plasma, shuffled channels, TrivialAugment, JPEG.

    mode: "lite" is K = 1, "max" is K = `views` always, "standard" is K = `views` for the share `until` of the training
    and K = 1 after. jpeg: quality of every view; 0: no JPEG. The authors' variant against TAP and AR is `jpeg=10`;
    APBench encodes each training picture once and before (`jpeg:quality=10+ueraser`). The worst views are chosen
    without gradients and then learnt in a pass of their own; the authors' code keeps K passes instead, so its batch
    statistics differ. TrivialAugment is torchvision's wide space (turns up to 135 degrees, shears up to 0.99, shifts up
    to 32 pixels) in groups of pictures that share an operation and its strength (`trivial`). The authors use kornia's
    (30 degrees, 0.3, half the side), which draws one operation for the whole batch and a strength for each picture.
    Their notebook does not compute the standard mode that they describe; this does. Published results for it contradict
    each other.
    """

    mode: Literal["lite", "standard", "max"] = "max"
    views: int = 5
    until: float = 0.3
    p: float = 0.5
    jpeg: int = 0

    slot: ClassVar[Literal["loss"]] = "loss"
    facts: ClassVar[Facts] = Facts(name="ueraser", year=2023, reference="Qin et al., ICCVW 2023, arXiv 2303.15127")

    def __post_init__(self) -> None:
        if self.views < 2 or not 0 < self.until < 1:
            raise UserError(f"ueraser: views={self.views}, until={self.until:g}: at least 2 views, a share below 1")
        if not 0 <= self.jpeg <= 100:
            raise UserError(f"ueraser: jpeg={self.jpeg} is not between 1 and 100, or 0 for none")
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
        if not self.jpeg:
            return x
        coded = recoded(eight_bits(x.detach().cpu()), f"jpeg:quality={self.jpeg}")
        return (coded.float() / 255).to(x.device)


@torch.no_grad()
def worst(net: Any, views: list[Float[Tensor, "b c h w"]], y: Float[Tensor, "b k"]) -> Float[Tensor, "b c h w"]:
    """For each picture, the view with the largest cross-entropy."""
    if len(views) == 1:
        return views[0]
    losses = torch.stack([F.cross_entropy(net(view), y, reduction="none") for view in views])
    return torch.stack(views)[losses.argmax(0), torch.arange(len(y), device=y.device)]
