"""The process of one worker: started, started again when it is killed, and ended by a signal.

Boundary: one process; launchers decide where it runs. Imports nothing heavy, as some launchers run
it inside a process of their engine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final

from timetrial.bench.launch import begin

RESTARTS: Final = 3
"""Restarts of a worker whose process was killed."""

POLL_SECONDS: Final = 0.05


def start(
    command: Sequence[str],
    output: IO[bytes] | None,
    *,
    environment: Mapping[str, str] | None = None,
    cores: Sequence[int] = (),
    directory: str | None = None,
    ignored: Sequence[int] = (),
    ends_with_parent: bool = False,
) -> subprocess.Popen[bytes]:
    """Starts ``timetrial COMMAND``.

    It is in a process group of its own: what a terminal sends reaches it through this process.

    Args:
        command: the command and its words.
        output: file for what it prints; None prints it here.
        environment: further variables of the process.
        cores: numbers of the cores it may use; empty allows all of this process.
        directory: working directory; None takes that of this process.
        ignored: signals that it ignores.
        ends_with_parent: kill it when this thread ends, or its process; on Linux only.
    """
    words = [sys.executable, "-m", "timetrial", *command]
    if cores or ignored or ends_with_parent:
        parent = os.getpid() if ends_with_parent else 0
        wanted = {"ignored": list(ignored), "cores": list(cores), "parent": parent}
        words = [sys.executable, "-I", "-S", begin.__file__, json.dumps(wanted), *words]
    return subprocess.Popen(
        words,
        process_group=0,
        env={**os.environ, **(environment or {})},
        cwd=directory,
        stdout=output,
        stderr=output,
    )


class Child:
    """A worker's process, started again up to ``RESTARTS`` times when it is killed.

    Args:
        begin: starts the process.
    """

    def __init__(self, begin: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._begin = begin
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = 0
        self._lock = threading.RLock()  # handlers of signals call ``send``, too

    def run(self) -> int:
        """Runs the process to its end.

        Returns:
            Its exit code, negative when it was killed; 128 + N if signal N came before its start.
        """
        code = 0
        for _ in range(RESTARTS + 1):
            with self._lock:
                if self._ending:
                    return code or 128 + self._ending
                process = self._process = self._begin()
            while (polled := process.poll()) is None:
                time.sleep(POLL_SECONDS)
            code = polled
            if code >= 0:
                break
        return code

    def send(self, number: int) -> None:
        """Sends a signal that ends the process, once; it is not started again."""
        with self._lock:
            if self._ending:  # a second signal would end it at once
                return
            self._ending = number
            if self._process is not None:
                self._process.send_signal(number)

    def wait(self) -> None:
        """Waits for the end of the process, also inside a handler of a signal."""
        if self._process is None:
            return
        try:  # leaves the process to ``run``, which a handler may have interrupted
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            return
