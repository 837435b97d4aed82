"""Sensitivity of the ranking to single workloads and to r_max.

Pure: from results to text, cells and panels; the ranks come from ``tracking.scores.ranks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from markupsafe import Markup

from timetrial.framework.types import Condition
from timetrial.tracking.report.cells import NOTHING, Cell, Table, header, name_cell
from timetrial.tracking.report.plots import SHARE_LIMITS, SHARE_TICKS, Line, Panel
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Block, Plots, Section, Text, plots_of
from timetrial.tracking.report.standings import Standing, places
from timetrial.tracking.scores.ranks import (
    agreement,
    leave_one_workload_out,
    over_r_max,
    scores_over_r_max,
)

LIMITS: Final = {Condition.TIME: (1.1, 10.0), Condition.STEP: (1.05, 4.0)}
"""Examined range of r_max; AlgoPerf uses 4."""

_POINTS: Final = 60


def section(results: Results) -> Section:
    """Ranks with their ranges, and scores over r_max."""
    blocks: list[Block] = [Text("There are no scores.")]
    if results.standings:
        panels = (r_max_panel(one, _limits(one)) for one in results.standings)
        blocks = [
            Text(
                Markup(
                    "Rank by score; optimizers with equal scores share their places. Beside it the "
                    "range of its better end when one workload is left out, and over a range of "
                    "r<sub>max</sub>."
                )
            ),
            rank_table(results),
            Plots(plots_of("scores_over_r_max", "Scores over r_max", panels)),
        ]
    return Section(
        name="stability", title="Stability of the ranking", menu="Stability", blocks=blocks
    )


def rank_table(results: Results) -> Table:
    """Rank of each optimizer, and its best and worst without one workload and over r_max."""
    found = [(standing, *_ranks(standing)) for standing in results.standings]
    body = []
    for name in results.optimizers:
        cells = [name_cell(name)]
        for standing, without, limits in found:
            if name not in standing.scores.index:
                cells += [NOTHING] * 3
                continue
            place = places(standing.scores)[name]
            cells.append(Cell(str(place), "tie" if place.tied > 1 else ""))
            cells += [_range(table, name) for table in (without, limits)]
        body.append(cells)
    shares = [[agreement(table).iloc[1:].min() for table in tables] for _, *tables in found]
    body.append(
        [Cell("share of pairs in the same order, at least", kind="target")]
        + [
            Cell(text, kind="target")
            for one, other in shares
            for text in ("", _per_cent(float(one)), _per_cent(float(other)))
        ]
    )
    heads = ["rank", "leave one out", "over r_max"]
    spans = [(standing.heading, 3) for standing, *_ in found]
    return Table(
        "ranks",
        "Ranks and their ranges",
        header("optimizer", *heads * len(found)),
        body,
        spans,
    )


def r_max_panel(standing: Standing, limits: Sequence[float]) -> Panel:
    """Score of every optimizer over r_max."""
    table = scores_over_r_max(standing.times, limits)
    x = table.index.to_numpy(dtype=np.float64)
    return Panel(
        title=standing.heading,
        x_label="r_max: upper limit of the score",
        y_label="score",
        lines=[Line(str(name), x, table[name].to_numpy()) for name in table.columns],
        x_limits=(float(x[0]), float(x[-1])),
        y_limits=SHARE_LIMITS,
        y_ticks=SHARE_TICKS,
    )


def _ranks(standing: Standing) -> tuple[pd.DataFrame, pd.DataFrame]:
    limits = [standing.r_max, *_limits(standing)]  # the first row is the reference
    return (
        leave_one_workload_out(standing.times, r_max=standing.r_max),
        over_r_max(standing.times, list(dict.fromkeys(limits))),
    )


def _limits(standing: Standing) -> list[float]:
    low, high = LIMITS[standing.condition]
    return [float(limit) for limit in np.geomspace(low, max(high, standing.r_max), _POINTS)]


def _range(table: pd.DataFrame, name: str) -> Cell:
    best, worst = int(table[name].min()), int(table[name].max())
    return Cell(str(best) if best == worst else f"{best} to {worst}")


def _per_cent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.0f} %"
