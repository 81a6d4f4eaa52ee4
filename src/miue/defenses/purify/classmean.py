"""Class means: subtract noise that is nearly the same all over a class. Needs no training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.method import Facts
from miue.core.run import Run
from miue.defenses.purify.smooth import Blur
from miue.training import perturb

PART = 4096  # pictures processed at once


@dataclass(frozen=True, kw_only=True)
class ClassMean:
    """Take the fine pattern that a class has in common out of its pictures: x - strength (m_y - blur(m_y)).

    m_y: mean picture of class y; over many pictures of a class little remains of their own fine detail, but all of a
    perturbation that they share. blur: Gaussian with `sigma` pixels, so that what classes have in common by nature,
    which is coarse, stays. Aimed at MI-UE with shared noise, class-wise EM, LSP; `classmean+tune:clean=FOLDER` is a
    trainer who has clean pictures besides.
    """

    sigma: float = 2.0
    strength: float = 1.0

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(name="classmean", reference="ours: a trainer who knows which method was used")

    def __post_init__(self) -> None:
        Blur(sigma=self.sigma)
        if not 0 < self.strength <= 1:
            raise UserError(f"classmean: strength={self.strength:g} is not above 0 and at most 1")

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        means = perturb.class_means(x, y, int(y.max()) + 1)
        fine = self.strength * (means - Blur(sigma=self.sigma)(means, torch.arange(len(means)), run))
        parts = zip(x.split(PART), y.split(PART), strict=True)
        return torch.cat([(part - fine[labels]).clamp_(0, 1) for part, labels in parts])
