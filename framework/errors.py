"""The error that a user can mend, as opposed to a bug.

Boundary: imports nothing, so that the command line can catch it before anything is loaded.
"""


class UserError(Exception):
    """Something the user can mend; the command line prints it as one line and exits with 2.

    The message says what was expected, what came and what is allowed.
    """
