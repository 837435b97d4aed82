"""A worker in a job of Slurm, which is requeued before its time is over.

Boundary: the object that submitit runs on the node; ``slurm`` submits it.

submitit's own process, the parent, receives all signals of Slurm. It ignores SIGTERM, and at
SIGUSR2 it calls ``checkpoint``. Slurm sends both to every process of a job: the worker ignores
them, and SIGINT. Its parent ends it with SIGHUP, which Slurm never sends; its run is then saved.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from timetrial.bench.launch.child import Child, start
from timetrial.framework.files import make_directory


@dataclasses.dataclass
class Work:
    """One worker; called by submitit in its job.

    Attributes:
        command: the command and its words.
        index: number of the worker, from 0.
        logs: directory for what it prints; "" prints it in the log of the job.
        directory: its working directory.
    """

    command: Sequence[str]
    index: int
    logs: str
    directory: str
    _child: Child | None = dataclasses.field(default=None, init=False, repr=False)

    def __call__(self) -> int:
        """Runs the worker to its end; returns its exit code, negative when it was killed."""
        if not self.logs:
            return self._run(None)
        path = Path(self.logs)
        make_directory(path)
        with (path / f"worker-{self.index}.log").open("ab") as output:
            return self._run(output)

    def checkpoint(self) -> Any:
        """Ends the worker, its run saved; returns what submitit runs when the job starts again."""
        from submitit.helpers import DelayedSubmission

        if self._child is not None:
            self._child.send(signal.SIGHUP)
            self._child.wait()
        return DelayedSubmission(dataclasses.replace(self))

    def _run(self, output: IO[bytes] | None) -> int:
        def begin() -> subprocess.Popen[bytes]:
            return start(
                self.command,
                output,
                environment=_threads(),
                directory=self.directory,
                ignored=(signal.SIGUSR2, signal.SIGTERM, signal.SIGINT),
            )

        def end(number: int, frame: FrameType | None) -> None:
            child.send(signal.SIGHUP)

        self._child = child = Child(begin)
        if threading.current_thread() is not threading.main_thread():
            return child.run()
        before = signal.signal(signal.SIGINT, end)
        try:
            return child.run()
        finally:
            signal.signal(signal.SIGINT, before)
            self._child = None


def _threads() -> dict[str, str]:
    """The number of threads of a job with cores of its own."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    return {"OMP_NUM_THREADS": cores} if cores else {}
