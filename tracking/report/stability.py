"""How much the order of the optimizers hangs on one workload or on r_max, as table and panels.

Pure: from results to cells and panels; the ranks come from ``tracking.scores.ranks``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from timetrial.framework.types import Condition
from timetrial.tracking.report.cells import Cell, Table, header, label
from timetrial.tracking.report.panels import r_max_panel, title
from timetrial.tracking.report.plots import Panel
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import Standing
from timetrial.tracking.scores.ranks import agreement, leave_one_workload_out, over_r_max, stability

LIMITS: Final = {Condition.TIME: (1.1, 10.0), Condition.STEP: (1.05, 4.0)}
"""Range of r_max that is looked at; AlgoPerf's is 4."""

_POINTS: Final = 60


def rank_table(results: Results) -> Table:
    """Rank of each optimizer, and its best and worst without one workload and over r_max."""
    found = [(standing, *_ranks(standing)) for standing in results.standings]
    body = []
    for name in results.optimizers:
        cells = [label(name)]
        for standing, without, limits in found:
            if name not in standing.scores.index:
                cells += [Cell("–", kind="none")] * 3
                continue
            cells.append(Cell(str(int(stability(without).loc[name, "rank"]))))  # type: ignore[arg-type]
            cells += [_range(table, name) for table in (without, limits)]
        body.append(cells)
    shares = [[agreement(table).iloc[1:].min() for table in tables] for _, *tables in found]
    body.append(
        [Cell("pairs in the same order, at least", kind="target")]
        + [
            Cell(text, kind="target")
            for one, other in shares
            for text in ("", _per_cent(float(one)), _per_cent(float(other)))
        ]
    )
    heads = ["rank", "leave one out", "over r_max"]
    spans = [(title(standing), 3) for standing, *_ in found]
    return Table(
        "ranks",
        "Ranks and how far they move",
        header("optimizer", *heads * len(found)),
        body,
        spans,
    )


def rank_panels(results: Results) -> list[Panel]:
    """Scores over r_max, one panel for each condition and split."""
    return [r_max_panel(standing, _limits(standing)) for standing in results.standings]


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
