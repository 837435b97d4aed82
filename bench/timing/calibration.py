"""Calibration files: a time budget transferred to one machine.

Boundary: the arithmetic and the file; ``calibrate`` measures, ``experiment`` tags each run with its
calibration.

Source: Rezk et al., "Is Scaling Learned Optimizers Worth It? Evaluating the Value of VeLO's 4000
TPU Months", 2023, appendix A and Tables 4 and 5, https://arxiv.org/abs/2310.18191.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from timetrial.framework import config as configuration
from timetrial.framework.budget import Budget
from timetrial.framework.config import ConfigError, RunConfig
from timetrial.framework.errors import UserError
from timetrial.tracking.record import schema

NAMED_REFERENCES: Final = ("v100x8", "a100x1", "a100x2")
"""Machines with times per step in the paper, for its four workloads."""


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


def transfer(reference: Reference, step_seconds: float) -> float:
    """The budget on hardware with ``step_seconds`` per step.

    Args:
        reference: the budget to transfer.
        step_seconds: seconds per step of the same algorithm here, > 0.

    Returns:
        Charged seconds, rounded down as in Table 5: to whole seconds from 100 on, to milliseconds
        below.
    """
    if not 0 < step_seconds < math.inf:
        raise ValueError(f"step_seconds: expected a time > 0, got {step_seconds}")
    seconds = reference.runtime_seconds * (step_seconds / reference.step_seconds)
    seconds *= 1 + 1e-12  # keeps whole numbers that rounding put just below
    return float(math.floor(seconds)) if seconds >= 100 else math.floor(seconds * 1e3) / 1e3


def paper_reference(workload: str, name: str) -> Reference:
    """A machine of the paper's Tables 4 and 5 as the reference for one of its workloads.

    The budget is that of the 8 V100s, transferred to the named machine, unrounded.

    Raises:
        UserError: unknown machine, or the paper has not timed the workload.
    """
    if name not in NAMED_REFERENCES:
        allowed = ", ".join(NAMED_REFERENCES)
        raise UserError(f"reference: expected {allowed} or a calibration file, got {name!r}")
    rows = paper_rows()
    if workload not in rows:
        raise UserError(
            f"reference {name}: the paper has no time per step for {workload}, only for "
            f"{', '.join(rows)}; leave --reference out, or name a calibration file of another "
            "machine"
        )
    row = rows[workload]
    v100_runtime = float(row["v100x8_runtime_s"])
    v100_step = v100_runtime / float(row["v100x8_steps"])
    step = v100_step if name == "v100x8" else float(row[f"{name}_step_s"])
    return Reference(name, v100_runtime * (step / v100_step), step)


def paper_rows() -> dict[str, dict[str, str]]:
    """The paper's Tables 4 and 5, one row of texts per workload."""
    with (
        resources.files("timetrial.tracking") / "paper" / "hardware_calibration.csv"
    ).open() as file:
        return {row["workload"]: row for row in csv.DictReader(file)}


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Writes a calibration file; creates its directory.

    Raises:
        UserError: it cannot be written.
    """
    head = (
        f"# Wall-clock budget of {calibration.workload} on this hardware, "
        f"measured with {calibration.optimizer}.\n"
        "# To use it: timetrial train workload=... optimizer=... budget.calibration=FILE\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            head + configuration.yaml_of(dataclasses.asdict(calibration)), encoding="utf-8"
        )
    except OSError as error:
        raise UserError(f"calibration {path}: cannot be written ({error.strerror})") from error


def load_calibration(path: Path) -> Calibration:
    """Reads a calibration file.

    Raises:
        UserError: it cannot be read or holds something else.
    """
    tree = configuration.read_yaml(path)
    names = [field.name for field in dataclasses.fields(Calibration)]
    missing = [name for name in names if name not in tree]
    if missing:
        raise UserError(f"{path}: no calibration file, it lacks {', '.join(missing)}")
    try:
        parts = {name: tree[name] for name in names}
        calibration: Calibration = configuration.convert(parts, Calibration, "")
    except ConfigError as error:
        raise UserError(f"{path}: no calibration file: {error}") from error
    if not (0 < calibration.budget_seconds < math.inf and calibration.step_seconds > 0):
        raise UserError(
            f"{path}: no calibration file: expected budget_seconds > 0 and step_seconds > 0"
        )
    return calibration


def workload_settings(config: RunConfig) -> dict[str, str]:
    """The settings of a run's workload, as texts by dotted name."""
    flat = configuration.flat(config)
    return {key: value for key, value in flat.items() if key.startswith("workload.")}


def check_fits(calibration: Calibration, config: RunConfig, where: str) -> None:
    """Raises if a calibration is of another workload or of other settings.

    Raises:
        UserError: it does not fit the configuration; the text names the first difference.
    """
    here = {"workload": config.workload.name, **workload_settings(config)}
    there = {"workload": calibration.workload, **calibration.workload_settings}
    for key in sorted({*here, *there}):
        if here.get(key) != there.get(key):
            raise UserError(
                f"{where}: expected a calibration with {key}={here.get(key)}, "
                f"got {key}={there.get(key)}"
            )


def calibrated_seconds(path: Path, config: RunConfig) -> float:
    """The time budget in a calibration file, in charged seconds, checked against a configuration.

    Raises:
        UserError: the file cannot be read, or it is for something else.
    """
    calibration = load_calibration(path)
    check_fits(calibration, config, f"calibration {path}")
    return calibration.budget_seconds


def calibration_tags(budget: Budget) -> dict[str, str]:
    """Tags of the calibration of a run's budget; empty without one.

    The path is the only tag if the file is missing or holds another budget. This may happen when
    a run is repeated from its recorded configuration.
    """
    if budget.calibration is None:
        return {}
    path = Path(budget.calibration)
    tags = {f"{schema.CALIBRATION}.file": str(path)}
    try:
        content = path.read_bytes()
        found = load_calibration(path)
    except (OSError, UserError):
        return tags
    if found.budget_seconds != budget.limit_seconds:
        return tags
    return tags | {
        schema.CALIBRATION: hashlib.sha256(content).hexdigest()[:12],
        f"{schema.CALIBRATION}.date": found.date,
        f"{schema.CALIBRATION}.reference": found.reference.name,
        f"{schema.CALIBRATION}.step_seconds": f"{found.step_seconds:.9g}",
        f"{schema.CALIBRATION}.spread": f"{found.spread:.3g}",
    }
