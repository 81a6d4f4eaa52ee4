"""The exit codes of the command line, beside 0."""

from __future__ import annotations

from miue.core.errors import UserError

FAILED_INPUTS = 1  # some of the work was not done: pictures left out, cells that failed, a disk that is full
USAGE = UserError.code  # a mistake of the user, told in one message
FAILED_CHECKS = 3  # the work was done, and what it looked at does not hold
INTERRUPTED = 130  # stopped by a signal
