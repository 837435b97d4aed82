"""Times warm steps of a suite's reference run.

Boundary: compiles and trains; nothing is recorded.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from timetrial.bench import suite as suites
from timetrial.bench.doctor.findings import (
    Finding,
    Level,
    StepTiming,
    machine_finding,
    step_finding,
)
from timetrial.bench.suite import Suite
from timetrial.bench.timing.calibrate import timed_steps, windows
from timetrial.bench.timing.doubts import doubt_about
from timetrial.bench.workshop import Workshop
from timetrial.framework.calibration import Calibration, check_fits, load_calibration
from timetrial.framework.clock import Clock
from timetrial.framework.config import RunConfig, Tracking, workload_texts
from timetrial.framework.errors import UserError
from timetrial.framework.meter import LEAST_SECONDS, Meter
from timetrial.framework.step import Program
from timetrial.tracking.record.environment import device_tags, host_tags, version_tags

STEPS: Final = 20
WARM_UP_STEPS: Final = 5
WINDOWS: Final = 5
_MOST_STEPS: Final = 2000


def step_findings(suite: Suite, tracking: Tracking) -> Iterator[Finding]:
    """Times the reference run of each workload with a calibration, else that of the first one."""
    files = {name: file for name in suite.workloads if (file := _file(suite, tracking, name))}
    here = {**device_tags(), **host_tags(), **version_tags()}
    for workload in files or suite.workloads[:1]:
        calibration = None
        if workload in files:
            try:
                calibration = _fitting(suite, tracking, workload, files[workload])
            except UserError as error:
                yield Finding(Level.WARN, "calibration", str(error), "")
            else:
                different = machine_finding(calibration, here)
                if different is not None:
                    yield different
        config = _reference(suite, tracking, workload, calibration)
        yield step_finding(time_steps(config), calibration)


def time_steps(config: RunConfig) -> StepTiming:
    """Seconds per step of a run after a warm-up: 20 steps, or more to fill half a second."""
    program = Workshop().program(config)
    first = timed_steps(program, WARM_UP_STEPS + STEPS, config.seed)
    pace = max((first[-1] - first[WARM_UP_STEPS - 1]) / STEPS, 1e-6)
    steps = min(max(STEPS, math.ceil(2 * LEAST_SECONDS / pace)), _MOST_STEPS)
    return _timed(program, config, steps)


def _timed(program: Program, config: RunConfig, steps: int) -> StepTiming:
    clock = Clock(meter=Meter())
    seconds = timed_steps(program, WARM_UP_STEPS + steps, config.seed, clock)
    found = windows(seconds, warm_up_steps=WARM_UP_STEPS, count=WINDOWS)
    median = statistics.median(found)
    return StepTiming(
        config.workload.name,
        config.optimizer.name,
        steps,
        median,
        (max(found) - min(found)) / median,
        doubt_about(clock),
    )


def _file(suite: Suite, tracking: Tracking, workload: str) -> Path | None:
    """The calibration file of a workload: the suite's, else that in the tracking root."""
    named = suite.calibration(workload)
    file = Path(named) if named else Path(tracking.root) / "calibrations" / f"{workload}.yaml"
    return file if file.is_file() else None


def _fitting(suite: Suite, tracking: Tracking, workload: str, file: Path) -> Calibration:
    """The calibration of a workload.

    Raises:
        UserError: the file cannot be read, or is of other settings.
    """
    calibration = load_calibration(file)
    choice = suites.pacemaker(suite, tracking, workload).workload
    check_fits(calibration, choice.name, workload_texts(choice), f"calibration {file}")
    return calibration


def _reference(
    suite: Suite, tracking: Tracking, workload: str, calibration: Calibration | None
) -> RunConfig:
    """The run to time: that of the calibration, else the suite's reference run."""
    optimizer = suites.PACEMAKER if calibration is None else calibration.optimizer
    return suites.stepped(suite, tracking, workload, optimizer, suite.seeds[0])
