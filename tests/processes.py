"""One of several processes, without the others; and a run that is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from miue.core.run import Run


class Rank(Run):
    """A process of several, alone."""

    def __init__(self, place: int, size: int) -> None:
        super().__init__(1, "cpu")
        self._place, self._size = place, size

    @property
    def rank(self) -> int:
        return self._place

    @property
    def world(self) -> int:
        return self._size


class Stopping(Run):
    """A run that is interrupted in the middle of the files."""

    @contextmanager
    def progress(self, text: str, total: int, done: int = 0) -> Iterator[Any]:
        left = iter([True] * (total // 2))

        def tick() -> None:
            if not next(left, False):
                raise KeyboardInterrupt

        yield tick
