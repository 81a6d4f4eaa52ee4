"""The user's mistakes. This module imports nothing of weight, so that a message costs no second of imports."""

from __future__ import annotations

import re
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can mend. The command line prints its one message and exits with code 2."""


class Damaged(UserError):
    """A file of miue's own that cannot be read back: the fault of no method and of no setting."""


def refuse_folder(path: Path) -> None:
    """Raise Damaged where a folder lies in the place of a file of miue's own."""
    if path.is_dir():
        raise Damaged(f"{path}: is a folder, and a file of miue belongs there; move it away")


def of_process(traceback: str) -> Exception | None:
    """The user's mistake, or the disk's error, in which another process ended; None for anything else."""
    kind, _, text = traceback.strip().rpartition("\n")[2].partition(": ")
    if kind in (f"{each.__module__}.{each.__name__}" for each in (UserError, Damaged)):
        return UserError(text)
    code = re.match(r"\[Errno (\d+)\] ", text)
    return OSError(int(code[1]), text[code.end() :]) if code else None
