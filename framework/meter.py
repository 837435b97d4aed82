"""Meter of the machine's state while charged time runs.

Boundary: reads the machine at the ends of charged intervals, outside charged time; never raises.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from timetrial.framework.gpus import OTHER_PROCESSES, Gpu
from timetrial.framework.machine import (
    CoreTimes,
    Usage,
    load_average,
    own_cpu_seconds,
    read_core_times,
    usable_cores,
    usage_of,
)

LEAST_SECONDS: Final = 0.5
"""Shortest charged time whose shares are reported: the kernel counts CPU time in steps of 10 ms."""


class Meter:
    """Sums the use of the cores over all charged intervals of a run.

    Shares of the cores are known on Linux only. A GPU is read right after an interval, because
    its utilisation is a mean over the last part of a second.

    Args:
        cores: the cores to observe; by default those that this process may use.
        gpus: the GPUs to observe.
        read_cores: returns the CPU seconds of cores since boot.
        own_cpu: returns the CPU seconds of this process.
        now: returns seconds on a monotonic clock.

    Attributes:
        cores: the cores observed.
        load_at_start: load average when the meter was made; None if unknown.
    """

    def __init__(
        self,
        cores: Collection[int] | None = None,
        gpus: Sequence[Gpu] = (),
        *,
        read_cores: Callable[[Collection[int]], CoreTimes | None] = read_core_times,
        own_cpu: Callable[[], float] = own_cpu_seconds,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.cores = usable_cores() if cores is None else frozenset(cores)
        self.load_at_start = load_average()
        self._gpus = gpus
        self._read_cores = read_cores
        self._own_cpu = own_cpu
        self._now = now
        self._total = Usage()
        self._reported = Usage()
        self._since: Usage | None = None
        self._gpu_now: dict[str, float] = {}
        self._gpu_all: defaultdict[str, list[float]] = defaultdict(list)

    def start(self) -> None:
        """Starts an interval; called just before charged time begins."""
        self._since = self._reading()

    def stop(self) -> None:
        """Ends the interval; called just after charged time ended."""
        now = self._reading()
        if self._since is not None and now is not None:
            self._total += now - self._since
        self._since = None
        self._read_gpus()

    def totals(self) -> dict[str, float]:
        """The sums so far, for a checkpoint."""
        return dataclasses.asdict(self._total)

    def resume(self, totals: Mapping[str, float]) -> None:
        """Adds the sums of an earlier part of the run, as returned by ``totals``."""
        earlier = usage_of(totals)
        self._total += earlier
        self._reported += earlier

    @property
    def usage(self) -> Usage:
        """Use of the cores over all intervals so far; shares are None if unknown."""
        return self._checked(self._total)

    @property
    def gpu_others(self) -> float | None:
        """Largest number of other processes on a GPU; None if unknown."""
        seen = [n for key, all_ in self._gpu_all.items() if OTHER_PROCESSES in key for n in all_]
        return max(seen, default=None)

    def latest(self) -> dict[str, float]:
        """Metrics since the last call that returned some; none before half a charged second."""
        since = self._checked(self._total - self._reported)
        if since.seconds < LEAST_SECONDS:
            return {}
        self._reported = self._total
        return _known({**_shares(since), "load_average": load_average(), **self._gpu_now})

    def summary(self) -> dict[str, float]:
        """Metrics over all intervals: shares, load at start and end, means and maxima of GPUs."""
        shares = {f"{key}_mean": value for key, value in _shares(self.usage).items()}
        load = {"load_average_start": self.load_at_start, "load_average_end": load_average()}
        gpus: dict[str, float] = {}
        for key, values in self._gpu_all.items():
            gpus[f"{key}_mean"] = math.fsum(values) / len(values)
            gpus[f"{key}_max"] = max(values)
        return _known({**shares, **load, **gpus})

    def _reading(self) -> Usage | None:
        with contextlib.suppress(Exception):  # no measurement ends a run
            times = self._read_cores(self.cores) or CoreTimes(0.0, 0.0, 0.0)
            return Usage(self._now(), self._own_cpu(), *times)
        return None

    def _read_gpus(self) -> None:
        self._gpu_now = {}
        for gpu in self._gpus:
            with contextlib.suppress(Exception):  # as above
                for name, value in gpu.numbers().items():
                    key = f"gpu_{gpu.ordinal}_{name}"
                    self._gpu_now[key] = value
                    self._gpu_all[key].append(value)

    def _checked(self, usage: Usage) -> Usage:
        """The usage; without CPU seconds of the cores if those do not add up to the wall time.

        Some sandboxes have a ``/proc/stat`` that stands still.
        """
        expected = usage.seconds * len(self.cores)
        if abs(usage.core_seconds - expected) <= 0.5 * expected:
            return usage
        return Usage(usage.seconds, usage.own_cpu)


def _shares(usage: Usage) -> dict[str, float | None]:
    """Shares of the cores in per cent, the first one under MLflow's name."""
    shares = {
        "cpu_utilization_percentage": usage.utilization,
        "other_processes_percentage": usage.others,
        "steal_percentage": usage.stolen,
    }
    return {key: None if share is None else 100 * share for key, share in shares.items()}


def _known(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if value is not None}
