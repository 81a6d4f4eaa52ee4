"""A mixture of views before a surrogate: those that a trainer may take, drawn for every picture of a batch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.training import perturb
from miue.training.colour import chroma, luma
from miue.training.jpeg import jpeg
from miue.training.views import blurred

STEPS = 3  # of the adversary

Rule = Callable[[Tensor, torch.Generator, float], Tensor]


def cloud(shape: tuple[int, int, int], generator: torch.Generator) -> Float[Tensor, "b 1 h w"]:
    """Random fields in [0,1] that are smooth over a third of the picture and more, one a picture."""
    b, h, w = shape
    field = F.interpolate(torch.rand(b, 1, 4, 4, generator=generator), (h, w), mode="bicubic", align_corners=False)
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    return (field - low) / (high - low).clamp_min(1e-6)


def _gray(x: Tensor, generator: torch.Generator, value: float) -> Tensor:
    return luma(x).expand_as(x)


def _chroma(x: Tensor, generator: torch.Generator, value: float) -> Tensor:
    return chroma(x)


def _jpeg(x: Tensor, generator: torch.Generator, value: float) -> Tensor:
    quality = int(value) or int(torch.randint(10, 91, (), generator=generator))
    return jpeg(x, quality)


def _resize(x: Tensor, generator: torch.Generator, value: float) -> Tensor:
    h, w = x.shape[2:]
    size = max(int(h * value), 1), max(int(w * value), 1)
    small = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, (h, w), mode="bicubic", align_corners=False).clamp(0, 1)


def _blur(x: Tensor, generator: torch.Generator, value: float) -> Tensor:
    return blurred(x, value)


def _shuffle(x: Tensor, generator: torch.Generator, value: float) -> Tensor:
    b, c, h, w = x.shape
    order = torch.rand(b, c, generator=generator).argsort(1).to(x.device)
    mixed = x.gather(1, order[:, :, None, None].expand_as(x))
    light, contrast = (cloud((b, h, w), generator).to(x) for _ in range(2))
    amount = torch.rand(2, b, 1, 1, 1, generator=generator).to(x) * value
    middle = mixed.mean((1, 2, 3), keepdim=True)
    faded = middle + (mixed - middle) * (1 - amount[0] * contrast)
    return (faded + amount[1] * (light - 0.5)).clamp(0, 1)


# name: (the view, its value if none is given, the least and the largest value)
VIEWS: dict[str, tuple[Rule | None, float, float, float]] = {
    "plain": (lambda x, generator, value: x, 0.0, 0.0, 0.0),
    "gray": (_gray, 0.0, 0.0, 0.0),
    "chroma": (_chroma, 0.0, 0.0, 0.0),
    "jpeg": (_jpeg, 0.0, 1.0, 100.0),
    "resize": (_resize, 0.5, 0.1, 1.0),
    "blur": (_blur, 1.0, 0.1, 8.0),
    "shuffle": (_shuffle, 1.0, 0.0, 1.0),
    "adversary": (None, 4.0, 0.1, 32.0),
}


@dataclass(frozen=True)
class Part:
    """A view of a mixture."""

    name: str
    value: float
    share: float


def parts(text: str) -> tuple[Part, ...]:
    """Read a mixture such as "gray+chroma" or "0.6gray+0.15jpeg10": shares, views, and their values.

    Views: plain; gray; chroma (luminance thrown away); jpeg and its quality (none: from 10 to 90, drawn for every
    batch); resize and the share of the side that is left between; blur and its sigma in pixels; shuffle (channels at
    random, smooth clouds of light and contrast) and its strength; adversary and its radius in grey levels. Without
    shares, plain and all views are equally likely. With shares, the rest to 1 is plain. Raises UserError.
    """
    pieces = [piece.strip() for piece in text.split("+")] if text.strip() else []
    views = []
    for piece in pieces:
        match = re.fullmatch(r"([\d.]*)([a-z]+)([\d.]*)", piece)
        if not match or match[2] not in VIEWS:
            raise UserError(f"see={text}: {piece!r} is no view; the views are {', '.join(VIEWS)}, as in 0.6gray+jpeg10")
        _, default, low, high = VIEWS[match[2]]
        value, share = _number(match[3], default, text), _number(match[1], 0.0, text)
        if match[1] and not share:
            raise UserError(f"see={text}: {match[2]} has a share of 0; leave it out")
        if match[3] and not low <= value <= high:
            allowed = f"from {low:g} to {high:g}" if high else "none"
            raise UserError(f"see={text}: {match[2]} has a value of {value:g}; allowed is {allowed}")
        if match[2] == "jpeg" and value != int(value):
            raise UserError(f"see={text}: jpeg has a quality of {value:g}; give a whole number")
        views.append(Part(match[2], value, share))
    given = [part.share > 0 for part in views]
    if (any(given) and not all(given)) or sum(part.share for part in views) > 1 + 1e-9:
        raise UserError(f"see={text}: either every view has a share and they sum to at most 1, or none has")
    if views and not any(given):
        equal = 1 / (len(views) + all(part.name != "plain" for part in views))
        views = [Part(part.name, part.value, equal) for part in views]
    return tuple(views)


def _number(text: str, default: float, whole: str) -> float:
    try:
        return float(text) if text else default
    except ValueError:
        raise UserError(f"see={whole}: {text!r} is no number") from None


def look(
    mixture: tuple[Part, ...], net: Any, x: Float[Tensor, "v c h w"], y: Int[Tensor, "b"], generator: torch.Generator
) -> Float[Tensor, "v c h w"]:
    """The pictures, each through a view that is drawn for it. Differentiable.

    y: classes, for the adversary against `net`; where every picture has v / b views, they come one after the other.
    """
    if not mixture:
        return x
    ends = torch.tensor([part.share for part in mixture]).cumsum(0)
    drawn = torch.bucketize(torch.rand(len(x), generator=generator), ends)
    y = y.repeat(len(x) // len(y))
    views, order = [], []
    for number, part in enumerate((*mixture, Part("plain", 0.0, 0.0))):
        rows = (drawn == number).nonzero().flatten()
        if not len(rows):
            continue
        at = rows.to(x.device)
        rule = VIEWS[part.name][0]
        if rule is None:
            views.append(perturb.worst(net, x[at], y[at], part.value, STEPS, generator))
        else:
            views.append(rule(x[at], generator, part.value))
        order.append(rows)
    back = torch.cat(order).argsort().to(x.device)
    return torch.cat(views)[back]
