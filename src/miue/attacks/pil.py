"""PIL: perturbation-induced linearisation (ICLR 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from miue.attacks.crafted import Aim, Crafted
from miue.core.errors import UserError
from miue.core.method import AttackFacts
from miue.training.views import Augment


class Linear(nn.Module):
    """Two linear layers without bias on raw pixels, c h w -> k -> k: one linear map, which learns as two do.

    No normalisation of pictures: h(delta) must not depend on where the middle of a picture's values lies.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, classes, bias=False)
        self.last = nn.Linear(classes, classes, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.last(self.first(x.flatten(1)))


def linearity_loss(
    clue: Float[Tensor, "b k"], rest: Float[Tensor, "b k"], y: Int[Tensor, "b"], share: float
) -> Float[Tensor, ""]:
    """(1 - share) CE(clue, y) + share KL(uniform || softmax(rest)), mean over pictures, nats."""
    hidden = -rest.log_softmax(1).mean() - torch.log(torch.tensor(float(rest.shape[1])))
    return (1 - share) * F.cross_entropy(clue, y) + share * hidden


@dataclass(frozen=True, kw_only=True)
class PIL(Crafted):
    """Noise that takes its class, as a linear network h sees it, out of a picture; the rest tells h nothing.

    L = (1 - share) CE(h(-delta), y) + share KL(uniform || softmax h(x + delta)). The paper writes d = -delta and
    releases x - d. Minutes on a processor. Source: the paper and its released settings. Unlike the released code:
    batches are shuffled, the rate follows a cosine, and the budget holds on the file (there, one grey level is lost to
    truncation). h sees x + delta as a picture, within [0, 1]; the released code cuts at the end.
    """

    epochs: int = 30
    batch: int = 512
    lr: float = 0.003
    weight_decay: float = 0.0
    steps: int = 30
    start: Literal["zero", "uniform", "gaussian"] = "uniform"
    augment: Augment = "none"
    share: float = 0.1

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="pil",
        title="PIL",
        year=2026,
        reference="Perturbation-induced linearisation, ICLR 2026",
        summary="a linear network reads the class off the perturbation and nothing off the rest",
        passes=90,
        needs="surrogate",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"batch": 64},  # ours: enough steps of training on a few thousand pictures
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share < 1:
            raise UserError(f"share={self.share:g} is not at least 0 and below 1")

    def network(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        c, h, w = shape
        return Linear(c * h * w, classes)

    def aim(self, net: Any, known: Mapping[str, Tensor], classes: int) -> Aim:
        return lambda x, y, delta: linearity_loss(net(-delta), net(x), y, self.share)

    def reached(
        self, net: Any, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], delta: Float[Tensor, "b c h w"]
    ) -> tuple[str, Bool[Tensor, "b"]]:
        return "show their class in the noise alone", net(-delta).argmax(1) == y
