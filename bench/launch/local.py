"""Workers as processes of this machine; on a machine with several GPUs, one per GPU.

Boundary: starts, restarts and ends processes; ``slots`` divides the machine among them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from timetrial.bench.launch.child import POLL_SECONDS, RESTARTS, start
from timetrial.bench.launch.slots import Slot, slots_here
from timetrial.framework.errors import Interrupted, InterruptedAgain, UserError
from timetrial.framework.files import make_directory
from timetrial.framework.signals import noted


@dataclasses.dataclass(frozen=True)
class LocalSettings:
    """Settings of the launcher ``local``.

    Attributes:
        workers: number of processes; 0 takes one per GPU, without GPUs one per core.
        gpus: GPUs of each worker, which no other worker sees; 0 hides none.
        cpus: cores of each worker, which no other worker uses; 0 divides them among workers with
            GPUs, and lets workers without share all.
        pool: name or file of the pool of identical machines that this one belongs to.
    """

    workers: int = 1
    gpus: int = 0
    cpus: int = 0
    pool: str = ""

    def __post_init__(self) -> None:
        for name in ("workers", "gpus", "cpus"):
            if getattr(self, name) < 0:
                value = getattr(self, name)
                raise ValueError(f"{name}: expected a whole number >= 0, got {value}")


class Local:
    """Starts workers as processes of this machine.

    Args:
        settings: number and share of the workers.

    Raises:
        UserError: this machine has too few GPUs or cores.
    """

    leaves_machine = False

    def __init__(self, settings: LocalSettings) -> None:
        self._slots = slots_here(settings.workers, settings.gpus, settings.cpus)
        self.workers = len(self._slots)

    def launch(self, command: Sequence[str], logs: Path | None) -> None:
        """Runs ``timetrial COMMAND`` in every worker; see ``Launcher``."""
        with contextlib.ExitStack() as stack:
            outputs = [self._output(stack, logs, slot) for slot in self._slots]
            starts = [
                functools.partial(
                    start, command, output, environment=slot.environment, cores=slot.cores
                )
                for slot, output in zip(self._slots, outputs, strict=True)
            ]
            codes = run_all(starts)
        if all(code == 2 for code in codes):
            more = f"; see {logs}" if logs is not None else " with the error above"
            raise UserError(f"every worker ended{more}")

    def _output(
        self, stack: contextlib.ExitStack, logs: Path | None, slot: Slot
    ) -> IO[bytes] | None:
        if logs is None:
            return None
        make_directory(logs)
        return stack.enter_context((logs / f"worker-{slot.index}.log").open("ab"))


def run_all(starts: Sequence[Callable[[], subprocess.Popen[bytes]]]) -> list[int]:
    """Runs processes until all have ended, killed ones again; passes signals on.

    Args:
        starts: functions that start one process each.

    Returns:
        Their exit codes.

    Raises:
        Interrupted: a signal came; the processes have ended.
    """
    with noted() as signalled:
        processes = [begin() for begin in starts]
        restarts = [0] * len(starts)
        passed_on = False
        try:
            while True:
                if signalled() and not passed_on:
                    passed_on = True
                    _send(processes, signalled())
                for index, process in enumerate(processes):
                    if _was_killed(process) and not passed_on and restarts[index] < RESTARTS:
                        restarts[index] += 1
                        processes[index] = starts[index]()
                if all(process.poll() is not None for process in processes):
                    break
                time.sleep(POLL_SECONDS)
        except InterruptedAgain as stop:
            _send(processes, stop.number)
            for process in processes:
                process.wait()
            raise
        number = signalled()
    if number:
        raise Interrupted(number)
    return [process.returncode for process in processes]


def _was_killed(process: subprocess.Popen[bytes]) -> bool:
    code = process.poll()
    return code is not None and code < 0


def _send(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    """Sends a signal to the processes that still run."""
    for process in processes:
        process.send_signal(number)
