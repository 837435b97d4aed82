"""From recorded runs to targets and times to target.

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
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from timetrial.framework.budget import TARGET_SHARE
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction, Split, Status
from timetrial.tracking.record import schema
from timetrial.tracking.scores.evaluations import MetricValues, first_hit, metric_values
from timetrial.tracking.scores.evaluations import evaluations_of as evaluations_of
from timetrial.tracking.scores.machines import check_one_machine, suspect

if TYPE_CHECKING:  # importing pandas takes 0.2 s, and few commands make tables
    import pandas as pd

Unit = Literal["seconds", "steps"]

CONDITIONS: Final = (Condition.TIME, Condition.STEP)
"""Kinds of budget, in the order of the paper's tables."""

UNITS: Final[Mapping[str, Unit]] = {Condition.TIME: "seconds", Condition.STEP: "steps"}
"""What each condition measures a time to target in."""

SPLITS: Final = tuple(Split)


def diverged(record: RunRecord) -> bool:
    """True when the run was stopped because its loss was no longer finite."""
    return record.reason == "DIVERGED" or record.tags.get("diverged") == "true"


def ended_early(record: RunRecord) -> bool:
    """True for a run without a final value: it diverged, failed or was ended."""
    return diverged(record) or record.status != Status.FINISHED


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


def may_set_targets(record: RunRecord) -> bool:
    """True when a run's optimizer sets targets unless others are chosen.

    Baselines and VeLO do. Tuned optimizers, VeLO Short and fed VeLO do not, as in the paper's Table
    6; runs of version 0.1 tell by their names.
    """
    recorded = record.tags.get(schema.SETS_TARGETS)
    if recorded is not None:
        return recorded == "true"
    return base_name(record.optimizer) not in ("hpo", "velo_short", "velo_feed")


def base_name(label: str) -> str:
    """An optimizer's label without its variant: ``velo`` of ``velo[embedded]``."""
    return label.split("[")[0]


def targets(
    records: Sequence[RunRecord],
    *,
    split: Split,
    condition: Condition,
    at: float = TARGET_SHARE,
    setters: Collection[str] | None = None,
) -> pd.Series[float]:
    """The targets of ``target_table``: index workload (sorted), name ``target``."""
    table = target_table(records, split=split, condition=condition, at=at, setters=setters)
    return table["target"]


def target_table(
    records: Sequence[RunRecord],
    *,
    split: Split,
    condition: Condition,
    at: float = TARGET_SHARE,
    setters: Collection[str] | None = None,
) -> pd.DataFrame:
    """The value that the best optimizer has reached after a share of the budget, per workload.

    A run's value is its last evaluation at or before ``at`` of the budget, in the budget's unit.
    Runs that are evaluated there (``schema.EVALUATED_AT``) may be one update late: their nearest
    evaluation counts. An optimizer's value is the median over its trials, those without a finite
    value last. The target is the best setter's value, or that in the tags of the runs.

    Args:
        records: runs, in any order; other conditions are ignored.
        split: ``train``, ``validation`` or ``test``.
        condition: ``time`` or ``step``.
        at: share of the budget, in (0, 1]. AlgoPerf and the paper use 0.75.
        setters: labels of the optimizers that set targets, with or without variant; by default
            those of ``may_set_targets``, or all where a workload has none of these.

    Returns:
        Index workload (sorted); columns ``target``, NaN where no setter has a finite median, and
        ``set_by``: labels of the best setters, or the source of a given target.

    Raises:
        ValueError: unknown condition, ``at`` out of range, or the runs of a workload disagree on
            its metric, direction or given target.
    """
    import pandas as pd

    levels = optimizer_levels(records, split=split, condition=condition, at=at, setters=setters)
    directions = _directions(records, condition)
    given = given_targets(records, split, condition)
    rows = {}
    for workload, values in levels.items():
        medians = {label: float(np.median(seeds)) for label, seeds in values.items()}
        best = directions[workload].best(m for m in medians.values() if math.isfinite(m))
        set_by = ", ".join(sorted(label for label, value in medians.items() if value == best))
        rows[workload] = given.get(workload, (best, set_by))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["target", "set_by"])
    return table.astype({"target": float, "set_by": object}).rename_axis("workload")


def optimizer_levels(
    records: Sequence[RunRecord],
    *,
    split: Split,
    condition: Condition,
    at: float = TARGET_SHARE,
    setters: Collection[str] | None = None,
) -> dict[str, dict[str, list[float]]]:
    """By workload and setter, the value of each trial; arguments as for ``target_table``.

    A trial without a finite value is as bad as can be: inf where the metric is minimised, else
    -inf.
    """
    if not 0 < at <= 1:
        raise ValueError(f"at: expected a share of the budget in (0, 1], got {at}")
    runs = by_workload(trials(records, condition=condition))
    levels: dict[str, dict[str, list[float]]] = {}
    for workload, direction in _directions(records, condition).items():
        found = levels.setdefault(workload, {})
        for run in setting_runs(runs.get(workload, []), setters):
            value = value_at(run, metric_values(run, f"{split}/{run.metric}"), at)
            found.setdefault(run.optimizer, []).append(
                value if math.isfinite(value) else direction.worst
            )
    return levels


def setting_runs(runs: Sequence[RunRecord], setters: Collection[str] | None) -> Sequence[RunRecord]:
    """The runs of one workload that set its target; ``setters`` as for ``target_table``."""
    if setters is not None:
        return [run for run in runs if {run.optimizer, base_name(run.optimizer)} & {*setters}]
    return [run for run in runs if may_set_targets(run)] or runs


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
    import pandas as pd

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
    import pandas as pd

    condition = condition or _only_condition(records)
    if unit == "seconds" and not mixed_machines:
        check_one_machine(trials(records, condition=condition), beside=records)
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


def by_workload(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """The runs of each workload, in their order."""
    found: dict[str, list[RunRecord]] = {}
    for record in records:
        found.setdefault(record.workload, []).append(record)
    return found


def _rank(record: RunRecord) -> tuple[bool, bool, int, str]:
    ended = record.status == Status.FINISHED or diverged(record)
    return (ended, schema.SECONDS_SUSPECT not in record.tags, record.step, record.run_id)


def value_at(run: RunRecord, found: MetricValues, at: float) -> float:
    """One of the run's metrics at a share of its budget; NaN when it had ended early before."""
    used = run.train_seconds if run.condition == Condition.TIME else float(run.step)
    if not run.budget > 0 or (ended_early(run) and not used / run.budget >= at):
        return math.nan
    shares = (found.seconds if run.condition == Condition.TIME else found.steps) / run.budget
    if run.tags.get(schema.EVALUATED_AT) == str(at) and len(shares):
        return float(found.values[np.argmin(np.abs(shares - at))])
    (before,) = np.nonzero(shares <= at)
    return float(found.values[before[-1]]) if len(before) else math.nan


def _first_at(run: RunRecord, split: Split, unit: Unit, goals: Mapping[str, float]) -> float:
    found = metric_values(run, f"{split}/{run.metric}")
    times = found.seconds if unit == "seconds" else found.steps
    hit = first_hit(found.values, times, goals.get(run.workload, math.nan), run.direction)
    return math.inf if hit is None else hit[1]


def given_targets(
    records: Iterable[RunRecord], split: Split, condition: Condition
) -> dict[str, tuple[float, str]]:
    """Targets in the tags of the runs, each with its source, by workload.

    Raises:
        ValueError: the runs of a workload have different targets.
    """
    found: dict[str, dict[float, str]] = {}
    for record in records:
        text = record.tags.get(f"{schema.GIVEN_TARGET}{split}")
        if record.condition == condition and text is not None:
            source = record.tags.get(schema.TARGET_SOURCE, "given")
            found.setdefault(record.workload, {})[float(text)] = source
    for workload, choices in found.items():
        if len(choices) > 1:
            listed = ", ".join(map(str, sorted(choices)))
            raise ValueError(f"{workload}: expected one {split} target, got {listed}")
    return {workload: next(iter(choices.items())) for workload, choices in found.items()}


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
