"""The report's tables as formatted cells: what a reader sees, best in bold.

Pure: from recorded runs and standings to cells; no HTML and no I/O. Raw numbers: ``frames``.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import pandas as pd

from framework.types import Direction, RunRecord
from tracking.report.frames import config_hash, settings_frame
from tracking.report.standings import Row, Standing, headline
from tracking.report.style import metric_label
from tracking.targets import CONDITIONS, final_value

CONTROL: Final = {"time": "time control", "step": "step control"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell: its text, a smaller second text, and how it is set.

    Attributes:
        text: what is shown.
        sub: smaller text behind or below it.
        kind: classes of the page's style sheet: ``best``, ``never``, ``none``, ``bad``, ``lost``,
            ``label``, ``target``, ``text``, ``code`` or none.
    """

    text: str
    sub: str = ""
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table to show: title, header and rows of cells; column 0 holds labels.

    ``spans`` are headings over several columns, as (heading, number of columns), left to right
    from column 1 on.
    """

    title: str
    header: Sequence[Cell]
    body: Sequence[Sequence[Cell]]
    spans: Sequence[tuple[str, int]] = ()


def order(standings: Sequence[Standing], optimizers: Iterable[str]) -> list[str]:
    """Optimizers from the best to the last, by the headline scores of all conditions."""
    heads = [headline(standings, condition) for condition in CONDITIONS]
    total = {
        name: sum(head.scores.get(name, 0.0) for head in heads if head is not None)
        for name in optimizers
    }
    return sorted(total, key=lambda name: (-total[name], name))


def score_table(standings: Sequence[Standing], optimizers: Sequence[str]) -> Table:
    """Scores as in the paper's Table 3: one column per condition and split."""
    header = [Cell("optimizer")] + [Cell(standing.split) for standing in standings]
    spans = list(Counter(CONTROL[standing.condition] for standing in standings).items())
    body = []
    for name in optimizers:
        cells = [Cell(name, kind="label")]
        for standing in standings:
            value = float(standing.scores.get(name, math.nan))
            lost = standing.times.loc[name].isna().sum() if name in standing.times.index else 0
            best = value == standing.scores.max() and value > 0
            missing = f"{lost} of {standing.times.shape[1]} without run" if lost else ""
            cells.append(_number(value, 2, best=best, sub=missing))
        body.append(cells)
    return Table("Scores", header, body, spans)


def time_table(standing: Standing, optimizers: Sequence[str]) -> Table:
    """Median time to target and, smaller, how many times that of the fastest it is."""
    workloads = list(standing.times.columns)
    header = [Cell("optimizer")] + [Cell(workload) for workload in workloads]
    body = [[Cell("target", kind="target")]]
    body[0] += [Cell(_plain(standing.targets[w], 4), kind="target") for w in workloads]
    for name in (name for name in optimizers if name in standing.times.index):
        cells = [Cell(name, kind="label")]
        for workload in workloads:
            time = float(standing.times.loc[name, workload])  # type: ignore[arg-type]
            ratio = float(standing.ratios.loc[name, workload])  # type: ignore[arg-type]
            cells.append(_time(time, ratio, standing.unit))
        body.append(cells)
    title = f"{'Seconds' if standing.unit == 'seconds' else 'Steps'} to the {standing.split} target"
    return Table(title, header, body)


def quality_table(
    quality: pd.DataFrame,
    optimizers: Sequence[str],
    ways: Mapping[tuple[str, str], Direction],
    *,
    title: str,
) -> Table:
    """Final metrics as mean ± std over seeds, for the rows of one condition and split."""
    columns = list(dict.fromkeys(zip(quality["workload"], quality["metric"], strict=True)))
    header = [Cell("optimizer")] + [Cell(metric_label(metric)) for _, metric in columns]
    spans = list(Counter(workload for workload, _ in columns).items())
    cells: dict[tuple[str, str, str], Cell] = {}
    for workload, metric in columns:
        rows = quality[(quality["workload"] == workload) & (quality["metric"] == metric)]
        digits = _decimals(rows["mean"], 4)
        whole = rows.loc[(rows["finite"] == rows["runs"]) & (rows["runs"] > 0), "mean"]
        way = ways.get((workload, metric))
        best = way.best(whole) if way is not None else math.nan
        for row in rows.itertuples(index=False):
            sound = row.finite == row.runs
            cells[row.optimizer, workload, metric] = _mean_cell(
                row, digits, best=bool(sound and row.mean == best)
            )
    there = set(quality["optimizer"])
    body = [
        [Cell(name, kind="label"), *(cells[name, w, metric] for w, metric in columns)]
        for name in optimizers
        if name in there
    ]
    return Table(title, header, body, spans)


def run_table(rows: Sequence[Row], *, title: str) -> Table:
    """One row per run, whatever became of it."""
    names = (
        "optimizer, workload, control, seed, outcome, stop reason, steps, charged s, "
        "final metric, counts, config"
    )
    body = []
    for row in rows:
        run = row.record
        value = (
            math.nan if run is None else final_value(run, f"{_deciding_split(run)}/{run.metric}")
        )
        good = row.outcome == "finished"
        body.append(
            [
                Cell(row.optimizer, kind="label"),
                Cell(row.workload),
                Cell(row.condition),
                Cell(str(row.seed)),
                Cell(row.outcome, kind="" if good else "bad"),
                Cell("" if run is None else run.reason.lower()),
                Cell("" if run is None else f"{run.step:,}"),
                Cell("" if run is None else _plain(run.train_seconds, 4)),
                Cell("–" if math.isnan(value) else _plain(value, 4), kind=""),
                Cell("yes" if row.counted else "no", kind="" if row.counted else "bad"),
                Cell("" if run is None else config_hash(run)[:8], kind="code"),
            ]
        )
    return Table(title, [Cell(name) for name in names.split(", ")], body)


def settings_table(records: Sequence[RunRecord]) -> Table:
    """What was recorded about machine, versions and code, with the number of runs for each."""
    body = []
    for key, group in settings_frame(records).groupby("setting", sort=True):
        values = list(zip(group["value"], group["runs"], strict=True))
        if len(values) == 1 and values[0][1] == len(records):
            text = values[0][0]
        else:
            text = "; ".join(f"{value} ({count} runs)" for value, count in values[:6])
            text += f"; {len(values) - 6} more" if len(values) > 6 else ""
        body.append([Cell(str(key), kind="label"), Cell(text, kind="text")])
    return Table("Hardware and versions", [Cell("recorded"), Cell("value")], body)


def _deciding_split(run: RunRecord) -> str:
    for split in ("validation", "test", "train"):
        if any(f"{split}/{run.metric}" in row.metrics for row in run.evaluations):
            return split
    return "validation"


def _number(value: float, digits: int, *, best: bool = False, sub: str = "") -> Cell:
    if math.isnan(value):
        return Cell("–", sub, kind="none")
    return Cell(f"{value:.{digits}f}", sub, kind="best" if best else "")


def _time(time: float, ratio: float, unit: str) -> Cell:
    if math.isnan(time):
        return Cell("no run", kind="none")
    if math.isinf(time):
        return Cell("never", kind="never")
    text = f"{time:,.0f}" if unit == "steps" and time == round(time) else _plain(time, 3)
    if ratio == 1:
        return Cell(text, "fastest", kind="best")
    return Cell(text, f"{_plain(ratio, 3)}×" if math.isfinite(ratio) else "fastest: 0")


def _mean_cell(row: object, digits: int, *, best: bool) -> Cell:
    mean, std, runs, finite, lost = (
        getattr(row, name) for name in ("mean", "std", "runs", "finite", "diverged")
    )
    if runs == 0:
        return Cell("no run", kind="none")
    kept = f"{finite} of {runs} runs" if finite < runs else ""
    if finite == 0:
        return Cell("diverged" if lost == runs else "no value", kind="bad")
    spread = "" if math.isnan(std) else f" ± {_fixed(std, digits)}"
    return Cell(f"{_fixed(mean, digits)}{spread}", kept, kind="best" if best else "lost")


def _decimals(values: pd.Series[float], significant: int) -> int:
    """Decimals that show a typical value of a column with some significant digits."""
    typical = values.abs().replace([0.0, math.inf], math.nan).median()
    if math.isnan(typical):
        return significant
    return min(max(significant - 1 - math.floor(math.log10(typical)), 0), 6)


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"


def _plain(value: float, significant: int) -> str:
    """A number with some significant digits, never in powers of ten below a million."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞"
    if value == 0:
        return "0"
    digits = min(max(significant - 1 - math.floor(math.log10(abs(value))), 0), 6)
    return f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.{significant}g}"
