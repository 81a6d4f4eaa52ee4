"""What a surrogate sees of a picture: mirrored and cropped, or its worst neighbour.

Each is drawn per picture from a generator, and differentiable, so that a gradient goes through to an aligned delta.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from miue.training import perturb
from miue.training.batches import crop, flip

Augment = Literal["none", "flip", "flip-crop"]


def augmented(how: Augment, x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """The picture itself, mirrored at random, or cropped and mirrored at random."""
    if how == "none":
        return x
    return flip(crop(x, generator) if how == "flip-crop" else x, generator)


def worst(
    net: Any, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], radius: float, steps: int, generator: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """x moved within `radius` grey levels to where the network, in evaluation mode, has a high cross-entropy.

    Signed steps of 2 / steps of the radius, so that they cross the ball; 0 steps: uniform noise. Gradients go straight
    through to x: the change counts as a constant.
    """
    step = 2 * radius / max(steps, 1) / 255
    near = perturb.adversarial(net, x, y, radius / 255, step, steps, generator)
    return x + (near - x.detach())
