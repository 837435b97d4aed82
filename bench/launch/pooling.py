"""Makes pools and checks machines; the command ``timetrial pool``.

Boundary: measures this machine, writes the file of a pool and prints; records no run.
"""

from __future__ import annotations

import datetime
import logging
import statistics
from collections.abc import Iterable, Mapping
from typing import Final

from timetrial.bench import suite as suites
from timetrial.bench.launch.admission import (
    TOLERANCE,
    admission,
    differences_text,
    hardware_differences,
    machine_tags,
    measured_step_seconds,
    reference_run,
)
from timetrial.bench.launch.pool import (
    PACKAGES,
    Pool,
    PoolCalibration,
    load_pool,
    pool_path,
    save_pool,
)
from timetrial.bench.suite import Suite
from timetrial.bench.workshop import Workshop
from timetrial.framework.config import Tracking, workload_texts
from timetrial.framework.errors import UserError
from timetrial.tracking.record import schema

_log = logging.getLogger(__name__)

REPETITIONS: Final = 3
"""Measurements of each workload; their median is the pool's time per step."""


def make_pool(
    name: str, settings: Mapping[str, Mapping[str, str]], *, date: str, known: Pool | None = None
) -> Pool:
    """Measures this machine as one of a pool.

    Args:
        name: name of the pool.
        settings: by workload to measure, its settings by dotted name.
        date: date of the measurement, as ISO 8601.
        known: the pool so far; its calibrations are kept.

    Raises:
        ConfigError: a bad name, unknown workloads or settings.
        UserError: the data of a workload are missing.
    """
    here = machine_tags()
    workshop = Workshop()
    calibrations = {} if known is None else dict(known.calibrations)
    for workload, chosen in settings.items():
        calibrations[workload] = calibrated(workload, chosen, workshop, date)
    return Pool(
        name=name,
        device_platform=here[schema.DEVICE_PLATFORM],
        device_kind=here[schema.DEVICE_KIND],
        device_count=int(here[schema.DEVICE_COUNT]),
        host_cpu=here[schema.HOST_CPU],
        host_cores=int(here[schema.HOST_CORES]),
        driver=here.get(schema.DRIVER, ""),
        versions={package: here[f"{schema.VERSION_PREFIX}{package}"] for package in PACKAGES},
        calibrations=calibrations,
    )


def calibrated(
    workload: str, settings: Mapping[str, str], workshop: Workshop, date: str
) -> PoolCalibration:
    """Times the reference optimizer on a workload here."""
    program = workshop.program(reference_run(workload, settings, suites.PACEMAKER))
    found = [measured_step_seconds(program) for _ in range(REPETITIONS)]
    step = statistics.median(found)
    spread = (max(found) - min(found)) / step
    if spread > TOLERANCE:
        _log.warning(
            "%s: seconds per step spread by %.0f %%, more than the %.0f %% that an admission "
            "allows; measure again on an idle machine",
            workload,
            100 * spread,
            100 * TOLERANCE,
        )
    return PoolCalibration(settings, suites.PACEMAKER, step, spread, date)


def make(text: str, suite: Suite, tracking: Tracking, *, replace: bool) -> int:
    """Measures the workloads of a suite and writes a pool; prints them.

    Workloads that the file holds already are kept. A pool of another machine, or of other settings,
    is not overwritten without ``replace``, which measures and writes everything anew.

    Args:
        text: name of the pool, or its file.
        suite: its presets hold the settings of the workloads.
        tracking: of the suite.
        replace: overwrite what is there.

    Raises:
        UserError: the file holds another pool, or cannot be written.
    """
    path = pool_path(text)
    known = None if replace or not path.exists() else load_pool(text)
    asked = settings_of(suite, tracking)
    if known is not None:
        _check_same(known, asked)
    missing = [name for name in asked if known is None or name not in known.calibrations]
    name = path.stem if known is None else known.name
    if missing or known is None:
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        due = {name: asked[name] for name in missing}
        print(f"timing {', '.join(due)}; leave the machine idle", flush=True)
        known = make_pool(name, due, date=today, known=known)
        save_pool(known, path)
    for workload, found in known.calibrations.items():
        state = "measured" if workload in missing else f"of {found.date}"
        print(
            f"{workload:<24} {found.step_seconds:.6g} s per step of {found.optimizer}, spread "
            f"{100 * found.spread:.1f} %, {state}"
        )
    print(f"pool {known.tag} {'written to' if missing else 'is unchanged in'} {path}")
    return 0


def settings_of(suite: Suite, tracking: Tracking) -> dict[str, dict[str, str]]:
    """Settings of the workloads of a suite by dotted name, as its presets say."""
    return {
        name: workload_texts(suites.pacemaker(suite, tracking, name).workload)
        for name in suite.workloads
    }


def _check_same(known: Pool, asked: Mapping[str, Mapping[str, str]]) -> None:
    """Raises unless this machine and these settings are those of a pool."""
    found = differences_text(hardware_differences(known))
    for workload, settings in asked.items():
        there = known.calibrations.get(workload)
        if not found and there is not None and there.workload_settings != settings:
            keys = sorted({*settings, *there.workload_settings})
            pairs = {k: (there.workload_settings.get(k, "none"), settings.get(k)) for k in keys}
            different = {k: (a, str(b)) for k, (a, b) in pairs.items() if a != b}
            found = f"{workload}: {differences_text(different)}"
    if found:
        raise UserError(
            f"pool {known.name} exists and is another one: {found}; choose another name, or "
            "--replace overwrites it"
        )


def check(text: str, workloads: Iterable[str] = ()) -> int:
    """Prints whether this machine belongs to a pool, with the ratio of each workload.

    Args:
        text: name of the pool, or its file.
        workloads: those to measure; all of the pool if empty.

    Returns:
        0 if it belongs to the pool, else 1.

    Raises:
        UserError: there is no such pool, or it has no such workload.
    """
    pool = load_pool(text)
    chosen = list(workloads) or list(pool.calibrations)
    for name in chosen:
        pool.calibration(name)
    different = hardware_differences(pool)
    for key, (there, here) in different.items():
        print(f"{key:<24} expected {there}, got {here}")
    refused = bool(different)
    workshop = Workshop()
    for name in () if different else chosen:
        found = admission(pool, name, workshop)
        refused |= not found.admitted
        ratio = f"{found.ratio:.3f} times the pool's seconds per step"
        print(f"{name:<24} {ratio}{'' if found.admitted else f': {found.reason}'}", flush=True)
    print(f"this machine {'does not belong' if refused else 'belongs'} to pool {pool.tag}")
    return 1 if refused else 0
