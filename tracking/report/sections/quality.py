"""Final quality: metrics at the end of the budget, as mean and deviation over seeds.

Pure: from results to text, cells and numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from timetrial.framework.types import Direction
from timetrial.tracking.report.cells import (
    FEW,
    NOTHING,
    Cell,
    Table,
    below,
    coverage_text,
    decimals,
    fixed,
    header,
    interval_text,
    name_cell,
)
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text, headed
from timetrial.tracking.report.standings import CONTROL, SHOWN
from timetrial.tracking.report.style import metric_name
from timetrial.tracking.scores.targets import CONDITIONS
from timetrial.tracking.scores.uncertainty import ENOUGH_TRIALS


def section(results: Results) -> Section:
    """Final metrics, one table per condition and split."""
    interval = ""
    if not results.published:
        covered = coverage_text(results.quality["coverage"])
        interval = f", below it the t interval of the mean ({covered} for normal errors)"
    text = (
        f"Metrics at the end of the budget: mean ± standard deviation over seeds{interval}; "
        "the best in bold. A run that diverged or failed has no final value; an optimizer with "
        "such runs is marked and never bold."
    )
    return Section(
        name="quality",
        title="Final quality (appendices D and E)",
        menu="Final quality",
        blocks=[Text(text), *headed(quality_tables(results))],
        frames={"final_quality": results.quality},
    )


def quality_tables(results: Results) -> list[Table]:
    """Final metrics of every condition and split, as in the paper's appendices D and E."""
    tables = []
    for condition in CONDITIONS:
        for split in SHOWN:
            quality = results.quality
            rows = quality[(quality["condition"] == condition) & (quality["split"] == split)]
            if len(rows):
                title = f"{split}, {CONTROL[condition]}".capitalize()
                name = f"quality_{condition}_{split}"
                tables.append(quality_table(results, rows, name=name, title=title))
    return tables


def quality_table(
    results: Results,
    quality: pd.DataFrame,
    *,
    name: str,
    title: str,
    with_split: bool = False,
) -> Table:
    """Final metrics as mean ± std over seeds, of some rows of ``results.quality``.

    ``with_split`` writes the split before the metric, for rows of several splits.
    """
    keys = zip(quality["workload"], quality["split"], quality["metric"], strict=True)
    columns = sorted(dict.fromkeys(keys), key=lambda key: key[0])
    cells: dict[tuple[str, ...], Cell] = {}
    for column in columns:
        workload, split, metric = column
        rows = quality[
            (quality["workload"] == workload)
            & (quality["split"] == split)
            & (quality["metric"] == metric)
        ]
        cells |= _quality_column(rows, results.directions.get((workload, metric)))
    there = set(quality["optimizer"])
    body = [
        [name_cell(optimizer), *(cells.get((optimizer, *column), NOTHING) for column in columns)]
        for optimizer in results.optimizers
        if optimizer in there
    ]
    heads = [f"{split} " * with_split + metric_name(metric) for _, split, metric in columns]
    spans = list(Counter(workload for workload, *_ in columns).items())
    return Table(name, title, header("optimizer", *heads), body, spans)


def _quality_column(rows: pd.DataFrame, way: Direction | None) -> dict[tuple[str, ...], Cell]:
    digits = decimals(rows["mean"], 4)
    whole = rows.loc[(rows["finite"] == rows["runs"]) & (rows["runs"] > 0), "mean"]
    best = way.best(whole) if way is not None else math.nan
    ties = int((whole == best).sum())
    found = {}
    for row in rows.to_dict("records"):
        first = bool(row["finite"] == row["runs"] and row["mean"] == best)
        key = tuple(str(row[name]) for name in ("optimizer", "workload", "split", "metric"))
        found[key] = _mean_cell(
            {str(k): v for k, v in row.items()}, digits, best=first, tie=first and ties > 1
        )
    return found


def _mean_cell(row: Mapping[str, Any], digits: int, *, best: bool, tie: bool) -> Cell:
    runs, finite = int(row["runs"]), int(row["finite"])
    if runs == 0:
        return Cell("no run", kind="none")
    kept = f"{finite} of {runs} runs" if finite < runs else ""
    if finite == 0:
        return Cell("diverged" if row["diverged"] == runs else "no value", kind="bad")
    spread = "" if math.isnan(row["std"]) else f" ± {fixed(row['std'], digits)}"
    mark = FEW if finite < ENOUGH_TRIALS else ""
    sub = below("tie" if tie else "", interval_text(row["low"], row["high"], digits), kept)
    return Cell(f"{fixed(row['mean'], digits)}{spread}{mark}", sub, kind="best" if best else "")
