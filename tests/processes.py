"""One of several processes, without the others."""

from __future__ import annotations

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
