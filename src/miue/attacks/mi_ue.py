"""MI-UE: mutual-information unlearnable examples (Zhu, Miao, Dong, Gao, ICLR 2026, arXiv 2603.03725)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.attacks.min_min import MinMin
from miue.attacks.presets import LASTING
from miue.core.errors import UserError
from miue.core.method import AttackFacts
from miue.nets.base import Net


def similarity_loss(z: Float[Tensor, "b d"], y: Int[Tensor, "b"], tau: float) -> Float[Tensor, ""]:
    """-(1/B) sum_i log( sum_{j: y_j = y_i} exp(cos(z_i, z_j) / tau) / sum_j exp(cos(z_i, z_j) / tau) ), nats.

    The pair j = i is in both sums, so the loss is finite for an anchor without companions, and 0 for one class.
    """
    unit = F.normalize(z, dim=1)
    logits = unit @ unit.T / tau
    same = y[:, None] == y[None, :]
    return (logits.logsumexp(1) - logits.masked_fill(~same, -torch.inf).logsumexp(1)).mean()


def distance_loss(z: Float[Tensor, "b d"], y: Int[Tensor, "b"], per_dimension: bool) -> Float[Tensor, ""]:
    """(1/B) sum_i log(1 + sum_{j: y_j = y_i} ||z_i - z_j||_2); the sum is divided by d if `per_dimension`.

    Gradients are finite even if features coincide: roots are taken only of positive squares.
    """
    # differences within a class are small beside the features themselves: centring first keeps their digits
    centred = z - z.mean(0).detach()
    square = centred.square().sum(1)
    d2 = (square[:, None] + square[None, :] - 2 * centred @ centred.T).clamp_min(0)
    # a difference of equal features is rounding error in proportion to their squares: it counts as 0
    least = 16 * torch.finfo(z.dtype).eps * (square[:, None] + square[None, :])
    pairs = (y[:, None] == y[None, :]) & (d2 > least)
    distance = torch.where(pairs, torch.where(pairs, d2, 1.0).sqrt(), 0.0)
    scale = z.shape[1] if per_dimension else 1
    return torch.log1p(distance.sum(1) / scale).mean()


SMALL: Mapping[str, Any] = {  # common settings of our own presets; docs/log.md has the trials
    "surrogate": "small-resnet:width=8",
    "epochs_at": 5000,
    "steps": 3,
    "step_size": 3.0,
    "batch": 32,
    "noise_momentum": 0.9,
    "class_gradient": 10.0,
}


@dataclass(frozen=True, kw_only=True)
class MIUE(MinMin):
    """Raise the cosine similarity of same-class features, which shrinks their conditional covariance.

    L = weight * similarity + zeta * distance + error * cross-entropy. Source: the paper, without the last term, which
    is EM's; its ablation without the first is weight 0. `official` follows what the authors' released command computes
    (zeta 0, a step that grows from 0.2 to 0.4 grey levels, the distance divided by the dimension, flip before adding).
    """

    tau: float = 0.1
    weight: float = 1.0
    zeta: float = 0.1
    error: float = 0.0
    per_dimension: bool = False

    together: ClassVar[bool] = True
    facts: ClassVar[AttackFacts] = AttackFacts(
        name="mi-ue",
        title="MI-UE",
        year=2026,
        reference="Zhu et al., ICLR 2026, arXiv 2603.03725",
        summary="same-class features of a surrogate are aligned, against the mutual information with clean ones",
        passes=1100,
        needs="surrogate",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"augment": "flip"},
        "official": {
            "augment": "flip-first",
            "zeta": 0.0,
            "step_size_end": 0.4,
            "per_dimension": True,
            "companions": 1,
        },
        "lasting": {**LASTING},
        "quick": {**SMALL, "epochs": 12},
        "drawings": {**SMALL, "surrogate": "small-cnn:width=8", "epochs": 40, "steps": 2, "class_gradient": 4.0},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = {"weight": self.weight, "zeta": self.zeta, "error": self.error}
        if not (self.tau > 0 and min(weights.values()) >= 0 and any(weights.values())):
            given = ", ".join(f"{name}={value:g}" for name, value in weights.items())
            raise UserError(
                f"tau={self.tau:g}, {given}: tau must be positive, the weights of the loss not negative and not all 0"
            )

    def loss(self, net: Net, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        z = net.embed(x).float()
        terms = [self.weight * similarity_loss(z, y, self.tau)] if self.weight else []
        terms += [self.zeta * distance_loss(z, y, self.per_dimension)] if self.zeta else []
        terms += [self.error * F.cross_entropy(net.head(z), y)] if self.error else []
        return torch.stack(terms).sum()
