"""Evaluations of one run as rows or arrays, and when one first reaches a target.

Pure: functions of a ``RunRecord``; which runs count is for ``tracking.scores.targets``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Direction, Split

Floats = npt.NDArray[np.float64]


class MetricValues(NamedTuple):
    """Values of one metric in order of step, one per step.

    Attributes:
        steps: updates made, strictly increasing.
        seconds: seconds charged so far.
        values: the metric; NaN where the split was evaluated without it.
    """

    steps: Floats
    seconds: Floats
    values: Floats


def evaluations_of(record: RunRecord, split: Split) -> list[Row]:
    """The run's evaluations of a split, in order of step, one per step.

    Rows of the same step (after a resume, or logged in parts) are merged; the later row wins.
    """
    rows: dict[int, Row] = {}
    for row in sorted(record.evaluations, key=lambda row: row.step):
        if any(name.startswith(f"{split}/") for name in row.metrics):
            before = rows[row.step].metrics if row.step in rows else {}
            rows[row.step] = Row(row.step, row.train_seconds, {**before, **row.metrics})
    return list(rows.values())


def last_metrics(record: RunRecord, split: Split) -> Mapping[str, float]:
    """All metrics of the last evaluation of a split: those of ``evaluations_of``'s last."""
    prefix = f"{split}/"
    last, found = -math.inf, dict[str, float]()
    for row in record.evaluations:
        if row.step >= last and any(name.startswith(prefix) for name in row.metrics):
            found = {**(found if row.step == last else {}), **row.metrics}
            last = row.step
    return found


def metric_values(record: RunRecord, key: str) -> MetricValues:
    """The metric ``"<split>/<metric>"`` of a run: ``evaluations_of`` as arrays."""
    rows = _as_recorded(record.evaluations, key)
    if rows is None:
        merged = evaluations_of(record, Split(key.split("/", 1)[0]))
        rows = [(e.step, e.train_seconds, e.metrics.get(key, math.nan)) for e in merged]
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return MetricValues(table[:, 0], table[:, 1], table[:, 2])


def first_hit(
    values: Floats, times: Floats, target: float, direction: Direction
) -> tuple[int, float] | None:
    """Place and time of the first value at (``<=`` or ``>=``) or beyond a target.

    Only a finite value with a finite time reaches a target. Charged time never goes back: where
    the recorded one does, as after a resume, the hit gets the largest time before it.

    Args:
        values: of the metric, in the order that counts.
        times: seconds or steps, per value.
        target: NaN is never reached.
        direction: of the metric.

    Returns:
        The index into ``values`` and the time, or None for never.
    """
    beyond = values <= target if direction is Direction.MINIMIZE else values >= target
    known = np.isfinite(times)
    (places,) = np.nonzero(beyond & np.isfinite(values) & known)
    if not len(places):
        return None
    place = int(places[0])
    so_far = times[: place + 1][known[: place + 1]]
    return place, float(so_far.max())


def _as_recorded(evaluations: Sequence[Row], key: str) -> list[tuple[int, float, float]] | None:
    """The rows as they stand, or None where they need to be sorted or merged first."""
    prefix = key.split("/", 1)[0] + "/"
    rows = []
    last = -math.inf
    for row in evaluations:
        value = row.metrics.get(key)
        if value is None:
            if not any(name.startswith(prefix) for name in row.metrics):
                continue
            value = math.nan
        if row.step <= last:
            return None
        last = row.step
        rows.append((row.step, row.train_seconds, value))
    return rows
