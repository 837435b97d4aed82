"""Judgements of a machine: is it fit for time budgets, and what helps where it is not.

Pure: from measurements to findings.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Final

from timetrial.bench.doctor.activity import Activity
from timetrial.framework.calibration import Calibration
from timetrial.framework.credibility import MOST_STEAL, allowed_others
from timetrial.tracking.scores.machines import MACHINE_TAGS

MOST_DEVIATION: Final = 0.1
"""Largest relative difference between the seconds per step now and those of the calibration."""

MOST_SPREAD: Final = 0.2
"""Largest spread of the seconds per step, (largest - smallest) / median of five windows."""

LEAST_MEMORY: Final = 2 * 2**30
LEAST_DISK: Final = 2 * 2**30
"""Bytes below which a warning is due; with a tenth of the disk space a suite does not end."""

GIB: Final = 2**30


class Level(enum.StrEnum):
    """Weight of a finding; ``fail`` makes a machine unfit."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: its weight.
        topic: what it is about, in one word.
        text: what was found, with the numbers.
        remedy: what helps; "" if nothing is wrong.
        numbers: the measurements behind it, by name; None if unknown.
    """

    level: Level
    topic: str
    text: str
    remedy: str = ""
    numbers: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StepTiming:
    """Seconds per step of a short run.

    Attributes:
        workload, optimizer: what was run.
        steps: number of steps timed, after the warm-up.
        step_seconds: median over five windows of the mean seconds per step.
        spread: (largest - smallest) / median of the windows.
        doubt: why these seconds are not credible, as a sentence; "" if they are.
    """

    workload: str
    optimizer: str
    steps: int
    step_seconds: float
    spread: float
    doubt: str = ""


def activity_finding(activity: Activity, platform: str) -> Finding:
    """Judges the other processes of a machine.

    Args:
        activity: what ran while this process slept.
        platform: platform of the JAX devices: ``cpu``, ``gpu``, ...
    """
    allowed = allowed_others(platform, activity.seconds * activity.cores)
    cores = f"the {activity.cores} usable cores" if activity.cores > 1 else "the usable core"
    numbers = {"others": activity.others, "stolen": activity.stolen, "load": activity.load}
    load = "" if activity.load is None else f"; load average {activity.load:.1f}"
    level, remedy = Level.OK, ""
    if activity.others is None:
        level, text = Level.WARN, "the use of the cores is unknown on this system"
        remedy = "look for other programs yourself; it is measured on Linux only"
    else:
        text = f"other processes use {percent(activity.others)} of {cores}"
        if activity.busiest:
            text += f": {', '.join(map(str, activity.busiest))}"
        if activity.others > allowed:
            level = Level.FAIL
            remedy = f"end them, or wait; at most {percent(allowed)} is fit for time budgets"
        elif activity.stolen is not None and activity.stolen > MOST_STEAL:
            level, remedy = Level.FAIL, "use a machine that is not shared"
            text = f"the hypervisor takes {percent(activity.stolen)} of {cores}"
    return Finding(level, "processes", text + load, remedy, numbers)


def core_findings(cores: int, quota: float | None, governor: str | None) -> list[Finding]:
    """Judges the quota and the frequency governor of the usable cores."""
    found = []
    if quota is not None and quota < cores:
        text = f"a control group allows {quota:g} CPU seconds per second, of {cores} usable cores"
        remedy = f"runs pause when it is used up; use fewer cores: taskset -c 0-{_last(quota)} ..."
        found.append(Finding(Level.WARN, "quota", text, remedy))
    if governor is not None and governor not in ("performance", "schedutil"):
        remedy = "for steady clocks: sudo cpupower frequency-set -g performance"
        found.append(Finding(Level.WARN, "governor", f"frequency governor {governor}", remedy))
    return found


def space_findings(memory: tuple[int, int] | None, disk: int | None, root: str) -> list[Finding]:
    """Judges the free memory and disk space.

    Args:
        memory: available and total memory in bytes.
        disk: free bytes at ``root``.
        root: directory of the runs.
    """
    found = []
    if memory is not None:
        low = memory[0] < LEAST_MEMORY
        text = f"{memory[0] / GIB:.1f} of {memory[1] / GIB:.1f} GiB available"
        remedy = "end other programs: a machine that swaps has no fair seconds" if low else ""
        found.append(Finding(Level.WARN if low else Level.OK, "memory", text, remedy))
    if disk is not None:
        level = Level.OK if disk >= LEAST_DISK else Level.WARN
        level = level if disk >= LEAST_DISK / 10 else Level.FAIL
        remedy = "" if level is Level.OK else "free some, or name another tracking.root"
        found.append(Finding(level, "disk", f"{disk / GIB:.1f} GiB free at {root}", remedy))
    return found


def gpu_findings(platform: str, others: Mapping[int, float | None]) -> list[Finding]:
    """Judges the GPUs in use.

    Args:
        platform: platform of the JAX devices.
        others: number of other processes by GPU; None if the driver does not tell.
    """
    if platform != "gpu":
        return []
    if not others:
        remedy = "pip install 'timetrial[gpu]'"
        return [Finding(Level.WARN, "gpu", "clocks and processes of the GPU are unknown", remedy)]
    busy = {ordinal: count for ordinal, count in others.items() if count}
    return [
        Finding(Level.FAIL, "gpu", f"{count:.0f} other processes on GPU {ordinal}", "end them")
        for ordinal, count in busy.items()
    ] or [Finding(Level.OK, "gpu", "no other processes on it")]


def step_finding(timing: StepTiming, calibration: Calibration | None) -> Finding:
    """Judges the seconds per step against a calibration, where there is one."""
    ratio = None if calibration is None else timing.step_seconds / calibration.step_seconds
    text = (
        f"{timing.workload} with {timing.optimizer}: {timing.step_seconds:.4g} s per step "
        f"(median of {timing.steps} steps, spread {percent(timing.spread)})"
    )
    level, remedy = Level.OK, ""
    if calibration is not None:
        text += f", {ratio:.2f} times the calibration of {calibration.date}"
    if timing.doubt:
        text += f". {timing.doubt}"
        level, remedy = Level.FAIL, "end other programs, or wait"
    elif ratio is not None and abs(ratio - 1) > MOST_DEVIATION:
        level = Level.FAIL
        again = f"timetrial calibrate {timing.workload}"
        remedy = f"find out what has changed, or calibrate again: {again}"
    elif timing.spread > MOST_SPREAD:
        level, remedy = Level.WARN, "steady seconds spread less: close other programs"
    numbers = {"step_seconds": timing.step_seconds, "spread": timing.spread, "ratio": ratio}
    return Finding(level, "steps", text, remedy, numbers)


def machine_finding(calibration: Calibration, here: Mapping[str, str]) -> Finding | None:
    """Compares the machine and the packages of a calibration with those here; None if equal.

    Args:
        calibration: the calibration.
        here: tags of this machine and ``version.NAME`` of its packages.
    """
    there = {**calibration.hardware}
    there |= {f"version.{name}": text for name, text in calibration.versions.items()}
    machine = _different(MACHINE_TAGS, there, here)
    packages = [f"version.{name}" for name in ("jax", "jaxlib", "flax", "optax")]
    different = machine or _different(packages, there, here)
    if not different:
        return None
    text = f"the calibration of {calibration.workload} is of {'; '.join(different)}"
    level = Level.FAIL if machine else Level.WARN
    remedy = f"timetrial calibrate {calibration.workload}"
    return Finding(level, "calibration", text, remedy)


def _different(keys: Iterable[str], there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    return [
        f"{key} {there[key]}, not {here[key]}"
        for key in keys
        if key in there and key in here and there[key] != here[key]
    ]


def _last(quota: float) -> int:
    """Number of the last core that a quota fills."""
    return max(0, int(quota) - 1)


def percent(share: float) -> str:
    """A share as whole per cent: ``15 %``."""
    return f"{100 * share:.0f} %"
