"""The errors that a user can mend, as opposed to bugs.

Boundary: imports nothing, so that the command line can catch them before anything is loaded.
"""


class UserError(Exception):
    """Something the user can mend; the command line prints it as one line and exits with 2.

    The message says what was expected, what came and what is allowed.
    """


class ConfigError(UserError):
    """A configuration that cannot be run."""
