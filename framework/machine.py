"""Load of this machine: CPU time of its cores, of this process and of others.

Boundary: reads ``/proc`` and this process; a number that the system does not give is None.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

STAT: Final = Path("/proc/stat")
MEMINFO: Final = Path("/proc/meminfo")
CGROUP: Final = Path("/sys/fs/cgroup")
TICK_SECONDS: Final = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
"""Unit of the CPU times in ``/proc``, in seconds."""

HOST_NAMESPACE: Final = "4026531836"
"""Namespace of process ids outside containers: PROC_PID_INIT_INO, include/linux/proc_ns.h.

Source: https://github.com/torvalds/linux/blob/master/include/linux/proc_ns.h.
"""

_RUN_OF_CORES: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def boot() -> str:
    """Identity of the running kernel, which the containers of a machine share; "" if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """The namespace of process ids, a number: each container has its own; "" if unknown.

    Source: pid_namespaces(7), https://man7.org/linux/man-pages/man7/pid_namespaces.7.html.
    """
    try:
        return "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    except OSError:
        return ""


def usable_cores() -> frozenset[int]:
    """Numbers of the cores that this process may use (its affinity)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return frozenset(affinity(0) if affinity else range(os.cpu_count() or 1))


def cores_text(cores: Collection[int]) -> str:
    """Numbers of cores as text: ``0-3,8``."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1][1:] = [core]
        else:
            runs.append([core])
    return ",".join("-".join(map(str, run)) for run in runs)


def cores_in(text: str) -> frozenset[int]:
    """The cores of ``cores_text``; none if the text has another form."""
    found: set[int] = set()
    for part in text.split(","):
        ends = _RUN_OF_CORES.fullmatch(part)
        if ends is None:
            return frozenset()
        first = int(ends[1])
        found.update(range(first, int(ends[2] or first) + 1))
    return frozenset(found)


def load_average() -> float | None:
    """Processes that run or wait to run, as a mean over the last minute; None if unknown."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def available_bytes() -> int | None:
    """Bytes of RAM that this process can still get: of the machine, and of its container.

    Sources: MemAvailable of proc_meminfo(5); memory.max and memory.current of control groups v2,
    https://docs.kernel.org/admin-guide/cgroup-v2.html. None if the system does not say.
    """
    found = []
    try:
        for line in MEMINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                found.append(int(value.split()[0]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    try:
        limit, used = ((CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        found.append(max(0, int(limit) - int(used)))
    except (OSError, ValueError):  # no control group, or no limit: "max"
        pass
    return min(found, default=None)


class CoreTimes(NamedTuple):
    """CPU seconds of some cores together.

    Attributes:
        busy: seconds of processes and of the kernel.
        steal: seconds that the hypervisor gave to other virtual machines.
        idle: the rest.
    """

    busy: float
    steal: float
    idle: float


def core_times(text: str, cores: Collection[int]) -> CoreTimes | None:
    """CPU seconds since boot from the text of ``/proc/stat``; None if the cores are not listed.

    The columns are those of proc_stat(5), https://man7.org/linux/man-pages/man5/proc_stat.5.html:
    user, nice, system, idle, iowait, irq, softirq, steal. Guest time is part of user.
    """
    busy = steal = idle = 0.0
    found = 0
    for line in text.splitlines():
        name, *columns = line.split()
        if not name.startswith("cpu"):
            break  # the cores come first
        if name != "cpu" and int(name[3:]) in cores and len(columns) >= 8:
            user, nice, system, rest, iowait, irq, softirq, stolen = map(int, columns[:8])
            busy += user + nice + system + irq + softirq
            steal += stolen
            idle += rest + iowait
            found += 1
    if not found or found < len(cores):
        return None
    return CoreTimes(busy * TICK_SECONDS, steal * TICK_SECONDS, idle * TICK_SECONDS)


def read_core_times(cores: Collection[int]) -> CoreTimes | None:
    """CPU seconds of cores since boot; None where ``/proc/stat`` is missing or different."""
    try:
        return core_times(STAT.read_text(), cores)
    except (OSError, ValueError):
        return None


def own_cpu_seconds() -> float:
    """CPU seconds of this process, its threads, its ended children and its worker processes.

    Workers are children started by ``multiprocessing``; other live children do not count.
    """
    times = os.times()
    seconds = time.process_time() + times.children_user + times.children_system
    workers = sys.modules.get("multiprocessing.process")
    if workers is not None:
        seconds += sum(process_cpu_seconds(w.pid) or 0.0 for w in workers.active_children())
    return seconds


def process_cpu_seconds(pid: int | None) -> float | None:
    """CPU seconds of a live process; None if unknown.

    Source: columns utime and stime of proc_pid_stat(5),
    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_SECONDS
    except (OSError, ValueError, IndexError):
        return None


@dataclasses.dataclass(frozen=True)
class Usage:
    """Use of the cores during some intervals.

    Attributes:
        seconds: wall time.
        own_cpu: CPU seconds of this process.
        busy, steal, idle: CPU seconds of the cores, as in ``CoreTimes``; zeros if unknown.
    """

    seconds: float = 0.0
    own_cpu: float = 0.0
    busy: float = 0.0
    steal: float = 0.0
    idle: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in _FIELDS}
        return Usage(**sums)

    def __sub__(self, other: Usage) -> Usage:
        rests = {f.name: getattr(self, f.name) - getattr(other, f.name) for f in _FIELDS}
        return Usage(**rests)

    @property
    def core_seconds(self) -> float:
        """CPU seconds that the cores had, used or not; 0 if unknown."""
        return self.busy + self.steal + self.idle

    @property
    def utilization(self) -> float | None:
        """Busy share of the cores in [0, 1]; None if unknown."""
        return self.busy / self.core_seconds if self.core_seconds else None

    @property
    def others(self) -> float | None:
        """Share of the cores used by other processes, in [0, 1]; None if unknown."""
        if not self.core_seconds:
            return None
        return max(0.0, self.busy - self.own_cpu) / self.core_seconds

    @property
    def stolen(self) -> float | None:
        """Share of the cores taken by the hypervisor, in [0, 1]; None if unknown."""
        return self.steal / self.core_seconds if self.core_seconds else None


_FIELDS: Final = dataclasses.fields(Usage)


def usage_of(totals: Mapping[str, float]) -> Usage:
    """The Usage with these fields; missing ones are 0."""
    return Usage(**{f.name: float(totals.get(f.name, 0.0)) for f in _FIELDS})
