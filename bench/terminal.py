"""What the program prints: credentials masked, sentences broken between words.

Boundary: texts and streams; ``framework.secrets`` finds the credentials, ``progress`` draws bars.
"""

from __future__ import annotations

import functools
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, TextIO, cast

from timetrial.framework.secrets import masked


class MaskedStream:
    """A text stream that masks credentials; everything else is that of the wrapped stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text without its credentials; returns the length of the given text."""
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each text without its credentials."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mask_output() -> None:
    """Masks all later output of this process: prints, warnings, logs, progress and tracebacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, MaskedStream):
            setattr(sys, name, cast(TextIO, MaskedStream(stream)))


def wrapped(text: str, width: int) -> str:
    """The lines of a text, broken between words within a width; a longer word stays whole."""
    wrap = functools.partial(
        textwrap.fill,
        width=max(20, width),
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(map(wrap, text.split("\n")))


def say(text: str) -> None:
    """Prints sentences: on a terminal broken between words, elsewhere as they are."""
    print(wrapped(text, shutil.get_terminal_size().columns) if sys.stdout.isatty() else text)
