"""Calibration files: a time budget measured on one machine, for one workload with its settings.

Boundary: the file and its check; ``bench.timing`` measures and transfers budgets.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from timetrial.framework.convert import convert
from timetrial.framework.errors import ConfigError
from timetrial.framework.yaml_files import read_yaml, write_sealed


@dataclasses.dataclass(frozen=True)
class Reference:
    """Source of a transferred budget.

    Attributes:
        name: machine or file.
        runtime_seconds: the budget there, in charged seconds.
        step_seconds: seconds per step of the target-setting algorithm there.
    """

    name: str
    runtime_seconds: float
    step_seconds: float

    def __post_init__(self) -> None:
        for name in ("runtime_seconds", "step_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"reference {self.name}: expected {name} > 0, got {getattr(self, name)}"
                )


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Contents of a calibration file.

    Attributes:
        workload: registry name.
        workload_settings: by dotted name; some of them change the time per step.
        optimizer: the target-setting algorithm.
        steps: number of steps run, the warm-up included.
        warm_up_steps: steps discarded.
        window_step_seconds: mean seconds per step of each window.
        step_seconds: their median.
        spread: (largest - smallest) / median of the windows.
        reference: source of the budget: name, runtime and seconds per step.
        budget_seconds: the budget on this hardware, in charged seconds.
        date: date of the measurement, as ISO 8601 (year-month-day).
        hardware, versions: hardware and software of the measurement.
        cpu_seconds_per_second: CPU seconds of the process per charged second; None in older files.
    """

    workload: str
    workload_settings: Mapping[str, str]
    optimizer: str
    steps: int
    warm_up_steps: int
    window_step_seconds: tuple[float, ...]
    step_seconds: float
    spread: float
    reference: Reference
    budget_seconds: float
    date: str
    hardware: Mapping[str, str]
    versions: Mapping[str, str]
    cpu_seconds_per_second: float | None = None


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Writes a calibration file; creates its directory.

    Raises:
        ConfigError: it cannot be written.
    """
    head = (
        f"# Wall-clock budget of {calibration.workload} on this hardware, "
        f"measured with {calibration.optimizer}.\n"
        "# To use it: timetrial train workload=... optimizer=... budget.calibration=FILE\n"
    )
    write_sealed(path, head, dataclasses.asdict(calibration), "calibration")


def load_calibration(path: Path) -> Calibration:
    """Reads a calibration file.

    Raises:
        ConfigError: it cannot be read or holds something else.
    """
    tree = read_yaml(path)
    fields = dataclasses.fields(Calibration)
    required = [field.name for field in fields if field.default is dataclasses.MISSING]
    missing = [name for name in required if name not in tree]
    if missing:
        raise ConfigError(f"{path}: no calibration file, it lacks {', '.join(missing)}")
    try:
        parts = {field.name: tree[field.name] for field in fields if field.name in tree}
        calibration: Calibration = convert(parts, Calibration, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: no calibration file: {error}") from error
    if not (0 < calibration.budget_seconds < math.inf and calibration.step_seconds > 0):
        raise ConfigError(
            f"{path}: no calibration file: expected budget_seconds > 0 and step_seconds > 0"
        )
    return calibration


def check_fits(
    calibration: Calibration, workload: str, settings: Mapping[str, str], where: str
) -> None:
    """Raises if a calibration is of another workload or of other settings.

    Args:
        calibration: contents of the file.
        workload: registry name of the run's workload.
        settings: its settings as texts, by dotted name (``workload.batch_size``).
        where: name of the file in the error.

    Raises:
        ConfigError: it does not fit; the text names the first difference.
    """
    here = {"workload": workload, **settings}
    there = {"workload": calibration.workload, **calibration.workload_settings}
    for key in sorted({*here, *there}):
        if here.get(key) != there.get(key):
            raise ConfigError(
                f"{where}: expected a calibration with {key}={here.get(key)}, "
                f"got {key}={there.get(key)}; measure one with: timetrial calibrate {workload}"
            )
