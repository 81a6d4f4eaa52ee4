"""The data types of miue. This module imports only errors from the package, so that all modules may import it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int8, Int16, Integer, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from miue.core.errors import Damaged, UserError, refuse_folder

Norm = Literal["linf", "l2", "l0", "none"]


def stretch(delta: Float[Tensor, "b c g g2"], height: int, width: int) -> Float[Tensor, "b c h w"]:
    """Stretch a noise grid to a picture: bilinear, differentiable, the identity where the sizes agree.

    Every value is a convex combination of grid values, so no L-infinity budget is ever exceeded by stretching.
    This is the only such function: attacks differentiate through it, and the writer calls it for the files.
    """
    if delta.shape[-2:] == (height, width):
        return delta
    return F.interpolate(delta, size=(height, width), mode="bilinear", align_corners=False)


def _levels(delta: Float[Tensor, "*shape"], limit: int, dtype: torch.dtype) -> Integer[Tensor, "*shape"]:
    """Round grey levels to integers and clamp them to [-limit, limit]. The only rounding in the package."""
    return delta.round().clamp_(-limit, limit).to(dtype)


def eight_bits(x: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """Convert float pictures to 8 bits: clamp to [0,1], then take the nearest of 256 values. For defenses only."""
    return _levels(x.clamp(0, 1) * 255, 255, torch.uint8)


def _shortened(levels: Float[Tensor, "k c g g2"], budget: Budget) -> Float[Tensor, "k c g g2"]:
    """Grey levels whose rounded form keeps an L2 budget. Rounding alone may exceed it by about 1 %.

    A row that exceeds it is multiplied by the largest factor below 1 (to 1/4096) that fits. The size of a rounded row
    never falls while the factor grows, so bisection finds the factor.
    """
    levels = levels.clone()
    for part in levels.split(1024):
        long = budget.measure(_levels(part, 255, torch.int16)) > budget.eps
        rows, low, high = part[long], torch.zeros(1), torch.ones(1)
        for _ in range(12):
            factor = (low + high) / 2
            fits = budget.measure(_levels(rows * factor.reshape(-1, 1, 1, 1), 255, torch.int16)) <= budget.eps
            low, high = torch.where(fits, factor, low), torch.where(fits, high, factor)
        part[long] = rows * low.reshape(-1, 1, 1, 1)
    return levels


@dataclass(frozen=True)
class ImageSet:
    """Labelled pictures as one uint8 tensor. Row i is source i; rows are never dropped or reordered."""

    images: UInt8[Tensor, "n c h w"]
    """c = 1 or 3; in memory or memory-mapped."""
    labels: Int[Tensor, "n"]
    """Indices into `classes`."""
    classes: tuple[str, ...]
    name: str
    sources: tuple[str, ...] = field(default=(), repr=False)
    """One identifier for each row: a relative path, or "row 17"."""

    def __post_init__(self) -> None:
        n = len(self.images)
        if n != len(self.labels):
            raise ValueError(f"{n} images but {len(self.labels)} labels")
        if self.sources and len(self.sources) != n:
            raise ValueError(f"{n} images but {len(self.sources)} sources")
        if self.images.shape[1] not in (1, 3):
            raise ValueError(f"{self.images.shape[1]} channels; an image has 1 or 3")
        if n and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(
                f"labels must lie in 0..{len(self.classes) - 1}, the indices of {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        c, h, w = self.shape
        return f"ImageSet({self.name!r}, {len(self)} images {c}x{h}x{w}, {len(self.classes)} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @property
    def chance(self) -> float:
        """The accuracy of always guessing the largest class."""
        return float(self.labels.bincount().max()) / len(self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 hex digits) over pixels, labels, shape and class names."""
        h = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        h.update(self.labels.to(torch.int64).numpy().tobytes())
        for part in self.images.split(4096):
            h.update(part.contiguous().numpy().tobytes())
        return h.hexdigest()[:16]

    def with_images(self, images: UInt8[Tensor, "n c h w"], name: str | None = None) -> ImageSet:
        """A copy with the same rows and other pixels."""
        return replace(self, images=images, name=name or self.name)

    def select(self, rows: Int[Tensor, "m"] | Bool[Tensor, "n"], name: str | None = None) -> ImageSet:
        """A subset, in the order of `rows`; class indices stay as they are."""
        index = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        sources = tuple(self.sources[i] for i in index.tolist()) if self.sources else ()
        return ImageSet(self.images[index], self.labels[index], self.classes, name or self.name, sources)

    def first_per_class(self, count: int, skip: int = 0) -> ImageSet:
        """The first `count` rows of every class after `skip` of them, in data-set order."""
        by_class, sizes = self.labels.argsort(stable=True), self.labels.bincount()
        rank = torch.empty_like(self.labels)
        rank[by_class] = torch.arange(len(self)) - (sizes.cumsum(0) - sizes)[self.labels[by_class]]
        which = f"rows {skip + 1} to {skip + count}" if skip else f"first {count}"
        return self.select((rank >= skip) & (rank < skip + count), f"{self.name}[{which} per class]")


@dataclass(frozen=True)
class Budget:
    """The largest allowed change of one picture.

    eps is in grey levels (1/255) for "linf", in [0,1] units for "l2", in pixels for "l0"; "none" has no bound.
    """

    eps: float | int = 8
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2", "l0", "none"):
            raise UserError(f"norm {self.norm!r} is unknown; allowed: linf, l2, l0, none")
        if self.norm in ("linf", "l0") and not (self.eps >= 1 and self.eps % 1 == 0):
            what = "grey levels, as files are 8 bit" if self.norm == "linf" else "pixels"
            raise UserError(
                f"a budget of {self.eps:g} ({self.norm}) is not a whole number of at least 1: it counts {what}"
            )
        if self.norm == "linf" and self.eps > 255:
            raise UserError(f"a budget of {self.eps:g} grey levels is not below 256")
        if self.norm == "l2" and not 0 < self.eps < math.inf:
            raise UserError(f"a budget of {self.eps:g} (l2) is not positive and finite")

    def __str__(self) -> str:
        """The text that `parse` reads: "linf:8", "l2:1.3", "l0:1" or "none"."""
        return "none" if self.norm == "none" else f"{self.norm}:{self.eps:.10g}"

    @property
    def unit(self) -> float:
        """eps on the [0,1] scale of a float picture, for "linf"."""
        return self.eps / 255

    @property
    def levels(self) -> int:
        """The largest change of one value that is ever possible, in grey levels."""
        return int(self.eps) if self.norm == "linf" else 255

    @property
    def kind(self) -> torch.dtype:
        """The integers that hold every perturbation of this budget."""
        return torch.int8 if self.norm == "linf" and self.levels < 128 else torch.int16

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "8", "8/255" (both grey levels), "l2:1.3", "l0:1" or "none"."""
        norm, _, number = text.rpartition(":")
        if norm not in ("", "linf", "l2", "l0"):
            raise UserError(f"budget {text!r} is not understood; write 8, 8/255, l2:1.3, l0:1 or none")
        try:
            if text == "none":
                return cls(0, "none")
            levels = number.removesuffix("/255") if norm in ("", "linf") else number
            return cls(float(levels), norm or "linf")  # type: ignore[arg-type]
        except (ValueError, OverflowError):
            raise UserError(f"budget {text!r} is not understood; write 8, 8/255, l2:1.3, l0:1 or none") from None

    def measure(self, delta: Int[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
        """Size of each perturbation in the unit of `eps` (L-infinity in grey levels for "none")."""
        if self.norm == "l2":  # in parts, because float64 takes eight times the memory of delta
            return torch.cat([part.double().flatten(1).norm(dim=1) for part in delta.split(1024)]).float() / 255
        if self.norm == "l0":
            return (delta != 0).any(1).flatten(1).sum(1).float()
        return torch.cat([part.to(torch.int16).abs().flatten(1).amax(1) for part in delta.split(1024)]).float()

    def allows(self, delta: Int[Tensor, "n c h w"]) -> bool:
        """True if every perturbation is within the budget. No tolerance, except 1e-6 for "l2" (float32 norm)."""
        if self.norm == "none" or not len(delta):
            return True
        limit = self.eps * (1 + 1e-6) if self.norm == "l2" else self.eps
        return bool((self.measure(delta) <= limit).all())


@dataclass(frozen=True)
class Pieces:
    """A float delta in [0,1] units that is never whole in memory."""

    shape: tuple[int, ...]
    """Rows, channels, height and width of all of it."""
    parts: Callable[[], Iterable[Float[Tensor, "b c g g2"]]]
    """Yields some rows at a time, in order."""


@dataclass(frozen=True)
class Perturbation:
    """A bounded integer perturbation, to be added to the pictures before any augmentation."""

    delta: Int8[Tensor, "k c g g2"] | Int16[Tensor, "k c g g2"]
    """Grey levels, one row for each picture, or one row for each class if `labels` is set. Int16 if they exceed int8.
    g: side of the noise grid, which is stretched to the size of each picture."""
    budget: Budget
    made_by: str
    """The method that made it."""
    labels: Int[Tensor, "n"] | None = None
    """The class of each picture, if delta has one row for each class."""
    data: str = ""
    """Digest of the pictures that it was made for; empty if that is not known."""

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) and int(self.labels.max()) >= len(self.delta):
            raise ValueError(f"{self.made_by} has {len(self.delta)} rows, fewer than there are classes")
        if not self.budget.allows(self.delta):
            worst = float(self.budget.measure(self.delta).max())
            raise ValueError(f"{self.made_by} left its budget: {worst:g} > {self.budget.eps:g} ({self.budget.norm})")

    def __len__(self) -> int:
        return len(self.delta) if self.labels is None else len(self.labels)

    @classmethod
    def rounded(
        cls,
        delta: Float[Tensor, "k c g g2"] | Pieces,
        budget: Budget,
        made_by: str,
        labels: Int[Tensor, "n"] | None = None,
        data: str = "",
        empty: Callable[..., Tensor] = torch.empty,
    ) -> Perturbation:
        """Round a float delta in [0,1] units to grey levels and check it against the budget.

        Values are rounded to nearest, because truncation would shift each by half a grey level on average. A coarse
        grid is rounded again in `stretched`, at the size of the picture. If rounding takes a row out of an "l2"
        budget, the row is shortened until its integers fit. empty: makes the tensor for the rows of Pieces, as
        `run.empty` does. Raises ValueError if delta is not finite or leaves the budget.
        """
        if isinstance(delta, Pieces):
            rows = empty(delta.shape, dtype=budget.kind)
            at = 0
            for part in delta.parts():
                rows[at : at + len(part)] = cls.rounded(part, budget, made_by).delta
                at += len(part)
            return cls(rows, budget, made_by, labels, data)
        if not delta.isfinite().all():
            raise ValueError(f"{made_by} made values that are not finite")
        excess = float(delta.abs().max()) * 255 - budget.levels if delta.numel() else 0.0
        if excess > 1e-2:  # float errors are far smaller: this method did not project
            raise ValueError(f"{made_by} left its budget by {excess:g} grey levels")
        levels = delta.detach().float().cpu() * 255
        if budget.norm == "l2" and len(levels):
            longest = float(torch.linalg.vector_norm(levels.flatten(1), dim=1).max()) / 255
            if longest > budget.eps * 1.001:
                raise ValueError(f"{made_by} left its budget: {longest:g} > {budget.eps:g} (l2)")
            levels = _shortened(levels, budget)
        largest = budget.levels if budget.norm == "linf" or not delta.numel() else float(levels.abs().max())
        dtype = torch.int8 if largest < 127.5 else torch.int16
        return cls(_levels(levels, budget.levels, dtype), budget, made_by, labels, data)

    def rows(self, index: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
        """The rows of delta that belong to these pictures."""
        return index if self.labels is None else self.labels[index]

    def select(self, rows: Int[Tensor, "m"]) -> Perturbation:
        """The perturbation of some of the pictures, in the order of `rows`."""
        if self.labels is None:
            return replace(self, delta=self.delta[rows])
        return replace(self, labels=self.labels[rows])

    def at(self, index: int, height: int, width: int) -> Int[Tensor, "c h w"]:
        """Grey levels to add to picture `index` at its own size."""
        return self.stretched(torch.tensor([index]), height, width)[0]

    def stretched(self, index: Int[Tensor, "b"], height: int, width: int) -> Int[Tensor, "b c h w"]:
        """Grey levels to add to these pictures at one size."""
        grid = self.delta[self.rows(index)]
        if grid.shape[-2:] == (height, width):
            return grid
        return _levels(stretch(grid.float(), height, width), self.budget.levels, grid.dtype)

    def apply(self, data: ImageSet, empty: Callable[..., Tensor] = torch.empty) -> ImageSet:
        """The protected set: integer addition, clamped to [0, 255]. empty: as in `rounded`."""
        if len(self) != len(data):
            raise ValueError(f"a perturbation of {len(self)} rows for {len(data)} images")
        out = empty(data.images.shape, dtype=torch.uint8)
        for index in torch.arange(len(data)).split(4096):
            delta = self.stretched(index, *data.shape[1:])
            out[index] = (data.images[index].to(torch.int16) + delta).clamp_(0, 255).to(torch.uint8)
        return data.with_images(out, f"{data.name} + {self.made_by}")

    def save(self, path: Path) -> None:
        """Write as safetensors. Keep the file private: anybody who has it can subtract the protection."""
        tensors = {"delta": self.delta.contiguous()} | (
            {} if self.labels is None else {"labels": self.labels.contiguous()}
        )
        meta = {"made_by": self.made_by, "eps": repr(self.budget.eps), "norm": self.budget.norm, "data": self.data}
        save_file(tensors, str(path), meta)

    @classmethod
    def load(cls, path: Path) -> Perturbation:
        """Read a file that `save` wrote and check the budget again. Raises UserError if it is missing or damaged."""
        if not path.exists():
            raise UserError(f"{path}: there is no perturbation file here")
        refuse_folder(path)
        try:
            with safe_open(str(path), "pt") as file:  # pyright: ignore[reportGeneralTypeIssues]
                meta = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            budget = Budget(float(meta["eps"]), meta["norm"])  # type: ignore[arg-type]
            return cls(tensors["delta"], budget, meta["made_by"], tensors.get("labels"), meta.get("data", ""))
        except (SafetensorError, ValueError, KeyError) as error:
            raise Damaged(
                f"{path}: is no perturbation, or it is damaged ({error}); move it away, and the command that made it "
                "makes it anew"
            ) from None
