"""Time budgets transferred to one machine, and the tags of a run with such a budget.

Boundary: arithmetic; ``framework.calibration`` holds the file, ``calibrate`` measures.

Source: Rezk et al., "Is Scaling Learned Optimizers Worth It? Evaluating the Value of VeLO's 4000
TPU Months", 2023, appendix A and Tables 4 and 5, https://arxiv.org/abs/2310.18191.
"""

from __future__ import annotations

import csv
import hashlib
import math
from importlib import resources
from pathlib import Path
from typing import Final

from timetrial.framework.budget import Budget
from timetrial.framework.calibration import Calibration, Reference, load_calibration
from timetrial.framework.errors import UserError
from timetrial.tracking.record import schema

NAMED_REFERENCES: Final = ("v100x8", "a100x1", "a100x2")
"""Machines with times per step in the paper, for its four workloads."""


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


def calibration_tags(budget: Budget) -> dict[str, str]:
    """Tags of the calibration of a run's budget; empty without one.

    The path is the only tag if the file is missing or holds another budget. This may happen when
    a run is repeated from its recorded configuration.
    """
    if budget.calibration is None:
        return {}
    path = Path(budget.calibration)
    tags = {f"{schema.CALIBRATION}.file": str(path)}
    found = calibration_of(budget)
    if found is None:
        return tags
    return tags | {
        schema.CALIBRATION: hashlib.sha256(path.read_bytes()).hexdigest()[:12],
        f"{schema.CALIBRATION}.date": found.date,
        f"{schema.CALIBRATION}.reference": found.reference.name,
        f"{schema.CALIBRATION}.step_seconds": f"{found.step_seconds:.9g}",
        f"{schema.CALIBRATION}.spread": f"{found.spread:.3g}",
    }


def calibration_of(budget: Budget) -> Calibration | None:
    """The calibration of a run's budget; None without one, or if its file holds another budget."""
    if budget.calibration is None:
        return None
    try:
        found = load_calibration(Path(budget.calibration))
    except UserError:
        return None
    return found if found.budget_seconds == budget.limit_seconds else None


def usual_cpu(budget: Budget) -> float | None:
    """CPU seconds per charged second during the calibration of a budget; None if unknown.

    Compilation uses the cores differently: None if it is charged.
    """
    found = None if budget.charge_compile else calibration_of(budget)
    return None if found is None else found.cpu_seconds_per_second
