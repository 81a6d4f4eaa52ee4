"""Errors for mistakes of the user. This module imports nothing heavy, so that a message appears at once."""

from __future__ import annotations

import re
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can correct. The command line prints its message and exits with `code`."""

    code = 2


class ToldElsewhere(UserError):
    """A UserError that another process of the same run prints."""


class Damaged(UserError):
    """A file written by miue that cannot be read back. No method and no setting is at fault."""


def refuse_folder(path: Path) -> None:
    """Raise Damaged if `path`, the place of a file written by miue, is a folder."""
    if path.is_dir():
        raise Damaged(f"{path}: is a folder, and a file of miue belongs there; move it away")


def of_process(traceback: str) -> Exception | None:
    """The UserError or OSError that ended another process, rebuilt from its traceback; None for any other error."""
    kind, _, text = traceback.strip().rpartition("\n")[2].partition(": ")
    if kind in (f"{each.__module__}.{each.__name__}" for each in (UserError, Damaged)):
        return UserError(text)
    code = re.match(r"\[Errno (\d+)\] ", text)
    return OSError(int(code[1]), text[code.end() :]) if code else None
