"""A race beside the paper, on the workloads that they share.

Pure: from results to text and cells; the optimizers are matched by name without variant.
"""

from __future__ import annotations

import math

import pandas as pd

from timetrial.framework.types import Condition, Split
from timetrial.tracking.report.cells import (
    NOTHING,
    Cell,
    Table,
    amount,
    fixed,
    header,
    name_cell,
    plain,
)
from timetrial.tracking.report.paper import paper_quality, paper_times
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text, captioned
from timetrial.tracking.report.standings import CONTROL, SHOWN, Standing
from timetrial.tracking.report.style import metric_name
from timetrial.tracking.scores.fixed_targets import paper_targets
from timetrial.tracking.scores.targets import CONDITIONS


def section(results: Results) -> Section | None:
    """Times and final quality here and in the paper; None without a shared workload."""
    tables = side_by_side(results)
    if not tables:
        return None
    text = (
        "This race and the paper on the workloads that they share. The paper’s seconds were "
        "measured on one or two A100 GPUs; its targets are its own."
    )
    return Section(
        name="beside",
        title="Beside the paper",
        menu="Beside the paper",
        blocks=[Text(text), *captioned(tables)],
    )


def side_by_side(results: Results) -> list[Table]:
    """Tables of this race beside the paper; empty without a shared workload."""
    if results.published:
        return []
    times = [table for standing in results.standings if (table := _times_beside(standing, results))]
    final = [table for condition in CONDITIONS if (table := _quality_beside(results, condition))]
    return [*times, *final]


def _times_beside(standing: Standing, results: Results) -> Table | None:
    if standing.split not in (Split.TRAIN, Split.VALIDATION):
        return None
    theirs = paper_times(standing.condition, standing.split)
    shared = [w for w in standing.times.columns if w in theirs]
    if not shared:
        return None
    goals = paper_targets(standing.condition, standing.split)
    body = [[Cell("target", kind="target")]]
    for w in shared:
        body[0] += [
            Cell(plain(float(g), 4), kind="target") for g in (standing.targets[w], goals[w])
        ]
    for name in (n for n in results.optimizers if n in standing.times.index):
        cells = [name_cell(name)]
        for w in shared:
            twin = results.entrants[name].name
            here = float(standing.times.loc[name, w])  # type: ignore[arg-type]
            there = float(theirs.loc[twin, w]) if twin in theirs.index else math.nan  # type: ignore[arg-type]
            cells += [_when(time, standing.unit) for time in (here, there)]
        body.append(cells)
    unit = standing.unit.capitalize()
    return Table(
        f"paper_times_{standing.condition}_{standing.split}",
        f"{unit} to the {standing.split} target",
        header("optimizer", *["here", "paper"] * len(shared)),
        body,
        [(w, 2) for w in shared],
    )


def _quality_beside(results: Results, condition: Condition) -> Table | None:
    theirs = paper_quality()
    shared = sorted(set(results.metrics) & set(theirs["workload"]))
    columns = [(w, split) for w in shared for split in SHOWN if split != Split.TEST]
    if not shared or not (results.quality["condition"] == condition).any():
        return None
    body = []
    for name in results.optimizers:
        cells = [name_cell(name)]
        for w, split in columns:
            metric = results.metrics[w]
            for table, one in ((results.quality, name), (theirs, results.entrants[name].name)):
                cells.append(_mean(table, (condition, w, one, split, metric)))
        body.append(cells)
    return Table(
        f"paper_quality_{condition}",
        f"Final quality, {CONTROL[condition]}",
        header("optimizer", *["here", "paper"] * len(columns)),
        body,
        [(f"{w}: {split} {metric_name(results.metrics[w])}", 2) for w, split in columns],
    )


def _mean(table: pd.DataFrame, key: tuple[str, ...]) -> Cell:
    chosen = pd.Series(True, table.index)
    for column, value in zip(
        ("condition", "workload", "optimizer", "split", "metric"), key, strict=True
    ):
        chosen &= table[column] == value
    row = next(iter(table[chosen].to_dict("records")), None)
    if row is None or math.isnan(row["mean"]):
        return NOTHING
    spread = "" if math.isnan(row["std"]) else f" ± {fixed(row['std'], 4)}"
    return Cell(f"{fixed(row['mean'], 4)}{spread}")


def _when(time: float, unit: str) -> Cell:
    if math.isnan(time):
        return NOTHING
    return Cell(amount(time, unit), kind="never" if math.isinf(time) else "")
