"""Rows to compare, their features at every depth, and a plane to look at them."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.nets import Classifier
from miue.training.batches import Batches

LEAST, LEAST_PER_CLASS = 40, 4  # fewest rows: half of them must still be measurable
WIDEST, NARROWED = 1024, 512  # what takes no features of any width gets so many components of more (pixels)
POINTS = 200  # pictures in the plane
SCALE = 0.02  # relative deviation up to which two stages are equal: pooling may sum in another order
Depth = tuple[str, Float[Tensor, "n d"], Float[Tensor, "n d"]]


def stratified(data: ImageSet, count: int, run: Run) -> Int[Tensor, "r"]:
    """Return `count` rows or a few more: the same share of every class, at least 4 of each.

    Raises UserError if a class, or the whole set, has too few pictures.
    """
    share, chosen = min(count / max(len(data), 1), 1.0), []
    for label, size in enumerate(data.labels.bincount(minlength=len(data.classes)).tolist()):
        if 0 < size < LEAST_PER_CLASS:
            raise UserError(
                f"class {data.classes[label]!r} has {size} pictures to compare; at least {LEAST_PER_CLASS} of each"
            )
        of_class = (data.labels == label).nonzero().flatten()
        order = torch.randperm(size, generator=run.rng("analysis", "rows", label))
        chosen.append(of_class[order[: max(math.ceil(size * share - 1e-9), min(size, LEAST_PER_CLASS))]])
    rows = torch.cat(chosen).sort().values
    if len(rows) < LEAST:
        raise UserError(f"{len(rows)} pictures to compare are too few; at least {LEAST}")
    return rows


@torch.no_grad()
def features(net: Classifier, data: ImageSet, run: Run, size: int = 256) -> list[Float[Tensor, "n _"]]:
    """Features of all pictures at every depth, shallow to deep, in evaluation mode, without augmentation, in float32.

    In lower precision clean and protected features would agree, or differ, by rounding.
    """
    net.eval()
    before, net.autocast = net.autocast, nullcontext
    try:
        parts = [[stage.float().cpu() for stage in net.stages(x)] for _, x, _ in Batches(data, run).in_order(size)]
    finally:
        net.autocast = before
    return [torch.cat(stage) for stage in zip(*parts, strict=True)]


def paired_stages(net: Classifier, clean: ImageSet, protected: ImageSet, run: Run) -> list[Depth]:
    """Return (name, clean features, protected features) for every depth, shallow to deep.

    Drops the last point if its pooled output equals the penultimate features.
    """
    x, y = features(net, clean, run), features(net, protected, run)
    points = [point.rpartition("model.")[2] for point in net.points]
    names = [*(points if len(points) == len(x) - 1 else map(str, range(1, len(x)))), "embed"]
    depths = list(zip(names, x, y, strict=True))
    if len(x) > 1 and x[-1].shape == x[-2].shape and torch.allclose(x[-1], x[-2], SCALE, SCALE * float(x[-1].std())):
        del depths[-2]
    return depths


def narrowed(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n r"]]:
    """Both sides as they are; very wide ones projected on the leading components of both together."""
    if x.shape[1] <= WIDEST:
        return x, y
    directions = _components(x, y)[2][:, :NARROWED].to(x.dtype)
    return x @ directions, y @ directions


def _components(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variances (largest first, not divided by n) and directions (columns) of both sides together, in float64."""
    both = torch.cat([x, y]).double()
    middle = both.mean(0)
    values, vectors = torch.linalg.eigh((both - middle).T @ (both - middle))
    return middle, values.flip(0), vectors.flip(1)


def plane(
    depth: Depth, labels: Int[Tensor, "n"], run: Run
) -> tuple[list[tuple[int, float, float, float, float]], tuple[float, float]]:
    """Return points of some pictures, and the share of variance on each of the two axes.

    The axes are the two leading components of clean and protected features together. Their signs make the largest
    coordinate of each direction positive.
    """
    _, x, y = depth
    middle, values, vectors = _components(x, y)
    two = vectors[:, :2]
    two = two * two.gather(0, two.abs().argmax(0, keepdim=True)).sign()
    some = torch.randperm(len(x), generator=run.rng("analysis", "plane"))[:POINTS].sort().values
    sides = [F.pad((side[some].double() - middle) @ two, (0, 2 - two.shape[1])) for side in (x, y)]
    share = F.pad(values[:2] / values.sum().clamp_min(torch.finfo(values.dtype).tiny), (0, 1)).tolist()
    flat = torch.cat(sides, 1)  # a single feature has one axis: the other one is 0
    points = zip(labels[some].tolist(), flat.tolist(), strict=True)
    return [(label, *row) for label, row in points], (share[0], share[1])
