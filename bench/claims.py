"""One run, one owner: a lock per configuration, held by the process that makes the run.

Boundary: the directory of a run; ``experiment.run`` claims it, suites ask.

The lock is the operating system's (``flock``): it ends with its process, also after kill -9 or a
restart of the machine, and a reused process id does not hold it. Its content says who has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from timetrial.framework.errors import UserError
from timetrial.framework.files import PRIVATE, make_private_directory
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import process_tags

LOCK = "lock"

GRACE_SECONDS = 0.3
"""Time to wait for a lock: a command that tidies up holds it for a moment."""

POLL_SECONDS = 0.05


class TakenError(UserError):
    """Another process makes this run."""


class AlreadyFinishedError(UserError):
    """The run is recorded as finished, and its state was not kept."""


class SupersededError(UserError):
    """Another worker has taken the run over: this attempt does not count."""


class Owner(Protocol):
    """A claim of a run that other machines respect."""

    def stopped(self) -> int:
        """The signal to end the run with, because it was lost or cancelled; 0 without."""

    def confirm(self) -> bool:
        """True when the claim still holds; asked before the run is recorded as finished."""


@contextlib.contextmanager
def claimed(directory: Path, name: str) -> Iterator[None]:
    """Owns the directory of a run inside; it is made if missing, and removed if it stays empty.

    Args:
        directory: directory of the run.
        name: name of the run, for messages.

    Raises:
        TakenError: another process has it.
    """
    make_private_directory(directory)
    path = directory / LOCK
    with _locked(path, name):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                directory.rmdir()


def is_taken(directory: Path) -> bool:
    """True while another process has a run; changes nothing."""
    try:
        file = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    patience = time.monotonic() + GRACE_SECONDS
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if time.monotonic() < patience:
                    time.sleep(POLL_SECONDS)
                    continue
                raise TakenError(f"{name}: {_owner(file)} makes this run already") from error
            # Its last owner may have removed the file in the meantime.
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                owner = {schema.HOST: socket.gethostname(), **process_tags(), "since": time.time()}
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps(owner).encode(), 0)
                yield
                return
        finally:
            os.close(file)


def _owner(file: int) -> str:
    """Who holds a lock, in words."""
    try:
        owner = json.loads(os.pread(file, 4096, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner["since"]))
        return f"process {owner[schema.PID]} on host {owner[schema.HOST]}, since {since},"
    except (ValueError, KeyError, TypeError, OverflowError):
        return "another process"
