"""REM: robust error-minimising noise (Fu, He, Liu, Shen, Tao, ICLR 2022, arXiv 2203.14533), and SEM, stable
error-minimising noise (Liu, Xu, Chen, Sun, AAAI 2024, arXiv 2311.13091)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.attacks.min_min import Alternating, View
from miue.core.errors import UserError
from miue.core.method import AttackFacts
from miue.training.perturb import worst
from miue.training.views import augmented


@dataclass(frozen=True, kw_only=True)
class REM(Alternating):
    """Error-minimising noise against an adversarially trained victim.

    min over theta, min over delta, E_T max over |rho| <= radius of CE(f(T(x + delta) + rho), y), in nats; T crops and
    mirrors. inner: the adversary rho that delta meets, "pgd" (REM), a "uniform" draw (SEM, about nine times cheaper) or
    "none". The surrogate is trained against PGD in the first two, plainly with "none", which is EM over `views` draws
    of T. radius: in grey levels; inner_steps: signed steps of PGD, each 2 / inner_steps of the radius (0.8 there).
    Sources: the papers and their released settings, 5,000 batches of 128 (13 epochs of 50,000 pictures).
    Unlike the released code, which finds a delta just before each batch of the surrogate: here they take turns by
    epochs, so the surrogate sees deltas that are up to an epoch old. Deltas start anew in each epoch, and those of the
    last one, against the finished surrogate, are kept, as there. The rate follows a cosine, not steps.
    """

    epochs: int = 13
    step_size: float = 1.6
    noise_batch: int = 128
    weight_decay: float = 5e-4
    views: int = 5
    start: Literal["zero", "uniform", "anew"] = "anew"
    inner: Literal["pgd", "uniform", "none"] = "pgd"
    radius: float = 4.0
    inner_steps: int = 10

    facts: ClassVar[AttackFacts] = AttackFacts(
        name="rem",
        title="REM",
        year=2022,
        reference="Fu et al., ICLR 2022, arXiv 2203.14533",
        summary="EM against an adversary, for victims that train adversarially",
        passes=7293,
        needs="surrogate",
    )
    variants: ClassVar[tuple[AttackFacts, ...]] = (
        AttackFacts(
            name="rem:sem",
            title="SEM",
            year=2024,
            reference="Liu et al., AAAI 2024, arXiv 2311.13091",
            summary="REM with a random draw instead of the adversary where the noise is made: much cheaper",
            passes=793,
            needs="surrogate",
        ),
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sem": {"inner": "uniform"},
        "quick": {  # ours: with steps so few, delta has to go on from epoch to epoch
            "surrogate": "small-cnn:width=16",
            "epochs": 8,
            "epochs_at": 5000,
            "steps": 3,
            "step_size": 3.0,
            "batch": 32,
            "views": 2,
            "inner_steps": 2,
            "start": "zero",
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radius > 0 or self.inner_steps < 1:
            raise UserError(
                f"radius={self.radius:g}, inner_steps={self.inner_steps}: a positive radius and at least one step; "
                "inner=none leaves the adversary out"
            )

    @property
    def against(self) -> float:
        return 0.0 if self.inner == "none" else self.radius

    def view(self, generator: torch.Generator) -> View:
        return lambda s: augmented("flip-crop", s, generator)

    def learn(
        self, net: Any, x: Float[Tensor, "v c h w"], y: Int[Tensor, "b"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        hard = x if self.inner == "none" else worst(net, x, y, self.radius, self.inner_steps, generator)
        return F.cross_entropy(net(hard), y)

    def move(
        self,
        net: Any,
        x: Float[Tensor, "v c h w"],
        y: Int[Tensor, "b"],
        delta: Float[Tensor, "b c h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        steps = {"pgd": self.inner_steps, "uniform": 0}
        hard = worst(net, x, y, self.radius, steps[self.inner], generator) if self.inner in steps else x
        return F.cross_entropy(net(hard), y)
