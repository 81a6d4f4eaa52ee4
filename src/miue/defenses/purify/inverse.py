"""A linear inverse from leaked pairs: a trainer who has some of the pictures without their protection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from miue import data
from miue.core.errors import UserError
from miue.core.method import Facts, at_least
from miue.core.run import Run
from miue.core.types import ImageSet

PART = 64  # pictures whose patches are in memory at once


@dataclass(frozen=True, kw_only=True)
class Inverse:
    """Ridge regression from the patch around a protected pixel to the clean pixel, applied to all pictures.

    x + W p + b, clamped to [0,1]: p the patch x patch x c values around a pixel (mirrored at the border), W and b of
    least squares for clean - x, with the penalty ridge * t |W|^2, where t is the mean diagonal of the centred p p^T.
    The difference is fitted, not the clean value, so that nothing is done where protected pictures are clean ones.

    clean: pictures whose protected versions are in the set; split: of them. A pair is a clean picture and the published
    one of its class that is nearest (mean square), if it is the nearest clean one to that, too; names and order do not
    matter, and pictures without a partner are left out. `pairs` of them are drawn. A linear stand-in for BridgePure
    (Wang et al., NeurIPS 2025), which learns a diffusion bridge from such pairs.
    """

    clean: str
    split: str | None = None
    pairs: int = 200
    ridge: float = 1e-3
    patch: int = 5
    content: str = field(init=False, default="")
    """Digest of the pictures: other pictures at the same path are another defense."""

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(name="inverse", reference="ours: a linear stand-in for BridgePure, NeurIPS 2025")

    def __post_init__(self) -> None:
        at_least(self, pairs=1, patch=1)
        if self.patch % 2 == 0:
            raise UserError(f"inverse: patch={self.patch} has no middle; give an odd number of pixels")
        if not 0 < self.ridge < float("inf"):
            raise UserError(f"inverse: ridge={self.ridge:g} is not positive")
        object.__setattr__(self, "content", data.scan(self.clean, split=self.split, canvas=0).digest)

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        self._check_side(x.shape[2])
        side = x.shape[2]
        clean = data.read(data.scan(self.clean, split=self.split, canvas=side), side, grey=x.shape[1] == 1)
        rows, partners = self.paired(x, y, clean, run)
        protected, originals = x[rows], clean.images[partners].float().div_(255)
        apart = float((protected - originals).square().mean().sqrt()) * 255
        run.say(f"inverse: {len(rows)} pairs from {self.clean}, {apart:.1f} grey levels apart (root mean square)")
        weight, bias = self.fitted(protected, originals)
        parts = [part + F.conv2d(self._padded(part), weight, bias) for part in x.split(PART)]
        return torch.cat(parts).clamp_(0, 1)

    def check(self, train: ImageSet) -> None:
        """Raise UserError if the clean pictures have other classes than the training set, or are too small."""
        self._check_side(train.shape[1])
        source = data.scan(self.clean, split=self.split, canvas=train.shape[1])
        data.read_like(source, train, self.clean, "the training set")

    def paired(
        self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], clean: ImageSet, run: Run
    ) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
        """Rows of the set and rows of the clean pictures that belong together. Raises UserError if there are none."""
        known = {int(label): (clean.labels == label).nonzero().flatten() for label in clean.labels.unique()}
        pairs: list[tuple[int, int]] = []
        for drawn in torch.randperm(len(clean), generator=run.rng("inverse")).split(max(self.pairs, PART)):
            for label in clean.labels[drawn].unique().tolist():
                rows, mine = (y == label).nonzero().flatten(), drawn[clean.labels[drawn] == label]
                if len(rows):
                    near = rows[_nearest(clean.images[mine].float().div_(255), x[rows])]
                    back = known[label][_nearest(x[near], clean.images[known[label]].float().div_(255))]
                    pairs += zip(near[back == mine].tolist(), mine[back == mine].tolist(), strict=True)
            if len(pairs) >= self.pairs:
                break
        if not pairs:
            raise UserError(
                f"{self.clean}: none of its pictures has a protected version in the training set; give clean versions "
                "of pictures of the set, or leave inverse out"
            )
        protected, originals = torch.tensor(pairs[: self.pairs]).T
        return protected, originals

    def fitted(
        self, x: Float[Tensor, "m c h w"], clean: Float[Tensor, "m c h w"]
    ) -> tuple[Float[Tensor, "c c p p"], Float[Tensor, "c"]]:
        """W, as the weights of a convolution, and b. In float64, by normal equations that are summed over parts."""
        c = x.shape[1]
        size = c * self.patch**2
        products = torch.zeros(size + 1, size + c + 1, dtype=torch.float64)  # of (p, 1) with (p, clean - x, 1)
        for part, target in zip(x.double().split(PART), clean.double().split(PART), strict=True):
            p = F.unfold(self._padded(part), self.patch).transpose(1, 2).flatten(0, 1)
            d = (target - part).flatten(2).transpose(1, 2).flatten(0, 1)
            one = torch.ones(len(p), 1, dtype=torch.float64)
            products += torch.cat([p, one], 1).T @ torch.cat([p, d, one], 1)
        mean = products[-1] / products[-1, -1]
        centred = products[:size, :-1] - products[:size, -1:] * mean[:-1]
        penalty = (self.ridge * centred.diagonal().mean()).clamp_min(1e-9)  # flat pictures have no spread at all
        square = centred[:, :size] + penalty * torch.eye(size, dtype=torch.float64)
        weights = torch.linalg.solve(square, centred[:, size:])
        bias = mean[size:-1] - mean[:size] @ weights
        return weights.T.reshape(c, c, self.patch, self.patch).to(x.dtype), bias.to(x.dtype)

    def _padded(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        return F.pad(x, [self.patch // 2] * 4, mode="reflect")

    def _check_side(self, side: int) -> None:
        if self.patch > side:
            raise UserError(f"inverse: patch={self.patch} is larger than the pictures, which have {side} pixels a side")


def _nearest(a: Float[Tensor, "m c h w"], b: Float[Tensor, "n c h w"]) -> Int[Tensor, "m"]:
    """For every row of a, the row of b that is nearest."""
    return torch.cdist(a.flatten(1), b.flatten(1)).argmin(1)
