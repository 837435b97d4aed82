"""Times to target: median per optimizer and workload, targets, and the time of every trial.

Pure: from standings to text, cells and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Split
from timetrial.tracking.report.cells import (
    FEW,
    NOTHING,
    Cell,
    Table,
    amount,
    amounts,
    below,
    coverage_text,
    header,
    name_cell,
    plain,
)
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Block, Heading, Section, Text, captioned
from timetrial.tracking.report.standings import CONTROL, Standing, interval_ends
from timetrial.tracking.scores.targets import UNITS, trial_times

_PAPER: Final = {
    (Condition.TIME, Split.TRAIN): "Table 9",
    (Condition.TIME, Split.VALIDATION): "Table 10",
    (Condition.STEP, Split.TRAIN): "Table 11",
    (Condition.STEP, Split.VALIDATION): "Table 12",
}


def section(results: Results) -> Section:
    """Times to target, one table per condition and split."""
    interval = ""
    if not results.published:
        tables = [s.intervals.times for s in results.standings if s.intervals is not None]
        covered = coverage_text(value for table in tables for value in table["coverage"])
        interval = f" and the interval over seeds ({covered})"
    blocks: list[Block] = [
        Text(
            "Median over seeds of the first evaluation at or beyond the target; below it the "
            f"factor to the fastest optimizer{interval}. A seed that never reaches the target "
            "counts as infinite."
        )
    ]
    for condition in dict.fromkeys(standing.condition for standing in results.standings):
        here = [one for one in results.standings if one.condition == condition]
        blocks += [
            Heading(CONTROL[condition].capitalize()),
            *captioned(time_table(standing, results.optimizers) for standing in here),
        ]
    blocks += captioned([target_table(results.standings)])
    if not results.standings:
        blocks.append(Text("No run has evaluated its workload’s metric yet.", "bad"))
    return Section(
        name="times",
        title="Times to target (Tables 9–12)",
        menu="Times to target",
        blocks=blocks,
        frames={
            "targets": target_frame(results.standings),
            "time_to_target": time_frame(results.standings),
            "trial_times": trial_frame(results.records, results.standings),
        },
    )


def time_table(standing: Standing, optimizers: Sequence[str]) -> Table:
    """Median time to target with the factor to the fastest, optimizer by workload."""
    workloads = list(standing.times.columns)
    body = [[Cell("target", kind="target")]]
    body[0] += [Cell(plain(standing.targets.get(w, math.nan), 4), kind="target") for w in workloads]
    ends = interval_ends(standing, "times")
    for name in (name for name in optimizers if name in standing.times.index):
        cells = [name_cell(name)]
        for workload in workloads:
            time = float(standing.times.loc[name, workload])  # type: ignore[arg-type]
            ratios = standing.ratios[workload]
            interval = ends.get((name, workload), (math.nan, math.nan, False))
            tie = int((ratios == 1).sum()) > 1
            cells.append(_time(time, float(ratios[name]), standing.unit, interval, tie))
        body.append(cells)
    paper = _PAPER.get((standing.condition, standing.split))
    title = f"{standing.unit.capitalize()} to the {standing.split} target"
    title += f" ({paper})" if paper else ""
    name = f"times_{standing.condition}_{standing.split}"
    return Table(name, title, header("optimizer", *workloads), body)


def _time(time: float, ratio: float, unit: str, ends: tuple[float, float, bool], tie: bool) -> Cell:
    if math.isnan(time):
        return Cell("no run", kind="none")
    low, high, few = ends
    mark, interval = FEW if few else "", amounts(low, high, unit)
    if math.isinf(time):
        sub = "" if interval == "never" else interval
        return Cell(f"never{mark}", sub, kind="never")
    text = amount(time, unit)
    if ratio == 1:
        return Cell(text + mark, below("tie" if tie else "fastest", interval), kind="best")
    factor = f"{plain(ratio, 3)}×" if math.isfinite(ratio) else "fastest: 0"
    return Cell(text + mark, below(factor, interval))


def target_frame(standings: Sequence[Standing]) -> pd.DataFrame:
    """Columns condition, split, workload, target, set_by."""
    rows = [
        (s.condition, s.split, w, value, s.set_by.get(str(w), ""))
        for s in standings
        for w, value in s.targets.items()
    ]
    return pd.DataFrame(rows, columns=["condition", "split", "workload", "target", "set_by"])


def target_table(standings: Sequence[Standing]) -> Table:
    """Every target and the optimizers that set it; without rows where they are unknown."""
    body = [
        [
            name_cell(str(workload)),
            Cell(CONTROL[standing.condition]),
            Cell(str(standing.split)),
            Cell(plain(float(target), 4)),
            Cell(standing.set_by.get(str(workload)) or NOTHING.text),
        ]
        for standing in standings
        for workload, target in standing.targets.items()
        if standing.set_by
    ]
    head = header("workload", "control", "split", "target", "set by")
    return Table("target_setters", "Targets, and the optimizers that set them", head, body)


def time_frame(standings: Sequence[Standing]) -> pd.DataFrame:
    """Columns condition, split, optimizer, workload, value, unit, ratio: one row per cell.

    With single trials also low, high, coverage, trials and few.
    """
    tables = []
    for s in standings:
        rows = [
            (s.condition, s.split, name, w, s.times.loc[name, w], s.unit, s.ratios.loc[name, w])
            for name in s.times.index
            for w in s.times.columns
        ]
        names = ["condition", "split", "optimizer", "workload", "value", "unit", "ratio"]
        table = pd.DataFrame(rows, columns=names)
        if s.intervals is not None:
            keys = ["optimizer", "workload"]
            ends = s.intervals.times[[*keys, "low", "high", "coverage", "trials", "few"]]
            table = table.merge(ends, on=keys, how="left")
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["value"])


def trial_frame(records: Sequence[RunRecord], standings: Sequence[Standing]) -> pd.DataFrame:
    """Time to target of every single trial, in seconds and in steps."""
    tables = []
    for s in standings:
        for unit in UNITS.values():
            table = trial_times(records, s.targets, s.split, unit, condition=s.condition)
            table.insert(0, "condition", s.condition)
            table.insert(1, "split", s.split)
            tables.append(table.assign(unit=unit))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
