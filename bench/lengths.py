"""How long a run will take: recorded runs, else a calibration, else an estimate.

Pure, except ``readable_store`` and ``recorded``, which read a store.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from timetrial.bench.naming import label
from timetrial.framework import config as configuration
from timetrial.framework.calibration import Calibration
from timetrial.framework.config import RunConfig, Tracking
from timetrial.framework.types import Condition
from timetrial.tracking.read.lengths import Length, read_lengths
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.store.opening import Store, open_store

OVERHEAD: Final = 1.2
"""Wall time of a run over its training seconds: evaluations, logging, compilation."""

RECORDED, CALIBRATED = "recorded runs", "calibrations x 1.2"
ESTIMATED, LIMITED = "the suite's estimate", "time budgets x 1.2"
UNKNOWN: Final = "unknown"

_SPANS: Final = ("workload.step_hint", "workload.eval_every_steps")
"""Settings of a workload that change the number of steps, not the time of one."""


@dataclasses.dataclass(frozen=True)
class Expected:
    """Expected wall time of a run.

    Attributes:
        seconds: 0 if unknown.
        source: where it comes from, in words.
    """

    seconds: float
    source: str


def readable_store(tracking: Tracking) -> Store | None:
    """The store of a plan; None while there is none yet, or it fails."""
    try:
        return open_store(tracking.uri, root=Path(tracking.root), create=False)
    except TrackingError:
        return None


def recorded(store: Store | None) -> list[Length]:
    """The lengths of recorded runs; empty without a store, or while it fails."""
    try:
        return [] if store is None else read_lengths(store)
    except TrackingError:
        return []


def expected(
    config: RunConfig,
    lengths: Sequence[Length],
    calibration: Calibration | None = None,
    estimate: float = 0.0,
    *,
    limit_is_known: bool = True,
) -> Expected:
    """Expected wall time of a run.

    The first of these that there is: the median of recorded runs of its workload, optimizer and
    kind of budget, scaled to its budget if theirs were others; a calibration's seconds per step
    times its steps, or its time budget, times ``OVERHEAD``; the estimate; its time budget times
    ``OVERHEAD``.

    Args:
        config: the run.
        lengths: recorded runs.
        calibration: calibration of its workload.
        estimate: expected seconds according to the suite; 0 if unknown.
        limit_is_known: False while a reference run has not set its time budget.
    """
    if seconds := _recorded_seconds(config, lengths, limit_is_known):
        return Expected(seconds, RECORDED)
    budget = config.budget
    limit = (budget.limit_seconds or 0.0) if limit_is_known else 0.0
    if calibration is not None:
        steps = (budget.steps or 0) * calibration.step_seconds
        return Expected(OVERHEAD * max(steps, limit), CALIBRATED)
    if estimate:
        return Expected(estimate, ESTIMATED)
    if limit:
        return Expected(OVERHEAD * limit, LIMITED)
    return Expected(0.0, UNKNOWN)


def _recorded_seconds(
    config: RunConfig, lengths: Sequence[Length], limit_is_known: bool
) -> float | None:
    budget = config.budget
    alike = [one for one in lengths if _is_alike(one, config)]
    if not alike:
        return None
    limit = float(budget.steps or 0) if budget.condition == Condition.STEP else budget.seconds
    if limit is None or (budget.condition == Condition.TIME and not limit_is_known):
        return statistics.median(one.wall_seconds for one in alike)
    same = [one.wall_seconds for one in alike if one.budget == limit]
    return statistics.median(same or [one.wall_seconds * limit / one.budget for one in alike])


def _is_alike(length: Length, config: RunConfig) -> bool:
    """True for the same workload, optimizer and kind of budget; a missing setting is no other."""
    if (length.workload, length.optimizer) != (config.workload.name, label(config)):
        return False
    both = length.config.get("budget.also_seconds")
    if both is not None and (both != "None") != (config.budget.also_seconds is not None):
        return False
    settings = configuration.workload_texts(config.workload).items()
    return length.condition == config.budget.condition and all(
        length.config.get(key, value) == value for key, value in settings if key not in _SPANS
    )
