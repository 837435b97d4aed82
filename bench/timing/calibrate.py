"""Calibration: transfers a reference time budget to this hardware.

Boundary: measures the target-setting algorithm of a workload and writes a calibration file; runs
take their budget from it with ``budget.calibration=FILE``.

The trainer runs a few per cent of the algorithm's steps; charged seconds are measured. A warm-up is
discarded, because data loading disturbs the first steps. The rest is split into windows of equal
length. The median of their seconds per step gives the budget:
``budget here = reference runtime * step seconds here / step seconds of the reference``.

Source: Rezk et al., "Is Scaling Learned Optimizers Worth It? Evaluating the Value of VeLO's 4000
TPU Months", 2023, appendix A and Tables 4 and 5, https://arxiv.org/abs/2310.18191.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import logging
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from timetrial.bench import suite as suites
from timetrial.bench.timing.calibration import (
    NAMED_REFERENCES,
    paper_reference,
    paper_rows,
    transfer,
)
from timetrial.bench.timing.doubts import doubt_about
from timetrial.bench.workshop import Workshop
from timetrial.framework import callbacks as cb
from timetrial.framework import config as configuration
from timetrial.framework.budget import Budget
from timetrial.framework.calibration import (
    Calibration,
    Reference,
    check_fits,
    load_calibration,
    save_calibration,
)
from timetrial.framework.clock import TRAIN, Clock
from timetrial.framework.config import RunConfig, Tracking, workload_texts
from timetrial.framework.errors import UserError
from timetrial.framework.gpus import gpus_in_use
from timetrial.framework.meter import Meter
from timetrial.framework.paths import user_path
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import device_tags, host_tags, version_tags
from timetrial.workloads import WORKLOADS

_log = logging.getLogger(__name__)

SELF: Final = "this machine"
"""The reference of a workload without times from another machine."""

_FEWEST_STEPS: Final = 20


def target_setter(workload: str) -> str:
    """The target-setting algorithm: the paper's for its workloads, else the reference run's."""
    row = paper_rows().get(workload)
    return row["target_setting_algorithm"] if row else suites.PACEMAKER


def windows(
    seconds_at_step: Sequence[float], *, warm_up_steps: int, count: int
) -> tuple[float, ...]:
    """Mean seconds per step of windows of equal length after the warm-up.

    Args:
        seconds_at_step: charged seconds after each step, in order.
        warm_up_steps: steps to discard, at least 1.
        count: number of windows; surplus steps right after the warm-up are dropped.

    Raises:
        ValueError: no warm-up, or fewer steps after it than windows.
    """
    left = len(seconds_at_step) - warm_up_steps
    if warm_up_steps < 1 or count < 1 or left < count:
        raise ValueError(
            f"expected a warm-up of at least 1 step and at least {max(count, 1)} steps after it, "
            f"got {warm_up_steps} and {left}"
        )
    length = left // count
    edges = [len(seconds_at_step) - 1 - length * k for k in range(count, -1, -1)]
    return tuple(
        (seconds_at_step[end] - seconds_at_step[start]) / length
        for start, end in itertools.pairwise(edges)
    )


class _Stopwatch(cb.Callback):
    """Records the charged seconds after every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_end(self, info: cb.StepInfo) -> None:
        self.seconds.append(info.train_seconds)


def step_times(
    config: RunConfig, workshop: Workshop | None = None, clock: Clock | None = None
) -> list[float]:
    """Charged seconds after each step of a run of ``config.budget.steps``; nothing is recorded."""
    assert config.budget.steps is not None
    program = (workshop or Workshop()).program(config)
    return timed_steps(program, config.budget.steps, config.seed, clock)


def timed_steps(
    program: Program, steps: int, seed: int = 0, clock: Clock | None = None
) -> list[float]:
    """Charged seconds after each of so many steps of a program; fewer if the run diverges."""
    watch = _Stopwatch()
    callbacks = [cb.StopIfDiverged(), watch]
    Trainer(program, Budget(steps=steps), callbacks, seed, clock).fit(program.init(seed))
    return watch.seconds


def calibrate(
    workload: str,
    overrides: Sequence[str] = (),
    *,
    reference: str | None = None,
    share: float = 0.05,
    warm_up_steps: int | None = None,
    window_count: int = 5,
    date: str,
) -> Calibration:
    """Measures the target-setting algorithm of a workload here and transfers a budget.

    Args:
        workload: registry name.
        overrides: settings of the workload, as for ``timetrial train``; ``budget.steps`` is the
            length of the budget if this machine is the reference.
        reference: one of ``NAMED_REFERENCES`` or a calibration file; by default ``v100x8`` for
            the paper's workloads, else this machine: steps of the budget times seconds per step.
        share: share of the budget's steps to run, in (0, 1]; at least 20 steps are made.
        warm_up_steps: steps to discard; a fifth of the steps made by default.
        window_count: number of windows.
        date: date in the file, as ISO 8601.

    Raises:
        UserError: unknown workload or reference, a file that does not fit, a value out of range.
    """
    optimizer = target_setter(workload)
    config, total = _timed_run(workload, optimizer, overrides, share)
    known = _reference(workload, optimizer, config, reference)
    made = max(math.ceil(share * total), _FEWEST_STEPS)
    discarded = max(1, made // 5) if warm_up_steps is None else warm_up_steps
    found, cpu_rate = _measured_windows(config, made, discarded, window_count)
    step = statistics.median(found)
    known = known or Reference(SELF, total * step, step)
    return Calibration(
        workload=workload,
        workload_settings=workload_texts(config.workload),
        optimizer=optimizer,
        steps=made,
        warm_up_steps=discarded,
        window_step_seconds=found,
        step_seconds=step,
        spread=(max(found) - min(found)) / step,
        reference=known,
        budget_seconds=transfer(known, step),
        date=date,
        hardware={**device_tags(), **host_tags()},
        versions={k.removeprefix(schema.VERSION_PREFIX): v for k, v in version_tags().items()},
        cpu_seconds_per_second=cpu_rate,
    )


def _timed_run(
    workload: str, optimizer: str, overrides: Sequence[str], share: float
) -> tuple[RunConfig, int]:
    """The run to time, and the steps of its whole budget.

    Raises:
        UserError: an unknown workload, a share out of range, or a budget of seconds.
    """
    if workload not in WORKLOADS:
        raise UserError(configuration.unknown("workload", workload, WORKLOADS))
    if not 0 < share <= 1:
        raise UserError(f"--share: expected a share of the steps in (0, 1], got {share}")
    config = suites.load_run([*overrides, f"workload={workload}", f"optimizer={optimizer}"])
    if config.budget.steps is None:
        raise UserError("calibrate: expected budget.steps or none, got budget.seconds")
    return config, config.budget.steps


def _measured_windows(
    config: RunConfig, made: int, discarded: int, window_count: int
) -> tuple[tuple[float, ...], float]:
    """Seconds per step of windows of a short run, and its CPU seconds per charged second.

    Raises:
        UserError: too few steps for the windows, or the run diverges.
    """
    if made - discarded < window_count or discarded < 1 or window_count < 1:
        raise UserError(
            f"calibrate: {made} steps with a warm-up of {discarded} leave too few for "
            f"{window_count} windows; choose a larger --share or a smaller --warm-up (at least 1)"
        )
    clock = Clock(meter=Meter(gpus=gpus_in_use()))
    seconds = step_times(dataclasses.replace(config, budget=Budget(steps=made)), clock=clock)
    if len(seconds) < made:
        name, optimizer = config.workload.name, config.optimizer.name
        raise UserError(f"calibrate: {optimizer} diverged on {name} after {len(seconds)} steps")
    if why := doubt_about(clock):
        _log.warning("%s The calibration is not credible: repeat it on an idle machine", why)
    found = windows(seconds, warm_up_steps=discarded, count=window_count)
    return found, clock.cpu_accounts()[TRAIN] / clock.train_seconds


def _reference(
    workload: str, optimizer: str, config: RunConfig, name: str | None
) -> Reference | None:
    if name is None:
        return paper_reference(workload, "v100x8") if workload in paper_rows() else None
    if name in NAMED_REFERENCES or not user_path(name).exists():
        return paper_reference(workload, name)
    other = load_calibration(user_path(name))
    texts = workload_texts(config.workload)
    check_fits(other, config.workload.name, texts, f"reference {name}")
    if other.optimizer != optimizer:
        raise UserError(
            f"reference {name}: expected a calibration with {optimizer}, got {other.optimizer}"
        )
    return Reference(name, other.budget_seconds, other.step_seconds)


def run(
    workload: str,
    overrides: Sequence[str],
    *,
    reference: str | None,
    share: float,
    warm_up_steps: int | None,
) -> int:
    """Calibrates, writes the file and prints its use; the command ``timetrial calibrate``."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    found = calibrate(
        workload,
        overrides,
        reference=reference,
        share=share,
        warm_up_steps=warm_up_steps,
        date=today,
    )
    tree = configuration.parse(overrides).get("tracking", {})
    tracking: Tracking = configuration.convert(tree, Tracking, "tracking")
    path = Path(tracking.root) / "calibrations" / f"{workload}.yaml"
    save_calibration(found, path)
    listed = ", ".join(f"{seconds:.6g}" for seconds in found.window_step_seconds)
    print(f"{found.optimizer} on {workload}: {found.steps} steps, {found.warm_up_steps} discarded")
    print(f"seconds per step   {found.step_seconds:.6g} (median; windows {listed})")
    print(
        f"spread             {100 * found.spread:.1f} % between the slowest and the fastest window"
    )
    print(
        f"reference          {found.reference.name}: {found.reference.runtime_seconds:.6g} s at "
        f"{found.reference.step_seconds:.6g} s per step"
    )
    print(f"CPU seconds        {found.cpu_seconds_per_second:.2f} per charged second")
    print(f"budget here        {found.budget_seconds:g} s")
    print(f"written to {path}; use it with budget.calibration={path}")
    return 0
