"""The program as a user types it, called in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from timetrial.bench import cli


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Exit code of one command line, and what it printed."""

    code: int
    out: str
    err: str


def command_line(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Returns a function that runs one command line, word by word."""

    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        captured = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return call
