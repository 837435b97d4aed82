"""Admission of this machine to a pool, by its description and by measurement.

Boundary: reads this machine and times steps; records nothing. Once per process and workload.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Final

from timetrial.bench import suite as suites
from timetrial.bench.launch.pool import Pool
from timetrial.bench.timing.estimate import warm_step_seconds
from timetrial.bench.workshop import Workshop
from timetrial.framework.config import RunConfig
from timetrial.framework.step import Program
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import device_tags, host_tags, version_tags

TOLERANCE: Final = 0.05
"""Largest relative difference from the pool's seconds per step, slower or faster."""

STEPS: Final = 20
"""Fewest warm steps that are timed."""

GROUPS: Final = 5
"""Groups of these steps; the median of their seconds per step counts."""

LEAST_SECONDS: Final = 1.0
"""Shortest time to measure; short steps are repeated until it is filled."""

MOST_STEPS: Final = 5000
"""Most steps that are timed, however short."""

UNKNOWN: Final = "unknown"


@dataclasses.dataclass(frozen=True)
class Admission:
    """Whether this machine may make timed runs of a workload in a pool.

    Attributes:
        workload: registry name.
        ratio: seconds per step here divided by those of the pool, > 0; None if not measured.
        admitted: whether it may.
        reason: why not, as a sentence without its full stop; "" if admitted.
    """

    workload: str
    ratio: float | None
    admitted: bool
    reason: str = ""


def machine_tags() -> dict[str, str]:
    """Tags that describe this machine: devices, host and versions."""
    return {**device_tags(), **host_tags(), **version_tags()}


def hardware_differences(
    pool: Pool, here: Mapping[str, str] | None = None
) -> dict[str, tuple[str, str]]:
    """What this machine has other than a pool's, by tag: expected and found text.

    Args:
        pool: the pool.
        here: tags of a machine; by default those of this one.
    """
    here = machine_tags() if here is None else here
    return {
        key: (text, here.get(key, UNKNOWN))
        for key, text in pool.machine.items()
        if here.get(key, UNKNOWN) != text
    }


def differences_text(found: Mapping[str, tuple[str, str]]) -> str:
    """Differences in words: ``host_cores: expected 8, got 4; ...``."""
    return "; ".join(f"{key}: expected {there}, got {here}" for key, (there, here) in found.items())


def admission(pool: Pool, workload: str, workshop: Workshop | None = None) -> Admission:
    """Compares this machine with a pool, and its seconds per step with the pool's.

    Nothing is timed on a machine with other hardware or versions. A machine that is too fast is
    refused like one that is too slow: both make seconds that do not compare.

    Args:
        pool: the pool.
        workload: one of the pool's.
        workshop: makes the program, and keeps it for the next run.

    Raises:
        ConfigError: the pool has no calibration of the workload, or its settings are unknown here.
        UserError: the data of the workload are missing.
    """
    calibration = pool.calibration(workload)
    if different := hardware_differences(pool):
        reason = f"this machine is not one of pool {pool.name}: {differences_text(different)}"
        return Admission(workload, None, False, reason)
    config = reference_run(workload, calibration.workload_settings, calibration.optimizer)
    seconds = measured_step_seconds((workshop or Workshop()).program(config))
    return judged(pool, workload, seconds)


def judged(pool: Pool, workload: str, step_seconds: float) -> Admission:
    """The admission that follows from seconds per step measured here."""
    calibration = pool.calibration(workload)
    ratio = step_seconds / calibration.step_seconds
    if abs(ratio - 1) <= TOLERANCE:
        return Admission(workload, ratio, True)
    reason = (
        f"{calibration.optimizer} on {workload} takes {step_seconds:.4g} s per step, {ratio:.3f} "
        f"times the {calibration.step_seconds:.4g} s of pool {pool.name}; allowed: "
        f"{1 - TOLERANCE:g} to {1 + TOLERANCE:g} times; timetrial doctor looks for other programs, "
        "quotas and governors"
    )
    return Admission(workload, ratio, False, reason)


def pool_tags(pool: Pool, admission: Admission) -> dict[str, str]:
    """Tags of a run of this process in a pool: the pool, the proof, and what the run may use.

    Args:
        pool: the pool.
        admission: of the run's workload.

    Raises:
        ValueError: this machine was not admitted.
    """
    if not admission.admitted or admission.ratio is None:
        raise ValueError(f"expected a machine admitted to pool {pool.name}: {admission.reason}")
    here = host_tags()
    placed = (schema.GPU_UUID, schema.CPU_AFFINITY, schema.DRIVER)
    return {
        **pool.identity(admission.workload),
        schema.ADMISSION_RATIO: f"{admission.ratio:.4f}",
        **{key: here[key] for key in placed if key in here},
    }


def reference_run(workload: str, settings: Mapping[str, str], optimizer: str) -> RunConfig:
    """The run that is timed.

    Args:
        workload: registry name.
        settings: its settings by dotted name, as in ``PoolCalibration``.
        optimizer: registry name of the reference optimizer.

    Raises:
        ConfigError: unknown names or settings.
    """
    chosen = [f"workload={workload}", f"optimizer={optimizer}", f"budget.steps={MOST_STEPS}"]
    return suites.load_run([*chosen, *(f"{key}={text}" for key, text in settings.items())])


def measured_step_seconds(program: Program) -> float:
    """Seconds per warm step: the median over groups, so that one disturbance does not count."""
    found = warm_step_seconds(program, STEPS // GROUPS, GROUPS)
    step = statistics.median(found)
    if sum(found) * (STEPS // GROUPS) < LEAST_SECONDS:
        steps = min(math.ceil(LEAST_SECONDS / max(step, 1e-9)), MOST_STEPS)
        found = warm_step_seconds(program, max(steps, STEPS) // GROUPS, GROUPS)
    return statistics.median(found)
