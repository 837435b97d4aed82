"""Errors that users can correct, as opposed to bugs.

Boundary: imports nothing, so that the command line catches them before it loads anything.
"""


class UserError(Exception):
    """An error that the user can correct; the command line prints one line and exits with 2.

    The message states the expected value, the value given and the allowed values.
    """


class ConfigError(UserError):
    """A configuration is invalid."""
