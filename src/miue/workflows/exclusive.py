"""One run at a time: whoever changes an output keeps others away from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from miue import data
from miue.core.errors import UserError
from miue.core.files import Lock
from miue.core.launch import first
from miue.core.run import Run


@contextmanager
def exclusive(out: Path, run: Run, mend: str = "wait for it") -> Iterator[None]:
    """Keep other runs away from an output, inside the block; one lock serves all processes of this run.

    Raises UserError, with `mend`, if another run is there.
    """
    private = data.private_of(out)
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = Lock(private / "run.lock", timeout=0)

    def take() -> None:
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"{out}: another run is working on it; {mend}") from None

    first(run, take)
    try:
        yield
    finally:
        lock.release()
