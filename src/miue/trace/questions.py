"""Questions: clean pictures, each with a field of random signs that has nothing to do with any key.

question q = clamp(base_q + round(amplitude * field(R_q))), R_q from a public seed. Two questions in turn show the same
picture with opposite signs, so that what the picture itself says cancels. The list contains no secret: anybody may ask
it and publish it, and the key stays usable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int, Int8, UInt8
from torch import Tensor

from miue.core.errors import UserError
from miue.core.files import Record
from miue.core.types import Budget, ImageSet, Perturbation
from miue.trace.marks import fields
from miue.trace.secret import Parameters, bits, signs

LEAST, LEAST_BASE = 100, 100
BATCH = 64  # pictures


class Asked(Record):
    """Everything that defines a list of questions, beside the pictures. It is stated before anybody is asked."""

    count: int = 1000
    amplitude: int = 16
    """Grey levels."""
    seed: int = 0
    cells: int = 4
    channels: int = 3
    size: int = 32
    """Side of the questions in pixels."""
    base: str
    """Digest of the clean pictures that the questions are made of."""
    pairs: bool = False
    """True if questions 2i and 2i + 1 show the same picture with opposite signs; lists of earlier versions do not."""
    declared: str = ""
    """When the list was made."""

    def field_of(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b channels size size"]:
        """The random field of some questions, largest value 1."""
        return fields(self.signs[index], self.size, self.size)

    @cached_property
    def signs(self) -> Int8[Tensor, "count channels cells cells"]:
        """The signs of all questions."""
        each = 2 if self.pairs else 1
        shape = (-(-self.count // each), self.channels, self.cells, self.cells)
        drawn = signs("questions", str(self.seed).encode(), shape)
        return torch.stack([drawn, -drawn], 1).flatten(0, 1)[: self.count] if self.pairs else drawn


def digest_of(picture: UInt8[Tensor, "c h w"]) -> str:
    """SHA-256 of the shape and the pixels of a picture."""
    content = picture.contiguous().numpy().tobytes()
    return hashlib.sha256(repr(tuple(picture.shape)).encode() + content).hexdigest()


@dataclass(frozen=True)
class Questions:
    """A list of questions and its pictures."""

    asked: Asked
    base: UInt8[Tensor, "n c h w"]

    @classmethod
    def of(
        cls, parameters: Parameters, base: ImageSet, count: int = 1000, amplitude: int = 16, seed: int = 0
    ) -> Questions:
        """Questions for marks of these parameters, on clean pictures that were never published.

        The same pictures in another order give the same questions. Raises UserError if there are fewer than 100
        questions or 100 different pictures, or if the pictures do not fit.
        """
        if count < LEAST:
            raise UserError(f"{count} questions are too few: at least {LEAST}; 300 are a first look, 1,000 are usual")
        if not 1 <= amplitude <= 127:
            raise UserError(f"an amplitude of {amplitude} grey levels: allowed are 1 to 127, and 16 is usual")
        channels, height, width = base.shape
        if height != width:
            raise UserError(f"questions are square pictures, and these are {width} x {height}")
        if channels != parameters.channels:
            raise UserError("questions need pictures in colour, and these are grey")
        rows = _spread(base, seed, max(count // 2, LEAST_BASE))
        if len(rows) < LEAST_BASE:
            raise UserError(
                f"{base.name}: {len(rows)} different pictures for questions; at least {LEAST_BASE} that were never "
                "published are needed"
            )
        pictures = base.images[torch.tensor(rows)]
        digests = "".join(digest_of(picture) for picture in pictures)
        asked = Asked(
            count=count,
            amplitude=amplitude,
            seed=seed,
            cells=parameters.cells,
            channels=channels,
            size=height,
            base=hashlib.sha256(digests.encode()).hexdigest(),
            pairs=True,
        )
        return cls(asked, pictures)

    def __len__(self) -> int:
        return self.asked.count

    def pictures(self, index: Int[Tensor, "b"]) -> UInt8[Tensor, "b c h w"]:
        """Some questions."""
        amplitude = self.asked.amplitude
        field = self.asked.field_of(index) * amplitude / 255
        delta = Perturbation.rounded(field, Budget(amplitude), "questions").delta
        base = self.base[(index // 2 if self.asked.pairs else index) % len(self.base)]
        return (base.to(torch.int16) + delta).clamp_(0, 255).to(torch.uint8)

    def batches(self, size: int = BATCH) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """All questions in order, some at a time."""
        for index in torch.arange(len(self)).split(size):
            yield self.pictures(index)


def _spread(base: ImageSet, seed: int, count: int) -> list[int]:
    """Rows of at most `count` different pictures in an order by hash, classes taking turns."""
    turns: dict[int, list[tuple[str, int]]] = {}
    seen = set[str]()
    for row, (picture, label) in enumerate(zip(base.images, base.labels.tolist(), strict=True)):
        digest = digest_of(picture)
        if digest not in seen:
            seen.add(digest)
            place = hashlib.sha256(f"{seed} {digest}".encode()).hexdigest()
            turns.setdefault(label, []).append((place, row))
    queue = [(turn, place, row) for rows in turns.values() for turn, (place, row) in enumerate(sorted(rows))]
    return [row for _, _, row in sorted(queue)[:count]]


@dataclass(frozen=True)
class Direct:
    """Direct questions: clean pictures with a key on them, crossed: the same pictures for every key, and decoys.

    They show the keys to the suspect, so they are asked once, last, in random order.
    """

    keys: Int8[Tensor, "k c q q"]
    decoys: Int8[Tensor, "k c q q"]
    base: UInt8[Tensor, "n c h w"]
    strength: int
    """Grey levels on the question: one or several times the strength of the mark."""
    order: Int[Tensor, "m"]
    """Which of the 2 k n questions comes when: field * n + picture; decoys come after keys in that number."""

    @classmethod
    def of(
        cls, keys: Int8[Tensor, "k c q q"], base: UInt8[Tensor, "n c h w"], strength: int, generator: torch.Generator
    ) -> Direct:
        """Questions with as many decoys, whose signs come from the generator, in an order drawn from it."""
        decoys = torch.randint(2, keys.shape, generator=generator, dtype=torch.int8) * 2 - 1
        order = torch.randperm(2 * len(keys) * len(base), generator=generator)
        return cls(keys, decoys, base, strength, order)

    def __len__(self) -> int:
        return len(self.order)

    def pictures(self, index: Int[Tensor, "b"]) -> UInt8[Tensor, "b c h w"]:
        """Some questions, in the order in which they are asked."""
        field, picture = self.order[index] // len(self.base), self.order[index] % len(self.base)
        wide = fields(torch.cat([self.keys, self.decoys])[field], *self.base.shape[2:])
        delta = Perturbation.rounded(wide * self.strength / 255, Budget(self.strength), "questions").delta
        return (self.base[picture].to(torch.int16) + delta).clamp_(0, 255).to(torch.uint8)

    def batches(self, size: int = BATCH) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """All questions, some at a time."""
        for index in torch.arange(len(self)).split(size):
            yield self.pictures(index)

    def by_key(self, answers: Float[Tensor, "m l"]) -> Float[Tensor, "k l"]:
        """The mean answer to every key; answers to decoys are dropped."""
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(len(self.order))
        shape = (2 * len(self.keys), len(self.base), answers.shape[1])
        return answers[back].reshape(shape)[: len(self.keys)].mean(1)


def chosen(names: Sequence[str], count: int, seed: int) -> list[int]:
    """Up to `count` places of a list, in an order by hash, so that a large set need not be read whole."""
    return sorted(
        sorted(range(len(names)), key=lambda i: bits(f"base {seed}", names[i].encode(), 64).tobytes())[:count]
    )
