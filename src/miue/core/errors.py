"""The user's mistakes. This module imports nothing, so that a message costs no second of imports."""


class UserError(Exception):
    """A mistake that the user can mend. The command line prints its one message and exits with code 2."""
