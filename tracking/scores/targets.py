"""From recorded runs to targets, times to target and final quality.

Pure: functions of ``RunRecord``; no I/O. Ratios and scores follow in ``tracking.scores.scoring``.

Which runs count (``trials``): one per workload, optimizer, seed and condition. Runs that finished,
diverged or failed count; failed runs count against the optimizer. Runs that are still going or were
killed, interrupted or pruned do not. Of several runs with the same seed, a finished or diverged one
goes before a failed one, then the one with more updates, then the larger run id.

Runs that ended early (diverged, failed): a target reached before the end stays reached, as in
AlgoPerf. At every later share of the budget, and at the end, the run has no metric (NaN).

Source: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (section 5, AlgoPerf's rules with targets of its own).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction, Split, Status
from timetrial.tracking.record import schema
from timetrial.tracking.scores.evaluations import evaluations_of as evaluations_of
from timetrial.tracking.scores.evaluations import first_hit, last_metrics, metric_values
from timetrial.tracking.scores.machines import check_one_machine, suspect

Unit = Literal["seconds", "steps"]

CONDITIONS: Final = (Condition.TIME, Condition.STEP)
"""Kinds of budget, in the order of the paper's tables."""

UNITS: Final[Mapping[str, Unit]] = {Condition.TIME: "seconds", Condition.STEP: "steps"}
"""What each condition measures a time to target in."""

SPLITS: Final = tuple(Split)


def diverged(record: RunRecord) -> bool:
    """True when the run was stopped because its loss was no longer finite."""
    return record.reason == "DIVERGED" or record.tags.get("diverged") == "true"


def counts(record: RunRecord) -> bool:
    """True when the run is a result of its optimizer, False when it is merely incomplete."""
    if diverged(record):
        return True
    return record.status in (Status.FINISHED, Status.FAILED) and record.reason not in (
        "INTERRUPTED",
        "PRUNED",
    )


def trials(records: Iterable[RunRecord], *, condition: Condition) -> list[RunRecord]:
    """The runs of a condition that count, sorted by workload, optimizer and seed.

    Runs under time control whose seconds are suspect do not count (``machines.suspect``). Of two
    runs with the same seed a credible one counts before a suspect one, then the longer one.

    Raises:
        ValueError: unknown condition.
    """
    _check("condition", condition, CONDITIONS)
    chosen: dict[tuple[str, str, int], RunRecord] = {}
    for record in records:
        if record.condition == condition and counts(record) and not suspect(record):
            key = (record.workload, record.optimizer, record.seed)
            if key not in chosen or _rank(record) > _rank(chosen[key]):
                chosen[key] = record
    return [chosen[key] for key in sorted(chosen)]


def targets(
    records: Sequence[RunRecord], *, split: Split, condition: Condition, at: float = 0.75
) -> pd.Series[float]:
    """The value that the best optimizer has reached after a share of the budget, per workload.

    A run's value is its last evaluation at or before ``at`` of the budget, in the budget's unit.
    An optimizer's value is the median over its trials; trials without a finite value rank last.
    The target is the best optimizer's value, or that in the runs' tags (``schema.GIVEN_TARGET``).

    Args:
        records: runs, in any order; other conditions are ignored.
        split: ``train``, ``validation`` or ``test``.
        condition: ``time`` or ``step``.
        at: share of the budget, in (0, 1]. AlgoPerf and the paper use 0.75.

    Returns:
        Index workload (sorted), name ``target``; NaN where no optimizer has a finite median.

    Raises:
        ValueError: unknown condition, ``at`` out of range, or the runs of a workload disagree on
            its metric, direction or given target.
    """
    if not 0 < at <= 1:
        raise ValueError(f"at: expected a share of the budget in (0, 1], got {at}")
    directions = _directions(records, condition)
    values: dict[str, dict[str, list[float]]] = {workload: {} for workload in directions}
    for run in trials(records, condition=condition):
        value = _metric_at(run, split, at)
        if not math.isfinite(value):
            value = math.inf if run.direction is Direction.MINIMIZE else -math.inf
        values[run.workload].setdefault(run.optimizer, []).append(value)
    found = {}
    for workload, direction in directions.items():
        medians = [float(np.median(seeds)) for seeds in values[workload].values()]
        found[workload] = direction.best(m for m in medians if math.isfinite(m))
    found |= _given(records, split, condition)
    return pd.Series(found, name="target", dtype=float).rename_axis("workload")


def trial_times(
    records: Sequence[RunRecord],
    targets: Mapping[str, float] | pd.Series[float],
    split: Split,
    unit: Unit = "seconds",
    *,
    condition: Condition | None = None,
) -> pd.DataFrame:
    """Time to target of every trial: columns workload, optimizer, seed, value; ``inf`` = never.

    The time is that of the first evaluation at (``<=`` or ``>=``) or beyond the target; nothing is
    interpolated. Only finite values reach a target; a target that is NaN or missing is never
    reached. Charged seconds never go back (``evaluations.first_hit``).

    Args:
        records: runs, in any order.
        targets: target by workload.
        split: ``train``, ``validation`` or ``test``.
        unit: charged ``seconds`` or ``steps``.
        condition: ``time`` or ``step``; may be left out when all runs are of one condition.

    Raises:
        ValueError: unknown condition or unit, or runs of two conditions and none chosen.
    """
    _check("unit", unit, tuple(UNITS.values()))
    condition = condition or _only_condition(records)
    goals = {str(workload): float(target) for workload, target in targets.items()}
    rows = [
        (run.workload, run.optimizer, run.seed, _first_at(run, split, unit, goals))
        for run in trials(records, condition=condition)
    ]
    return pd.DataFrame(rows, columns=["workload", "optimizer", "seed", "value"])


def time_to_target(
    records: Sequence[RunRecord],
    targets: Mapping[str, float] | pd.Series[float],
    split: Split,
    unit: Unit = "seconds",
    *,
    condition: Condition | None = None,
    mixed_machines: bool = False,
) -> pd.DataFrame:
    """Median over trials of the time to target: the input of ``scoring.scores``.

    Further arguments and errors are those of ``trial_times``. ``mixed_machines`` compares the
    seconds of runs from different machines or calibrations, too.

    Returns:
        Index optimizer, columns workload (both sorted; all that occur in the condition). ``inf``
        = never, which the median counts like any other time; NaN = no run that counts.

    Raises:
        MixedMachinesError: ``unit`` is seconds, runs of one workload that count were timed on
            different machines, and ``mixed_machines`` is False.
    """
    condition = condition or _only_condition(records)
    if unit == "seconds" and not mixed_machines:
        check_one_machine(trials(records, condition=condition))
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    rows = trial_times(records, targets, split, unit, condition=condition)
    for workload, optimizer, _, value in rows.itertuples(index=False):
        times[optimizer, workload].append(value)
    here = [record for record in records if record.condition == condition]
    workloads = sorted({record.workload for record in here})
    table = {
        optimizer: [float(np.median(times.get((optimizer, w), math.nan))) for w in workloads]
        for optimizer in sorted({record.optimizer for record in here})
    }
    return pd.DataFrame.from_dict(
        table, orient="index", columns=pd.Index(workloads, name="workload"), dtype=float
    ).rename_axis("optimizer")


def final_value(record: RunRecord, key: str) -> float:
    """The metric ``"<split>/<metric>"`` of the last evaluation; NaN if the run ended early."""
    return _final_metrics(record, Split(key.split("/", 1)[0])).get(key, math.nan)


def _final_metrics(record: RunRecord, split: Split) -> Mapping[str, float]:
    ended_early = diverged(record) or record.status != Status.FINISHED
    return {} if ended_early else last_metrics(record, split)


def final_values(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Every final metric of every trial: the input of ``uncertainty.quality_intervals``.

    Returns:
        Columns condition, workload, optimizer, split, metric, seed, value; NaN where a run ended
        early or never evaluated the metric.
    """
    rows = []
    for condition in CONDITIONS:
        for workload, runs in _by_workload(trials(records, condition=condition)).items():
            keys = _metric_keys(runs)
            for split in sorted({Split(key.split("/", 1)[0]) for key in keys}):
                for run in runs:
                    final = _final_metrics(run, split)
                    for key in (key for key in keys if key.startswith(f"{split}/")):
                        cell = condition, workload, run.optimizer, *key.split("/", 1), run.seed
                        rows.append((*cell, final.get(key, math.nan)))
    names = "condition workload optimizer split metric seed value"
    return pd.DataFrame(rows, columns=names.split())


def final_quality(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Mean and standard deviation over seeds of every final metric of every split.

    Both are taken over the trials with a finite final metric (sample deviation, NaN for one
    trial); ``runs`` counts all trials, so that ``finite < runs`` shows what the mean leaves out.

    Returns:
        Columns condition, workload, optimizer, split, metric, mean, std, runs, finite, diverged;
        one row for every metric of a workload and every optimizer of the condition, with or
        without runs, sorted.
    """
    rows = []
    for condition in CONDITIONS:
        here = [record for record in records if record.condition == condition]
        runs: defaultdict[tuple[str, str], list[RunRecord]] = defaultdict(list)
        for run in trials(here, condition=condition):
            runs[run.workload, run.optimizer].append(run)
        for workload in sorted({record.workload for record in here}):
            keys = _metric_keys([record for record in here if record.workload == workload])
            for optimizer in sorted({record.optimizer for record in here}):
                group = runs[workload, optimizer]
                for key in keys:
                    summary = _mean_and_std([final_value(run, key) for run in group])
                    lost = sum(map(diverged, group))
                    rows.append(
                        (condition, workload, optimizer, *key.split("/", 1), *summary, lost)
                    )
    names = "condition workload optimizer split metric mean std runs finite diverged"
    return pd.DataFrame(rows, columns=names.split())


def _by_workload(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    found: dict[str, list[RunRecord]] = {}
    for record in records:
        found.setdefault(record.workload, []).append(record)
    return found


def _rank(record: RunRecord) -> tuple[bool, bool, int, str]:
    ended = record.status == Status.FINISHED or diverged(record)
    return (ended, schema.SECONDS_SUSPECT not in record.tags, record.step, record.run_id)


def _metric_at(run: RunRecord, split: Split, at: float) -> float:
    """The run's metric at a share of its budget; NaN when it had ended early before that."""
    used = run.train_seconds if run.condition == Condition.TIME else float(run.step)
    ended_early = diverged(run) or run.status != Status.FINISHED
    if not run.budget > 0 or (ended_early and not used / run.budget >= at):
        return math.nan
    found = metric_values(run, f"{split}/{run.metric}")
    moments = found.seconds if run.condition == Condition.TIME else found.steps
    (before,) = np.nonzero(moments / run.budget <= at)
    return float(found.values[before[-1]]) if len(before) else math.nan


def _first_at(run: RunRecord, split: Split, unit: Unit, goals: Mapping[str, float]) -> float:
    found = metric_values(run, f"{split}/{run.metric}")
    times = found.seconds if unit == "seconds" else found.steps
    hit = first_hit(found.values, times, goals.get(run.workload, math.nan), run.direction)
    return math.inf if hit is None else hit[1]


def _mean_and_std(values: Sequence[float]) -> tuple[float, float, int, int]:
    """Mean and sample deviation of the finite values, how many there are, and how many finite."""
    finite = [value for value in values if math.isfinite(value)]
    mean = float(np.mean(finite)) if finite else math.nan
    std = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
    return mean, std, len(values), len(finite)


def _metric_keys(records: Iterable[RunRecord]) -> list[str]:
    """The metrics that any run has evaluated, in order of split, the deciding metric first."""
    keys: set[str] = set()
    deciding: set[str] = set()
    for record in records:
        deciding.add(record.metric)
        for row in record.evaluations:
            keys.update(row.metrics)
    splits: dict[str, int] = {split: place for place, split in enumerate(SPLITS)}

    def place(key: str) -> tuple[int, bool, str]:
        split, metric = key.split("/", 1)
        return splits[split], metric not in deciding, metric

    return sorted((key for key in keys if key.split("/", 1)[0] in SPLITS and "/" in key), key=place)


def _given(records: Iterable[RunRecord], split: Split, condition: Condition) -> dict[str, float]:
    """Targets in the tags of the runs, by workload."""
    found: dict[str, set[float]] = {}
    for record in records:
        text = record.tags.get(f"{schema.GIVEN_TARGET}{split}")
        if record.condition == condition and text is not None:
            found.setdefault(record.workload, set()).add(float(text))
    for workload, choices in found.items():
        if len(choices) > 1:
            listed = ", ".join(map(str, sorted(choices)))
            raise ValueError(f"{workload}: expected one {split} target, got {listed}")
    return {workload: choices.copy().pop() for workload, choices in found.items()}


def _directions(records: Iterable[RunRecord], condition: Condition) -> dict[str, Direction]:
    """The direction of each workload's metric, sorted by workload."""
    _check("condition", condition, CONDITIONS)
    found: dict[str, set[tuple[str, Direction]]] = {}
    for record in records:
        if record.condition == condition:
            found.setdefault(record.workload, set()).add((record.metric, record.direction))
    for workload, choices in found.items():
        if len(choices) > 1:
            listed = ", ".join(sorted(f"{d.value} {metric}" for metric, d in choices))
            raise ValueError(f"{workload}: expected runs with one deciding metric, got {listed}")
    return {workload: found[workload].copy().pop()[1] for workload in sorted(found)}


def _only_condition(records: Iterable[RunRecord]) -> Condition:
    found = sorted({record.condition for record in records})
    if len(found) > 1:
        raise ValueError(f"condition: the runs are of {' and '.join(found)}; choose one of them")
    return found[0] if found else CONDITIONS[0]


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
