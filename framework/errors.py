"""Errors that users can correct, as opposed to bugs.

Boundary: imports ``secrets`` only, so that the command line catches them before it loads anything.
"""

import signal

from timetrial.framework.secrets import masked

LONGEST_REASON = 1000
"""Characters of an error in one line; of a longer one its beginning and its end."""


def reason_of(error: BaseException) -> str:
    """Class and text of an exception in one line, without credentials.

    The text of an error inside a compiled program is a traceback: the cause is its end.
    """
    text = masked(" ".join(f"{type(error).__name__}: {error}".split()))
    if len(text) <= LONGEST_REASON:
        return text
    return f"{text[:200]} ... {text[-(LONGEST_REASON - 205) :]}"


class Interrupted(KeyboardInterrupt):
    """A signal ended the program.

    Attributes:
        number: of the signal; the exit code is 128 + number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class InterruptedAgain(Interrupted):
    """A second signal ended the program at once, without waiting for other hosts."""


class UserError(Exception):
    """An error that the user can correct; the command line prints one line and exits with 2.

    The message states the expected value, the value given and the allowed values; credentials in
    it are masked.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(masked(message))


class ConfigError(UserError):
    """A configuration is invalid."""


class StorageError(UserError):
    """A disk cannot take what must be written: full for too long, read-only, not permitted.

    The cause is the machine, not the optimizer: such a run is not counted, and the same command
    continues it.
    """
