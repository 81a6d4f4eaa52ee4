"""Questions: clean pictures, each with a field of random signs that has nothing to do with any key.

question q = base_q + round(amplitude * field(R_q)), where the base is clamped to [amplitude, 255 - amplitude] before.
Two questions in turn show the same picture with opposite signs, so that what the picture itself says cancels, and so
that anybody can take base and field apart again. R_q comes from a public seed and the digest of the base: with other
pictures all fields are others, so that fields cannot be chosen to fit a key; the pictures can, by somebody who knows
both key and suspect. The list contains no secret: anybody may ask it and publish it, and the key stays usable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, Int16, UInt8
from torch import Tensor

from miue.core.errors import UserError
from miue.core.files import Record
from miue.core.types import Budget, ImageSet, Perturbation
from miue.trace.marks import fields
from miue.trace.secret import Opened, Parameters, bits, signs

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
    """Digest of the clean pictures of all pairs, clamped."""
    pictures: str = ""
    """Digest of the pictures of a list that was written; empty for one that was not."""
    declared: str = ""
    """When the list was written."""

    def deltas(self, pairs: Int[Tensor, "b"]) -> Int16[Tensor, "b channels size size"]:
        """The fields of some pairs in grey levels, as they lie on the first picture of each."""
        wide = fields(self.signs[2 * pairs], self.size, self.size) * self.amplitude / 255
        return Perturbation.rounded(wide, Budget(self.amplitude), "questions").delta.to(torch.int16)

    @cached_property
    def signs(self) -> Int8[Tensor, "count channels cells cells"]:
        """The signs of all questions."""
        shape = (self.count // 2, self.channels, self.cells, self.cells)
        drawn = signs("questions", f"{self.seed} {self.base}".encode(), shape)
        return torch.stack([drawn, -drawn], 1).flatten(0, 1)

    def wrong(self, pictures: UInt8[Tensor, "q c h w"]) -> str:
        """The reason why pictures are not those of this list; empty if they are.

        They must be what was written, every pair must show its field, and the base must be what drew the fields.
        """
        if len(pictures) != self.count:
            return f"{len(pictures)} pictures, and {self.count} were written"
        if self.pictures and digest_of_all(pictures) != self.pictures:
            return "these are not the pictures that were written"
        base = list[UInt8[Tensor, "c h w"]]()
        for pairs in torch.arange(self.count // 2).split(BATCH):
            delta = self.deltas(pairs)
            clean, same = pictures[2 * pairs].to(torch.int16) - delta, pictures[2 * pairs + 1].to(torch.int16) + delta
            if not torch.equal(clean, same):
                return "they are not clean pictures with the fields of the seed"
            base += [*clean.clamp(0, 255).to(torch.uint8)]
        if len({digest_of(picture) for picture in base}) < min(LEAST_BASE, self.count // 2):
            return f"there are fewer than {LEAST_BASE} different clean pictures"
        return "" if digest_of_all(base) == self.base else "the fields do not follow from these pictures and the seed"


def digest_of(picture: UInt8[Tensor, "c h w"]) -> str:
    """SHA-256 of the shape and the pixels of a picture."""
    content = picture.contiguous().numpy().tobytes()
    return hashlib.sha256(repr(tuple(picture.shape)).encode() + content).hexdigest()


def digest_of_all(pictures: Iterable[UInt8[Tensor, "c h w"]]) -> str:
    """SHA-256 of the digests of pictures in order."""
    return hashlib.sha256("".join(map(digest_of, pictures)).encode()).hexdigest()


@dataclass(frozen=True)
class Questions:
    """A list of questions and its pictures."""

    asked: Asked
    base: UInt8[Tensor, "n c h w"]
    """The clean pictures, clamped, one a pair; they begin again where there are more pairs."""

    @classmethod
    def of(
        cls, parameters: Parameters, base: ImageSet, count: int = 1000, amplitude: int = 16, seed: int = 0
    ) -> Questions:
        """Questions for marks of these parameters, on clean pictures that were never published.

        The same pictures in another order give the same questions. Raises UserError if there are fewer than 100
        questions or 100 different pictures, or if the pictures do not fit.
        """
        if count < LEAST or count % 2:
            raise UserError(
                f"{count} questions: an even number is needed, because they come in pairs, and at least {LEAST}; 300 "
                "are a first look, 1,000 are usual"
            )
        if not 1 <= amplitude <= 127:
            raise UserError(f"an amplitude of {amplitude} grey levels: allowed are 1 to 127, and 16 is usual")
        channels, height, width = base.shape
        if height != width:
            raise UserError(f"questions are square pictures, and these are {width} x {height}")
        if channels != parameters.channels:
            raise UserError("questions need pictures in colour, and these are grey")
        rows = _spread(base, max(count // 2, LEAST_BASE))
        if len(rows) < LEAST_BASE:
            raise UserError(
                f"{base.name}: {len(rows)} different pictures for questions; at least {LEAST_BASE} that were never "
                "published are needed"
            )
        pictures = base.images[torch.tensor(rows)].clamp(amplitude, 255 - amplitude)
        asked = Asked(
            count=count,
            amplitude=amplitude,
            seed=seed,
            cells=parameters.cells,
            channels=channels,
            size=height,
            base=digest_of_all(pictures[i % len(pictures)] for i in range(count // 2)),
        )
        return cls(asked, pictures)

    def __len__(self) -> int:
        return self.asked.count

    def pairs(self, places: Int[Tensor, "b"]) -> UInt8[Tensor, "2*b c h w"]:
        """The two questions of some pairs in turn."""
        base, delta = self.base[places % len(self.base)].to(torch.int16), self.asked.deltas(places)
        return torch.stack([base + delta, base - delta], 1).flatten(0, 1).to(torch.uint8)

    def batches(self, size: int = BATCH) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """All questions in order, about `size` at a time."""
        for places in torch.arange(len(self) // 2).split(-(-size // 2)):
            yield self.pairs(places)


def _spread(base: ImageSet, count: int) -> list[int]:
    """Rows of at most `count` different pictures in an order by hash, classes taking turns.

    The order does not depend on the seed, so that a base can be stated before somebody else names the seed.
    """
    turns: dict[int, list[tuple[str, int]]] = {}
    seen = set[str]()
    for row, (picture, label) in enumerate(zip(base.images, base.labels.tolist(), strict=True)):
        digest = digest_of(picture)
        if digest not in seen:
            seen.add(digest)
            place = hashlib.sha256(digest.encode()).hexdigest()
            turns.setdefault(label, []).append((place, row))
    queue = [(turn, place, row) for rows in turns.values() for turn, (place, row) in enumerate(sorted(rows))]
    return [row for _, _, row in sorted(queue)[:count]]


@dataclass(frozen=True)
class Direct:
    """Direct questions: clean pictures with a key on them, crossed: the same pictures for every key, and decoys.

    They show the keys to the suspect, so they are asked once, last. Decoys and order follow from the keys.
    """

    keys: Int8[Tensor, "k c q q"]
    decoys: Int8[Tensor, "k c q q"]
    order: Int[Tensor, "m"]
    """Which of the 2 k n questions comes when: field * n + picture; decoys come after keys in that number."""

    @classmethod
    def of(cls, opened: Opened, pictures: int) -> Direct:
        """Questions with this many pictures for each key, and with as many decoys. Raises UserError like `stacked`."""
        keys = opened.stacked()
        decoys = torch.from_numpy(opened.bits("decoys", keys.numel()).astype(np.int8) * 2 - 1).reshape(keys.shape)
        tickets = np.packbits(opened.bits("order", 128 * len(keys) * pictures)).view("<u8")
        return cls(keys, decoys, torch.from_numpy(tickets.argsort(kind="stable")))

    def __len__(self) -> int:
        return len(self.order)

    def batches(
        self, base: UInt8[Tensor, "n c h w"], strength: int, size: int = BATCH
    ) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """All questions on the pictures of a base, with fields of `strength` grey levels, some at a time."""
        for places in self.order.split(size):
            wide = fields(torch.cat([self.keys, self.decoys])[places // len(base)], *base.shape[2:])
            delta = Perturbation.rounded(wide * strength / 255, Budget(strength), "questions").delta
            yield (base[places % len(base)].to(torch.int16) + delta).clamp_(0, 255).to(torch.uint8)

    def by_key(self, answers: Float[Tensor, "m l"]) -> Float[Tensor, "k l"]:
        """The mean answer to every key; answers to decoys are dropped."""
        sorted_answers = torch.empty_like(answers)
        sorted_answers[self.order] = answers
        return sorted_answers.reshape(2 * len(self.keys), -1, answers.shape[1])[: len(self.keys)].mean(1)


def chosen(names: Sequence[str], count: int) -> list[int]:
    """Up to `count` places of a list, in an order by hash, so that a large set need not be read whole."""
    return sorted(sorted(range(len(names)), key=lambda i: bits("base", names[i].encode(), 64).tobytes())[:count])
