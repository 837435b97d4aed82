"""Runs the parts one after the other, each in its process, within a budget of time.

Boundary: processes, time and the file of results; ``child`` measures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.parts import Part

ROOT: Final = Path(__file__).parents[2]

GRACE_SECONDS: Final = 3.0
"""Seconds of the budget kept for the end: the table, and ending a process."""

LEAST_SECONDS: Final = 15.0
"""A part does not begin with less than this left of the budget."""

MEMORY_FRACTION: Final = "0.92"
"""Share of the GPU's memory for XLA, 0.75 by default; the largest updates need more."""

DRY_VARIABLE: Final = "TIMETRIAL_GPU_DRY"
"""Set for ``tests/gpu`` to run at reduced size on any device."""

OK, FAILED, SKIPPED, UNFINISHED = "ok", "failed", "skipped", "out of time"


@dataclasses.dataclass
class Outcome:
    """What became of a part.

    Attributes:
        part: the part.
        status: ok, failed, skipped (it never began) or out of time (the budget ended it).
        seconds: wall time from its start to its end, imports left out.
        reason: why it is not ok; "" if it is.
        result: what it measured, in part if it did not end well.
    """

    part: Part
    status: str
    seconds: float = 0.0
    reason: str = ""
    result: Mapping[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**dataclasses.asdict(self), "label": self.part.label}


def environment(part: Part, *, dry: bool, cache: Path) -> dict[str, str]:
    """The environment of a part's process."""
    found = dict(os.environ)
    paths = [str(ROOT), str(ROOT / "tests"), found.get("PYTHONPATH", "")]
    found["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    flags = [found.get("XLA_FLAGS", ""), *part.flags]
    found.pop(DRY_VARIABLE, None)
    if dry:
        found["JAX_PLATFORMS"] = "cpu"
        found[DRY_VARIABLE] = "1"
        flags.append("--xla_backend_optimization_level=0")  # compiles in a third of the time
    elif "cpu" not in found.get("JAX_PLATFORMS", "cpu"):
        found["JAX_PLATFORMS"] += ",cpu"  # the CPU's numbers are compared
    found.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", MEMORY_FRACTION)
    found["XLA_FLAGS"] = " ".join(flag for flag in flags if flag)
    if part.kind == "tests":
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # tests have child processes
        found["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if part.cached:
        found["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    else:
        found.pop("JAX_COMPILATION_CACHE_DIR", None)
    return found


class Child:
    """A process that gets ready for one part and waits for ``finish``."""

    def __init__(self, part: Part, folder: Path, number: int, *, dry: bool) -> None:
        self.part = part
        self._path = folder / f"{number}.json"
        self._log_path = folder / f"{number}.log"
        self._log = self._log_path.open("wb")
        order = json.dumps({"kind": part.kind, "arguments": dict(part.arguments)})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.child", order, str(self._path)],
            cwd=ROOT,
            env=environment(part, dry=dry, cache=folder / "compilations"),
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def finish(self, limit_seconds: float) -> Outcome:
        """Lets the process go and waits for its end, but no longer than the limit."""
        began = time.perf_counter()
        limit = min(limit_seconds, self.part.limit_seconds)
        timed_out = False
        try:
            self._process.communicate(b"go\n", timeout=limit)
        except subprocess.TimeoutExpired:
            timed_out = True
        self.end()
        seconds = time.perf_counter() - began
        result = json.loads(self._path.read_text()) if self._path.exists() else None
        if timed_out and limit < self.part.limit_seconds:
            reason = f"the budget ended it after {seconds:.0f} s"
            return Outcome(self.part, UNFINISHED, seconds, reason, result)
        late = f"took longer than {limit:.0f} s; last message: {self._last_line()}"
        reason = late if timed_out else self._failure(result)
        return Outcome(self.part, FAILED if reason else OK, seconds, reason, result)

    def _failure(self, result: Mapping[str, Any] | None) -> str:
        if self._process.returncode or result is None:
            return f"exit status {self._process.returncode}: {self._last_line()}"
        if result.get("failed"):
            return f"{len(result['failed'])} tests failed"
        return f"pytest: exit status {result['status']}" if result.get("status") else ""

    def _last_line(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "none"

    def end(self) -> None:
        """Ends the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._log.close()


def run(
    parts: Iterable[Part],
    folder: Path,
    *,
    dry: bool,
    until: float,
    done: Callable[[Outcome], object],
) -> None:
    """Runs the parts in order; the next one gets ready while one measures.

    Args:
        parts: what to do.
        folder: folder for results, messages and compilations, which exists.
        dry: reduced size, on the CPU.
        until: ``time.monotonic()`` at which the budget ends.
        done: called with every outcome.
    """
    waiting = list(parts)
    following: Child | None = None
    try:
        for number, part in enumerate(waiting):
            left = until - time.monotonic() - GRACE_SECONDS
            if left < LEAST_SECONDS:
                done(Outcome(part, SKIPPED, reason=f"{max(0, left):.0f} s left of the budget"))
                continue
            child = following or Child(part, folder, number, dry=dry)
            following = None
            # A dry run measures no time: two processes would only share the cores.
            if not dry and number + 1 < len(waiting):
                following = Child(waiting[number + 1], folder, number + 1, dry=dry)
            try:
                done(child.finish(left))
            finally:
                child.end()
    finally:
        if following is not None:
            following.end()
