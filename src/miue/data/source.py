"""Data sets: stores of bytes, the entries of a scan, and the scanned source."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from os import cpu_count
from threading import Condition
from time import monotonic
from typing import Literal, TypeVar

import numpy as np

from miue.data.canvas import Held
from miue.data.picture import Rules

Kind = Literal["folder", "parquet", "npz", "named"]
TABLES = (".parquet", ".npz")
"""Ends of the names of files that hold many pictures."""
FILES: tuple[Kind, ...] = ("folder", "named")  # kinds whose output is a folder of files, not a table
Status = Literal["ok", "skipped", "failed"]
Payload = bytes | np.ndarray
"""One picture as it is stored: an encoded file, or a uint8 array [h w] or [h w c]."""

AT_ONCE = 12_000_000
"""Pixels that are processed at the same time. Measuring one takes about 35 bytes."""

_QUICK, _LATE = 0.002, 0.25  # seconds: an item that needs no thread, and the excess over all items before threads start

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Item:
    """One item in a store."""

    path: str
    label: int
    skip: str = ""
    """Reason why it is not opened; empty if it is."""
    expected: bool = True
    """True if it claims to be a picture."""


@dataclass(frozen=True, kw_only=True)
class Store(ABC):
    """The bytes of a data set. Item i is entry i of every scan."""

    kind: Kind
    location: str
    name: str
    classes: tuple[str, ...]
    items: tuple[Item, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @abstractmethod
    def get(self, index: int) -> Payload:
        """Read the payload of item `index`. Safe in several threads. Raises OSError if it cannot be read."""

    def seen(self, index: int) -> tuple[Payload, int]:
        """The payload of item `index` (only its start, if it is no picture) and its full size in bytes."""
        payload = self.get(index)
        return payload, payload.nbytes if isinstance(payload, np.ndarray) else len(payload)


@dataclass(frozen=True)
class Entry:
    """One input and its status."""

    path: str
    """Relative, with "/" ("row 17" in a table)."""
    out: str
    """Path in the output, unique."""
    label: int
    """-1 if it has none."""
    status: Status
    reason: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    sha256: str = ""
    """SHA-256 of the stored bytes; empty if they were not read, or not to the end."""
    pixels: str = ""
    """SHA-256 over mode, size and decoded pixels."""

    @property
    def size(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def grey(self) -> bool:
        return self.mode in ("L", "LA")


@dataclass(frozen=True)
class Source:
    """A scanned data set. Row i of images, labels and delta belongs to `usable[i]`."""

    store: Store = field(repr=False)
    entries: tuple[Entry, ...] = field(repr=False)
    notes: tuple[str, ...]
    rules: Rules = field(repr=False)
    held: Held | None = field(default=None, repr=False, compare=False)
    """Pictures that the scan keeps for `read`."""

    @property
    def kind(self) -> Kind:
        return self.store.kind

    @property
    def location(self) -> str:
        return self.store.location

    @property
    def name(self) -> str:
        return self.store.name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.store.classes

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """The position in `entries` of every usable entry."""
        return tuple(i for i, entry in enumerate(self.entries) if entry.status == "ok")

    @cached_property
    def usable(self) -> tuple[Entry, ...]:
        """The entries that are protected, in row order."""
        return tuple(self.entries[i] for i in self.rows)

    @cached_property
    def channels(self) -> int:
        """1 if all usable entries are grey, else 3."""
        return 1 if all(entry.grey for entry in self.usable) else 3

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 hex digits) over source bytes, labels and class names of the usable entries."""
        return pictures_digest(self.classes, ((entry.sha256, entry.label) for entry in self.usable))

    def examples(self, limit: int = 5) -> dict[str, list[str]]:
        """The first paths of every line of `summary` that is not "ok"."""
        paths: dict[str, list[str]] = {}
        for entry in self.entries:
            if entry.status != "ok" and len(named := paths.setdefault(f"{entry.status}: {entry.reason}", [])) < limit:
                named.append(entry.path)
        return paths

    def summary(self) -> dict[str, int]:
        """Numbers of entries that are "ok", "skipped: <reason>" and "failed: <reason>", the most frequent first."""
        texts = (f"{e.status}: {e.reason}" if e.reason else e.status for e in self.entries)
        return dict(Counter(texts).most_common())


def pictures_digest(classes: tuple[str, ...], pictures: Iterable[tuple[str, int]]) -> str:
    """SHA-256 (16 hex digits) over class names and pairs of the SHA-256 and the label of a picture."""
    h = hashlib.sha256(repr(classes).encode())
    for sha, label in pictures:
        h.update(f"{sha} {label}\n".encode())
    return h.hexdigest()[:16]


def some(names: Sequence[str], limit: int = 5) -> str:
    """A text with the first names of a list and the number of the others."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def sha256(payload: Payload) -> str:
    """SHA-256 of stored bytes, or of the raw values of an array."""
    return hashlib.sha256(payload if isinstance(payload, bytes) else payload.tobytes()).hexdigest()


class _Room:
    """A budget of pixels that threads share. Each waits until its picture fits."""

    def __init__(self, pixels: int) -> None:
        self.whole = self.free = pixels
        self.changed = Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Reserve pixels inside the block. A picture larger than the whole budget waits until it is alone."""
        pixels = min(pixels, self.whole)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


def ahead(function: Callable[[A], B], items: Iterable[A], pixels: Callable[[A], int] = lambda item: 0) -> Iterator[B]:
    """Map in order, with a few threads that work a few items ahead, so that memory does not grow with the items.

    pixels: size of the picture of an item; large pictures are not processed at the same time. Items that take only a
    millisecond or two are processed without threads, which would only wait for each other.
    """
    remaining, late = iter(items), 0.0
    for item in remaining:
        start = monotonic()
        result = function(item)
        late = max(late + monotonic() - start - _QUICK, 0.0)
        yield result
        if late > _LATE:
            yield from _on_threads(function, remaining, pixels)


def _on_threads(function: Callable[[A], B], items: Iterable[A], pixels: Callable[[A], int]) -> Iterator[B]:
    workers, room = min(4, cpu_count() or 1), _Room(AT_ONCE)

    def one(item: A) -> B:
        with room.taken(pixels(item)):
            return function(item)

    with ThreadPoolExecutor(workers) as pool:
        futures: deque[Future[B]] = deque()
        for item in items:
            futures.append(pool.submit(one, item))
            if len(futures) > 2 * workers:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
