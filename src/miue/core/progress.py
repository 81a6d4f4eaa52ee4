"""Messages and progress for people while something runs."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable


def readable(name: str) -> str:
    """A name in the form that is shown and written: every byte that is not UTF-8 becomes %xNN."""
    return re.sub("[\ud800-\udfff]", lambda match: f"%x{ord(match[0]) - 0xDC00:02x}", name)


def one_line(text: str) -> str:
    """A text as a terminal shows it: names of files may hold line breaks and other control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", readable(text))


def write_line(text: str) -> None:
    """Write one line to standard output."""
    print(one_line(text))


def write_note(text: str) -> None:
    """Write a note to standard error, which may have several lines."""
    print("\n".join(map(one_line, text.split("\n"))), file=sys.stderr, flush=True)


class Lines:
    """Progress for log files: one line every 20 seconds and one at the end, with the time left."""

    def __init__(self, text: str, total: int, done: int) -> None:
        self.text, self.total, self.first, self.done = text, total, done, done
        self.start = self.printed_at = time.monotonic()
        self.note = ""

    def tick(self, note: str = "", by: int = 1) -> None:
        """Count `by` more as done. note: what is shown behind it from now on."""
        self.done, self.note, now = self.done + by, note or self.note, time.monotonic()
        if now - self.printed_at >= 20 or (by and self.done == self.total):
            self.printed_at, spent = now, now - self.start
            left = spent / max(self.done - self.first, 1) * (self.total - self.done)
            tail = f"{left:.0f} s left" if self.done < self.total else f"took {spent:.0f} s"
            tail = tail if self.done > self.first else f"{spent:.0f} s so far"
            print(f"{self.text}: {self.done} of {self.total}, {tail} {self.note}".rstrip(), file=sys.stderr, flush=True)


class Share:
    """Progress that somebody else shows: the share that is done is handed on."""

    def __init__(self, report: Callable[[float], None], total: int, done: int) -> None:
        self.report, self.total, self.done = report, max(total, 1), done

    def tick(self, note: str = "", by: int = 1) -> None:
        """Count `by` more as done."""
        self.done += by
        self.report(self.done / self.total)
