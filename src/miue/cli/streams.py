"""Standard output and standard error: they never end a command, whatever their encoding and whoever reads them."""

from __future__ import annotations

import codecs
import os
import sys
from io import TextIOWrapper
from json import dumps


def prepare() -> None:
    """Make output streams write characters that their encoding lacks as escapes."""
    codecs.register_error("miue", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="miue")


def close() -> None:
    """Discard all further output: the reader of standard output has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Return characters that an encoding lacks as JSON escapes: readable in a text, and valid in JSON."""
    assert isinstance(error, UnicodeEncodeError)
    return dumps(error.object[error.start : error.end])[1:-1], error.end
