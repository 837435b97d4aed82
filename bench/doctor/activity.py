"""What this machine is and what runs on it now: other processes, quota, governor, memory, disk.

Boundary: reads ``/proc`` and ``/sys`` and sleeps; a fact that the system does not give is None.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from timetrial.framework.machine import load_average, process_cpu_seconds
from timetrial.framework.meter import Meter

_NAMED: Final = 3  # processes that are named
_NOTABLE: Final = 0.05  # of a core: processes below it are not named


@dataclasses.dataclass(frozen=True)
class Process:
    """A process of this machine.

    Attributes:
        pid: its number.
        name: name of its program.
        share: of one core, during the observation; above 1 with several threads.
    """

    pid: int
    name: str
    share: float

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}) {100 * self.share:.0f} %"


@dataclasses.dataclass(frozen=True)
class Activity:
    """What ran on the usable cores during an observation.

    Attributes:
        seconds: length of the observation.
        cores: number of usable cores.
        others: share of them used by other processes, in [0, 1]; None if unknown.
        stolen: share of them taken by the hypervisor, in [0, 1]; None if unknown.
        load: load average of the last minute; None if unknown.
        busiest: the other processes with the most CPU time, most first.
    """

    seconds: float
    cores: int
    others: float | None
    stolen: float | None
    load: float | None
    busiest: Sequence[Process] = ()


def observe(seconds: float = 1.0, sleep: Callable[[float], None] = time.sleep) -> Activity:
    """Observes this machine while this process sleeps."""
    meter = Meter()
    before = dict(_cpu_times())
    started = time.perf_counter()
    meter.start()
    sleep(seconds)
    meter.stop()
    passed = max(time.perf_counter() - started, 1e-9)
    used = [
        Process(pid, _name(pid), (cpu - before[pid]) / passed)
        for pid, cpu in _cpu_times()
        if pid in before and cpu - before[pid] > _NOTABLE * passed
    ]
    busiest = sorted(used, key=lambda process: -process.share)[:_NAMED]
    usage = meter.usage
    shares = (usage.others, usage.stolen)
    return Activity(passed, len(meter.cores), *shares, load_average(), busiest)


def _cpu_times() -> Iterator[tuple[int, float]]:
    """Process number and CPU seconds of every other process."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdecimal() and int(name) != os.getpid():
                seconds = process_cpu_seconds(int(name))
                if seconds is not None:
                    yield int(name), seconds


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "?"


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU seconds per second that the control group of this process allows; None if unlimited.

    The least quota of the group and of the groups above it counts. Source: "Control Group v2",
    cpu.max, https://docs.kernel.org/admin-guide/cgroup-v2.html, and "CFS Bandwidth Control",
    https://docs.kernel.org/scheduler/sched-bwc.html, for version 1.

    Args:
        root: the file system's root; replaced in tests.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = [quota for line in lines for quota in _quotas(root / "sys/fs/cgroup", line)]
    return min(found, default=None)


def _quotas(mount: Path, line: str) -> Iterator[float]:
    """The quotas of one hierarchy, from a line ``ID:CONTROLLERS:PATH``."""
    _, controllers, path = line.split(":", 2)
    names = controllers.split(",")
    if controllers and "cpu" not in names:
        return
    top = mount if not controllers else mount / ("cpu" if names == ["cpu"] else controllers)
    group = Path(path.lstrip("/"))
    for part in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            if controllers:
                quota = float((top / part / "cpu.cfs_quota_us").read_text())
                period = float((top / part / "cpu.cfs_period_us").read_text())
            else:
                allowed, length = (top / part / "cpu.max").read_text().split()
                quota, period = (-1.0 if allowed == "max" else float(allowed)), float(length)
            if quota > 0:
                yield quota / period


def governor(root: Path = Path("/")) -> str | None:
    """The frequency governors of the cores, as in ``performance``; None if unknown.

    Args:
        root: the file system's root; replaced in tests.
    """
    pattern = "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"
    found = set()
    for path in root.glob(pattern):
        with contextlib.suppress(OSError):
            found.add(path.read_text().strip())
    return ", ".join(sorted(found)) or None


def memory() -> tuple[int, int] | None:
    """Available and total memory in bytes; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return fields["MemAvailable"], fields["MemTotal"]
    except (OSError, ValueError, IndexError, KeyError):
        return None


def disk_free(path: Path) -> int | None:
    """Free bytes where a directory lies or would be made; None if unknown."""
    for place in (path.absolute(), *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return None
