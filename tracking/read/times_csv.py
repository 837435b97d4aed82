"""Reads tables of times to target as runs.

Boundary: reads one CSV file, in one of two forms:

- Columns ``optimizer``, ``workload``, ``value`` (seconds or updates; ``inf`` or empty: never
  reached); optional ``condition`` (``time``, the default, or ``step``), ``split`` (default
  ``validation``), ``seed``, ``unit``. The paper's Tables 9-12 have this form.
- Column ``submission`` or ``optimizer`` and one column of seconds per workload (empty: no run).
  AlgoPerf's scorer writes this form, time_to_targets.csv; a column ``score`` is ignored.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

import pandas as pd

from timetrial.framework.errors import UserError
from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction, Split, Status
from timetrial.tracking.read.sources import Problem, Source
from timetrial.tracking.record import schema
from timetrial.tracking.record.tables import MAX_ROWS, read_table

METRIC: Final = "reached"
"""Deciding metric of records from times: 1 from the time to target on, 0 before."""

TARGET: Final = 1.0
"""Target of ``METRIC``."""

_COLUMNS: Final = ("condition", "split", "workload", "optimizer", "seed", "value")
_MOST_STEPS: Final = 2**53
_Row = tuple[str, str, str, str, int, float]
_UNITS: Final = {
    "s": Condition.TIME,
    "seconds": Condition.TIME,
    "steps": Condition.STEP,
    "updates": Condition.STEP,
}


def read_times(path: Path | IO[str]) -> tuple[pd.DataFrame, list[Problem]]:
    """The rows of a file: columns condition, split, workload, optimizer, seed, value.

    Without a seed, rows of a cell are trials, numbered in order of the file. Unreadable rows are
    skipped and listed as problems. ``value`` is inf when the target is never reached.

    Raises:
        UserError: the file is missing, is not a table, lacks a column, or has another checksum than
            its bytes.
    """
    table = _long(read_table(path, f"times {path}", dtype=str).fillna(""))  # of a short line
    missing = [name for name in ("optimizer", "workload", "value") if name not in table]
    if missing:
        raise UserError(
            f"times {path}: expected columns optimizer, workload, value[, condition, split, seed], "
            "or submission and one column per workload, got "
            f"{', '.join(map(str, table.columns))}"
        )
    if len(table) > MAX_ROWS:
        raise UserError(f"times {path}: expected at most {MAX_ROWS:,} times, got {len(table):,}")
    table = table[[name for name in (*_COLUMNS, "unit") if name in table]]
    rows: list[_Row] = []
    problems: list[Problem] = []
    cells_seen: Counter[tuple[str, ...]] = Counter()
    seen: set[tuple[object, ...]] = set()
    for index, cells in zip(table.index, table.to_dict("records"), strict=True):
        try:
            row = _row({str(k): str(v).strip() for k, v in cells.items()}, cells_seen)
            if row[:5] in seen:
                raise ValueError(f"seed {row[4]} occurs twice")
        except ValueError as error:
            problems.append(Problem(f"line {index + 2}", str(error), lost=True))
            continue
        seen.add(row[:5])
        cells_seen[row[:4]] += 1
        rows.append(row)
    return pd.DataFrame(rows, columns=list(_COLUMNS)), problems


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """A table with one column per workload as one row per time; other tables unchanged.

    The index keeps the number of the line. Empty cells have no row.
    """
    names = [name for name in ("submission", "optimizer") if name in table]
    workloads = [name for name in table if name not in (*names, "score")]
    if not names or not workloads or {"workload", "value"} & set(table):
        return table
    long = (
        table.drop(columns=names[1:])
        .rename(columns={names[0]: "optimizer"})
        .melt("optimizer", workloads, var_name="workload", ignore_index=False)
    )
    return long[long["value"].str.strip() != ""].sort_index(kind="stable")


def _row(cells: dict[str, str], before: Mapping[tuple[str, ...], int]) -> _Row:
    condition = cells.get("condition") or _UNITS.get(cells.get("unit", ""), Condition.TIME)
    split = cells.get("split") or Split.VALIDATION
    for name, given, allowed in (
        ("condition", condition, tuple(Condition)),
        ("split", split, tuple(Split)),
    ):
        if given not in allowed:
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {given!r}")
    if not cells["optimizer"] or not cells["workload"]:
        raise ValueError("expected an optimizer and a workload")
    value = math.inf if cells["value"] == "" else float(cells["value"])
    if value < 0:
        raise ValueError(f"value: expected a time >= 0, inf or nothing, got {cells['value']}")
    if condition == Condition.STEP and _MOST_STEPS < value < math.inf:
        raise ValueError(f"value: expected at most {_MOST_STEPS} updates, got {value:g}")
    cell = condition, split, cells["workload"], cells["optimizer"]
    seed = cells.get("seed", "")
    number = int(seed) if seed else before.get(cell, 0)
    if not 0 <= number < 2**32:
        raise ValueError(f"seed: expected a whole number in [0, 2**32), got {seed[:40]}")
    return (*cell, number, math.inf if math.isnan(value) else value)


def records_from_times(path: Path | IO[str]) -> Source:
    """The rows of a file as runs with the metric ``reached`` only.

    The metric is 0 before the time to target and 1 from then on; the tags give ``TARGET`` as the
    target of each split. The budget is unknown (nan), so these runs establish no other target. Rows
    with a fractional number of updates (a median of two) are skipped and listed as problems.
    """
    rows, problems = read_times(path)
    cells: dict[tuple[Condition, str, str, int], dict[str, float]] = {}
    for condition, split, workload, optimizer, seed, value in rows.itertuples(index=False):
        if condition == Condition.STEP and math.isfinite(value) and not float(value).is_integer():
            run = f"{optimizer} on {workload}, seed {seed}"
            problems.append(Problem(run, f"{value:g} is not a whole number of updates", lost=True))
            continue
        cells.setdefault((Condition(condition), workload, optimizer, seed), {})[split] = value
    return Source([_record(path, *cell, found) for cell, found in sorted(cells.items())], problems)


def as_times(record: RunRecord, times: Mapping[str, float]) -> RunRecord:
    """The run with the metric ``reached`` only, from its times to target by split."""
    steps = record.condition == Condition.STEP
    moments = sorted({0.0, *(time for time in times.values() if math.isfinite(time))})
    evaluations = [
        Row(
            step=int(moment) if steps else place,
            train_seconds=math.nan if steps else moment,
            metrics={f"{split}/{METRIC}": float(time <= moment) for split, time in times.items()},
        )
        for place, moment in enumerate(moments)
    ]
    return dataclasses.replace(
        record,
        metric=METRIC,
        direction=Direction.MAXIMIZE,
        step=evaluations[-1].step,
        train_seconds=evaluations[-1].train_seconds,
        evaluations=evaluations,
        tags={**record.tags, **{f"{schema.GIVEN_TARGET}{split}": repr(TARGET) for split in times}},
    )


def _record(
    path: Path | IO[str],
    condition: Condition,
    workload: str,
    optimizer: str,
    seed: int,
    found: dict[str, float],
) -> RunRecord:
    run_id = f"{condition}/{workload}/{optimizer}/{seed}"
    run = RunRecord(
        run_id=run_id,
        workload=workload,
        optimizer=optimizer,
        seed=seed,
        condition=condition,
        budget=math.nan,
        metric=METRIC,
        direction=Direction.MAXIMIZE,
        status=Status.FINISHED,
        reason="",
        step=0,
        train_seconds=0.0,
        evaluations=(),
        tags={"path": f"{path}:{run_id}"},
    )
    return as_times(run, found)
