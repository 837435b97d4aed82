"""Measures without a floor, beside the score of the performance profile.

Pure: from results to text and cells; the numbers come from ``tracking.scores.aggregates``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from timetrial.tracking.report.cells import (
    FEW,
    NOTHING,
    Cell,
    Table,
    below,
    coverage_text,
    header,
    interval_text,
    name_cell,
)
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text, captioned
from timetrial.tracking.report.standings import CONTROL, Standing, headlines
from timetrial.tracking.scores.aggregates import aggregates

MEASURES: Final = {
    "normalised_final": "final metric, normalised (IQM) ↓",
    "optimality_gap": "optimality gap ↓",
    "speedup": "speed-up to the common level ↑",
    "curve_area": "area under the curve ↓",
}
"""Headings of the measures; the arrow points to better values."""

_TEXT: Final = (
    "An optimizer that reaches no target scores 0, however close it comes. These measures tell "
    "such optimizers apart. Normalised values are 1 for the untrained model and 0 for the best run "
    "of the workload. The optimality gap is the share of the way to the target that is left at the "
    "end. The speed-up is against the geometric mean of all optimizers, to the best level that "
    "nearly all of them reach. Diverged and failed runs count as the worst possible."
)


def section(results: Results) -> Section | None:
    """One table per condition; none without recorded runs."""
    heads = headlines(results.standings)
    if not results.records or not heads:
        return None
    frames = {head.condition: _frame(results, head) for head in heads}
    tables = [_table(results, head, frames[head.condition]) for head in heads]
    covered = coverage_text(value for frame in frames.values() for value in frame["coverage"])
    return Section(
        name="aggregates",
        title="Measures without a floor",
        menu="Without a floor",
        blocks=[Text(f"{_TEXT} Intervals: {covered}."), *captioned(tables)],
        frames={"aggregates": pd.concat(frames.values(), ignore_index=True)},
    )


def _frame(results: Results, head: Standing) -> pd.DataFrame:
    table = aggregates(
        results.records,
        split=head.split,
        condition=head.condition,
        targets=head.targets,
        options=results.options.bootstrap,
    )
    table.insert(0, "condition", head.condition)
    table.insert(1, "split", head.split)
    return table


def _table(results: Results, head: Standing, frame: pd.DataFrame) -> Table:
    rows = {(str(r["optimizer"]), str(r["measure"])): r for r in frame.to_dict("records")}
    body = [
        [name_cell(name), *(_cell(rows.get((name, measure))) for measure in MEASURES)]
        for name in results.optimizers
        if (name, "curve_area") in rows
    ]
    title = f"{CONTROL[head.condition]}, {head.split}".capitalize()
    return Table(
        f"aggregates_{head.condition}", title, header("optimizer", *MEASURES.values()), body
    )


def _cell(row: Mapping[Any, Any] | None) -> Cell:
    if row is None or math.isnan(row["estimate"]):
        return NOTHING
    first = int(row["rank"]) == 1
    mark = FEW if row["few"] else ""
    sub = below("tie" if row["tie"] else "", interval_text(row["low"], row["high"], 2))
    return Cell(f"{row['estimate']:.2f}{mark}", sub, kind="best" if first else "")
