"""The report's tables of results as formatted cells: scores, times to target, final quality.

Pure: from results to cells; no HTML and no I/O. Raw numbers: ``frames``. Best in bold.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.report.cells import (
    FEW,
    Cell,
    Table,
    below,
    decimals,
    fixed,
    header,
    label,
    plain,
    score_cell,
    span,
)
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import CONTROL, SHOWN, Standing
from timetrial.tracking.report.style import metric_label
from timetrial.tracking.scores.targets import CONDITIONS
from timetrial.tracking.scores.uncertainty import ENOUGH_TRIALS

_PAPER_TIMES: Final = {
    (Condition.TIME, Split.TRAIN): "Table 9",
    (Condition.TIME, Split.VALIDATION): "Table 10",
    (Condition.STEP, Split.TRAIN): "Table 11",
    (Condition.STEP, Split.VALIDATION): "Table 12",
}
SAME: Final = 1e-12
"""Scores that differ by less are equal but for the order of a sum."""


def score_table(results: Results) -> Table:
    """Scores as in the paper's Table 3: one column per condition and split."""
    found = results.standings
    spans = list(Counter(CONTROL[standing.condition] for standing in found).items())
    columns = [_score_cells(standing) for standing in found]
    none = Cell("–", kind="none")
    body = [
        [label(name), *(column.get(name, none) for column in columns)]
        for name in results.optimizers
    ]
    head = header("optimizer", *(standing.split for standing in found))
    return Table("scores", "Scores (Table 3)", head, body, spans)


def _score_cells(standing: Standing) -> dict[str, Cell]:
    best = float(standing.scores.max())
    ties = int((standing.scores > best - SAME).sum())
    ends = _ends(standing, "scores")
    cells = {}
    for key, value in standing.scores.items():
        name = str(key)
        lost = int(standing.times.loc[name].isna().to_numpy().sum())
        first = value > best - SAME and value > 0
        low, high, few = ends.get((name,), (math.nan, math.nan, False))
        missing = f"{lost} of {standing.times.shape[1]} without run" if lost else ""
        more = below("tie" if first and ties > 1 else "", missing)
        cells[name] = score_cell(
            float(value), best=first, interval=span(low, high, 2), more=more, few=few and not lost
        )
    return cells


def _ends(standing: Standing, what: str) -> dict[tuple[str, ...], tuple[float, float, bool]]:
    """Low, high and few of ``scores`` or ``times``, by the labels of a row."""
    if standing.intervals is None:
        return {}
    table: pd.DataFrame = getattr(standing.intervals, what)
    keys = [name for name in ("optimizer", "workload") if name in table]
    return {
        tuple(row[: len(keys)]): (float(row[-3]), float(row[-2]), bool(row[-1]))
        for row in table[[*keys, "low", "high", "few"]].itertuples(index=False, name=None)
    }


def time_table(standing: Standing, optimizers: Sequence[str], *, title: str = "") -> Table:
    """Median time to target and, smaller, how many times that of the fastest it is."""
    workloads = list(standing.times.columns)
    body = [[Cell("target", kind="target")]]
    body[0] += [Cell(plain(standing.targets.get(w, math.nan), 4), kind="target") for w in workloads]
    ends = _ends(standing, "times")
    for name in (name for name in optimizers if name in standing.times.index):
        cells = [label(name)]
        for workload in workloads:
            time = float(standing.times.loc[name, workload])  # type: ignore[arg-type]
            ratios = standing.ratios[workload]
            interval = ends.get((name, workload), (math.nan, math.nan, False))
            tie = int((ratios == 1).sum()) > 1
            cells.append(_time(time, float(ratios[name]), standing.unit, interval, tie))
        body.append(cells)
    paper = _PAPER_TIMES.get((standing.condition, standing.split))
    unit = "Seconds" if standing.unit == "seconds" else "Steps"
    words = f"{unit} to the {standing.split} target" + (f" ({paper})" if paper else "")
    name = f"times_{standing.condition}_{standing.split}"
    return Table(name, title or words, header("optimizer", *workloads), body)


def _time(time: float, ratio: float, unit: str, ends: tuple[float, float, bool], tie: bool) -> Cell:
    if math.isnan(time):
        return Cell("no run", kind="none")
    low, high, few = ends
    mark, interval = FEW if few else "", span(low, high)
    if math.isinf(time):
        sub = "" if interval == "never" else interval
        return Cell(f"never{mark}", sub, kind="never")
    text = f"{time:,.0f}" if unit == "steps" and time == round(time) else plain(time, 3)
    if ratio == 1:
        return Cell(text + mark, below("tie" if tie else "fastest", interval), kind="best")
    factor = f"{plain(ratio, 3)}×" if math.isfinite(ratio) else "fastest: 0"
    return Cell(text + mark, below(factor, interval))


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
    none = Cell("–", kind="none")
    body = [
        [label(optimizer), *(cells.get((optimizer, *column), none) for column in columns)]
        for optimizer in results.optimizers
        if optimizer in there
    ]
    heads = [f"{split} " * with_split + metric_label(metric) for _, split, metric in columns]
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
    sub = below("tie" if tie else "", span(row["low"], row["high"], digits), kept)
    return Cell(f"{fixed(row['mean'], digits)}{spread}{mark}", sub, kind="best" if best else "")
