"""What people are told while something runs."""

from __future__ import annotations

import re
import sys
import time


def readable(name: str) -> str:
    """A name as it is shown, recorded and written: every byte that is not UTF-8 as %xNN, which stays as it is."""
    return re.sub("[\ud800-\udfff]", lambda match: f"%x{ord(match[0]) - 0xDC00:02x}", name)


def write_note(text: str) -> None:
    """Write a line for people on standard error."""
    print(readable(text), file=sys.stderr, flush=True)


class Lines:
    """Progress for log files: a line every 20 seconds and at the end, with the time left."""

    def __init__(self, text: str, total: int, done: int) -> None:
        self.text, self.total, self.first, self.done = text, total, done, done
        self.start = self.said = time.monotonic()
        self.note = ""

    def tick(self, note: str = "") -> None:
        self.done, self.note, now = self.done + 1, note or self.note, time.monotonic()
        if now - self.said >= 20 or self.done == self.total:
            self.said, spent = now, now - self.start
            left = spent / (self.done - self.first) * (self.total - self.done)
            tail = f"{left:.0f} s left" if self.done < self.total else f"took {spent:.0f} s"
            print(f"{self.text}: {self.done} of {self.total}, {tail} {self.note}".rstrip(), file=sys.stderr, flush=True)
