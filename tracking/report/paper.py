"""The paper's own tables as results, and beside those of a race on the paper's workloads.

Boundary: reads the CSV files in ``tracking/paper``.

Source: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191, licence CC BY 4.0 (Tables 2, 3, 6, 9-12, appendices D and E).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import resources
from typing import Final

import pandas as pd

from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.report.cells import Cell, Table, fixed, header, label, plain
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import (
    CONTROL,
    SHOWN,
    Standing,
    order,
    r_max_by_condition,
    standing_of,
)
from timetrial.tracking.report.style import family, metric_label
from timetrial.tracking.scores.fixed_targets import paper_targets
from timetrial.tracking.scores.targets import CONDITIONS

TOLERANCE: Final = 0.015
"""A printed score agrees with a computed one within this."""

_METRICS: Final = {"mAP": "mean_average_precision"}
_PER_CENT: Final = ("accuracy", "ssim", "mean_average_precision")
_TRIALS: Final = 3
_LOSS: Final = {"ce_loss": "loss"}  # Criteo's deciding metric is its loss


def published(r_max: float | Mapping[str, float] | None = None) -> Results:
    """The paper's results: times of Tables 9-12, final quality of appendices D and E."""
    limits = r_max_by_condition(r_max)
    found = [
        standing_of(
            paper_times(condition, split),
            paper_targets(condition, split),
            condition=condition,
            split=split,
            r_max=limits[condition],
        )
        for condition in CONDITIONS
        for split in (Split.VALIDATION, Split.TRAIN)
    ]
    deciding = _read("targets.csv").set_index("workload")["metric"].to_dict()
    metrics = {str(w): _LOSS.get(metric, metric) for w, metric in sorted(deciding.items())}
    quality = paper_quality()
    keys = quality[["workload", "metric"]].drop_duplicates().itertuples(index=False, name=None)
    return Results(
        records=[],
        standings=found,
        quality=quality,
        improvement=pd.DataFrame(),
        metrics=metrics,
        directions={
            (w, m): Direction.MINIMIZE if m == "loss" else Direction.MAXIMIZE for w, m in keys
        },
        optimizers=order(found, [*found[0].times.index, *quality["optimizer"]]),
        published=True,
    )


def paper_times(condition: Condition, split: Split) -> pd.DataFrame:
    """Tables 9-12: median time to target, index optimizer, columns workload."""
    rows = _read("time_to_target.csv")
    here = rows[(rows["condition"] == condition) & (rows["split"] == split)]
    return here.pivot(index="optimizer", columns="workload", values="value")


def paper_quality() -> pd.DataFrame:
    """Appendices D and E with the columns of ``Results.quality``; shares in [0, 1]."""
    table = _read("final_quality.csv").replace({"metric": _METRICS})
    per_cent = table["metric"].isin(_PER_CENT)
    for column in ("mean", "std"):
        table[column] = table[column].where(~per_cent, table[column] / 100)
    table = table.assign(runs=_TRIALS, finite=_TRIALS, diverged=0, low=math.nan, high=math.nan)
    return table.sort_values(["condition", "workload", "optimizer", "split", "metric"])


def reproduction(results: Results) -> tuple[Table, list[str]]:
    """Table 3 as printed beside the scores that follow from Tables 9-12, and where they differ."""
    printed = _read("scores.csv").set_index(["condition", "split", "optimizer"])["score"]
    names = [name for name in results.optimizers if name in results.standings[0].scores.index]
    body, off = [], []
    for name in names:
        cells = [label(name)]
        for standing in results.standings:
            here = float(standing.scores[name])
            there = float(printed[standing.condition, standing.split, name])
            differs = abs(here - there) > TOLERANCE
            cells += [Cell(f"{there:.2f}"), Cell(f"{here:.2f}", kind="bad" if differs else "")]
            if differs:
                off.append(f"{name}, {CONTROL[standing.condition]}, {standing.split} "
                           f"({there:.2f} printed, {here:.2f} computed)")  # fmt: skip
        body.append(cells)
    head = ["optimizer", *["printed", "computed"] * len(results.standings)]
    spans = [(f"{s.split}, {CONTROL[s.condition]}", 2) for s in results.standings]
    table = Table("reproduction", "Table 3, as printed and as computed", header(*head), body, spans)
    return table, _remarks(results, len(names) * len(results.standings), off)


def _remarks(results: Results, number: int, off: list[str]) -> list[str]:
    limits = ", ".join(
        f"{value:g} under {CONTROL[condition]}"
        for condition, value in {s.condition: s.r_max for s in results.standings}.items()
    )
    lines = [
        f"The paper does not print r_max. With r_max = {limits}, {number - len(off)} of "
        f"{number} printed scores follow from Tables 9–12 to within {TOLERANCE}"
        + (f"; all but {'; '.join(off)}." if off else ".")
    ]
    if len(off) == 1 and off[0].startswith("velo_short, step control, train"):
        lines.append(
            "This is a known inconsistency of the paper, not of the computation: no r_max explains "
            "the printed 0.03 together with its column. It would follow if Table 11’s 4,057 steps "
            "of VeLO Short on Criteo were a misprint of 5,057."
        )
    return lines


def side_by_side(results: Results) -> list[Table]:
    """This race beside the paper, on the workloads that are the paper's; empty without one.

    The optimizers are matched by name without variant. Seconds are those of other hardware.
    """
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
        cells = [label(name)]
        for w in shared:
            twin = family(name)
            cells.append(_when(float(standing.times.loc[name, w])))  # type: ignore[arg-type]
            cells.append(_when(float(theirs.loc[twin, w]) if twin in theirs.index else math.nan))  # type: ignore[arg-type]
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
        cells = [label(name)]
        for w, split in columns:
            metric = results.metrics[w]
            for table, one in ((results.quality, name), (theirs, family(name))):
                cells.append(_mean(table, (condition, w, one, split, metric)))
        body.append(cells)
    return Table(
        f"paper_quality_{condition}",
        f"Final quality, {CONTROL[condition]}",
        header("optimizer", *["here", "paper"] * len(columns)),
        body,
        [(f"{w}: {split} {metric_label(results.metrics[w])}", 2) for w, split in columns],
    )


def _mean(table: pd.DataFrame, key: tuple[str, ...]) -> Cell:
    chosen = pd.Series(True, table.index)
    for column, value in zip(
        ("condition", "workload", "optimizer", "split", "metric"), key, strict=True
    ):
        chosen &= table[column] == value
    row = next(iter(table[chosen].to_dict("records")), None)
    if row is None or math.isnan(row["mean"]):
        return Cell("–", kind="none")
    spread = "" if math.isnan(row["std"]) else f" ± {fixed(row['std'], 4)}"
    return Cell(f"{fixed(row['mean'], 4)}{spread}")


def _when(time: float) -> Cell:
    if math.isnan(time):
        return Cell("–", kind="none")
    return Cell("never", kind="never") if math.isinf(time) else Cell(plain(time, 3))


def _read(name: str) -> pd.DataFrame:
    with (resources.files("timetrial.tracking") / "paper" / name).open() as file:
        return pd.read_csv(file)
