"""Deltas of many pictures in few bytes, in memory or in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal
from weakref import finalize

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from miue.core.files import named, write_atomically
from miue.core.run import Run

Form = Literal["fixed", "scaled"]
PART = 1024  # rows that are taken at once where all are gone through
_STEPS, _SCALE = 256, 4  # steps of a grey level; bytes of the scale of a row
_LEAST = 1e-30  # scale of a row of zeros


def parts(count: int) -> Iterator[Int[Tensor, "b"]]:
    """Yield the numbers of all rows in order, some at a time."""
    yield from torch.arange(count).split(PART)


def row_bytes(shape: Sequence[int], form: Form) -> int:
    """Bytes of a row of this shape."""
    return 2 * math.prod(shape) if form == "fixed" else _SCALE + math.prod(shape)


class Rows:
    """Rows of floats, at first zeros: `rows[index]` is float32 on the run's device, `rows[index] = values` keeps them.

    form: "fixed" keeps whole steps of 1/256 grey level (1/128 if `levels`, the budget, is above 127) in 16 bits, so
    that edges of budgets and pictures are exact; "scaled" keeps 8 bits a value and a scale a row, for directions.
    folder: where a file without a name holds the rows in place of the memory; the numbers are the same. It is read and
    written row by row in the order of the file: a mapped file would count as memory, and its pages be written out
    while they change.
    """

    def __init__(self, run: Run, shape: Sequence[int], form: Form, levels: int = 0, folder: Path | None = None) -> None:
        self.run, self.shape, self.form, self.folder = run, torch.Size(shape), form, folder
        self.unit = 255 * (_STEPS if levels < _STEPS // 2 else _STEPS // 2)
        self.width = row_bytes(shape[1:], form)
        if folder is None:
            self.memory = torch.zeros(len(self), self.width, dtype=torch.uint8, device=run.device)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - it lives as long as the rows
            self.file.truncate(self.bytes)
            finalize(self, self.file.close)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def bytes(self) -> int:
        """Size of all rows."""
        return len(self) * self.width

    def __getitem__(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b *row"]:
        packed = self.packed(index)
        if self.form == "fixed":
            values = packed.view(torch.int16).float().div_(self.unit)
        else:
            scale = packed[:, :_SCALE].contiguous().view(torch.float32)
            values = packed[:, _SCALE:].view(torch.int8).float().mul_(scale / 127)
        return values.reshape(-1, *self.shape[1:])

    def __setitem__(self, index: Int[Tensor, "b"], values: Float[Tensor, "b *row"]) -> None:
        flat = self.run.put(values.detach()).float().flatten(1)
        if self.form == "fixed":
            packed = (flat * self.unit).round_().clamp_(-32767, 32767).to(torch.int16).view(torch.uint8)
        else:
            scale = flat.abs().amax(1, keepdim=True).clamp_min(_LEAST)
            whole = (flat * (127 / scale)).round_().clamp_(-127, 127).to(torch.int8)
            packed = torch.cat([scale.view(torch.uint8), whole.view(torch.uint8)], 1)
        self.pack(index, packed)

    def clear(self) -> None:
        """Set all rows to zero."""
        if self.folder is None:
            self.memory.zero_()
        else:
            self.file.truncate(0)
            self.file.truncate(self.bytes)

    def save(self, path: Path, mark: str) -> None:
        """Write all rows to a file, which appears complete or not at all, and behind them what they belong to."""

        def write(part: Path) -> None:
            with part.open("wb") as file:
                for index in parts(len(self)):
                    file.write(self.packed(index).cpu().numpy().data)
                file.write(mark.encode())

        write_atomically(path, write)

    def saved(self, path: Path, mark: str) -> bool:
        """Return True if `save` wrote a file of such rows with this mark."""
        if not path.is_file() or path.stat().st_size != self.bytes + len(mark.encode()):
            return False
        with path.open("rb") as file:
            file.seek(self.bytes)
            return file.read() == mark.encode()

    def load(self, path: Path) -> None:
        """Take the rows that `save` wrote."""
        with path.open("rb") as file:
            for index in parts(len(self)):
                packed = np.fromfile(file, np.uint8, len(index) * self.width).reshape(-1, self.width)
                self.pack(index, self.run.put(torch.from_numpy(packed)))

    def packed(self, index: Int[Tensor, "b"]) -> UInt8[Tensor, "b w"]:
        """The bytes of some rows, as they are kept."""
        if self.folder is None:
            return self.memory[self.run.put(index)]
        index = index.cpu()
        order = index.argsort()
        packed = np.empty((len(index), self.width), np.uint8)
        for first, start, end in _runs(index[order].tolist()):
            self.file.seek(first * self.width)
            rest = packed[start:end].data.cast("B")
            while rest:  # one call reads 2 GiB at most
                count = self.file.readinto(rest)  # type: ignore[attr-defined]
                assert count, f"{self.folder}: a file of deltas ended"
                rest = rest[count:]
        return self.run.put(torch.from_numpy(packed)[order.argsort()])

    def pack(self, index: Int[Tensor, "b"], packed: UInt8[Tensor, "b w"]) -> None:
        """Keep the bytes of some rows."""
        if self.folder is None:
            self.memory[self.run.put(index)] = packed
            return
        index = index.cpu()
        order = index.argsort()
        rows = packed.cpu()[order].numpy()
        with named(self.folder):
            for first, start, end in _runs(index[order].tolist()):
                self.file.seek(first * self.width)
                rest = rows[start:end].data.cast("B")
                while rest:
                    rest = rest[self.file.write(rest) :]


def _runs(rows: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (first row, start, end) of every part of a sorted list that has no gap."""
    start = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at] != rows[at - 1] + 1:
            yield rows[start], start, at
            start = at
