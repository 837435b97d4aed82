"""Starts commands in processes of their own; those from a warm server need no seconds of imports.

Boundary: tests only. A process from the server is a fork made after the imports and before any
JAX backend: its pid, signals, files and exit are its own.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from soak import hook

ROOT = Path(__file__).parents[2]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["soak.preload"])


class Process:
    """One command under way; its output is in files.

    Args:
        words: the command line after ``timetrial``.
        site: directory of ``plugin.install``.
        output: file of its output; the errors are in ``.err`` beside it.
        variables: further environment variables.
        cold: start it with all imports, as a user does.
    """

    def __init__(
        self,
        words: Sequence[str],
        site: Path,
        output: Path,
        variables: Mapping[str, str] | None = None,
        *,
        cold: bool = False,
    ) -> None:
        self.words, self.output = list(words), output
        given = {
            "PYTHONPATH": os.pathsep.join(map(str, (site, ROOT, ROOT / "tests"))),
            "PYTHONWARNINGS": "",
            **(variables or {}),
        }
        self._cold: subprocess.Popen[bytes] | None = None
        if cold:
            self._cold = _started(self.words, output, given)
            self.pid = self._cold.pid
        else:
            self._warm = _CONTEXT.Process(target=_child, args=(self.words, output, given))
            self._warm.start()
            assert self._warm.pid is not None
            self.pid = self._warm.pid

    def send(self, number: int) -> None:
        """Sends a signal to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            if self.running:
                os.kill(self.pid, number)

    def kill_all(self) -> None:
        """kill -9 of the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            if self.running:
                os.killpg(self.pid, signal.SIGKILL)

    @property
    def running(self) -> bool:
        """True until it has ended."""
        if self._cold is not None:
            return self._cold.poll() is None
        return self._warm.exitcode is None

    def wait(self, seconds: float = 300.0) -> int:
        """Exit code, as of ``subprocess``; kills it after ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                self.kill_all()
                raise AssertionError(f"{self.words}: no end after {seconds:.0f} s: {self.err}")
            time.sleep(0.01)
        code = self._cold.returncode if self._cold is not None else self._warm.exitcode
        assert code is not None
        return code

    @property
    def out(self) -> str:
        """Its output so far."""
        return self.output.read_text()

    @property
    def err(self) -> str:
        """Its errors so far."""
        return _errors(self.output).read_text()


def _errors(output: Path) -> Path:
    return output.with_suffix(".err")


def _started(
    words: Sequence[str], output: Path, given: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with output.open("wb") as out, _errors(output).open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "timetrial", *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**_environment(), **given},
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}


def _child(words: Sequence[str], output: Path, given: Mapping[str, str]) -> None:
    """The life of a process from the server."""
    os.setsid()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.update(given)
    sys.path[:0] = given["PYTHONPATH"].split(os.pathsep)
    for stream, (name, path) in enumerate((("stdout", output), ("stderr", _errors(output))), 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, stream)
        os.close(file)
        setattr(sys, name, io.TextIOWrapper(os.fdopen(stream, "wb", 0), write_through=True))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hook.install()
    sys.argv = ["timetrial", *words]
    from timetrial.bench import cli

    cli.main(words)
