"""AlgoPerf's leaderboard as text for a terminal and as tables.

Pure: from scored tables to text and cells; the caller writes files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from timetrial.tracking.report.cells import Cell, Table, header, plain


def leaderboard_text(
    board: pd.DataFrame, times: pd.DataFrame, targets: Mapping[str, float], baseline: str
) -> str:
    """Scores of every submission, then per workload who reaches the target.

    Args:
        board: from ``scores.algoperf.leaderboard``.
        times: seconds to target, optimizer by workload; inf = never, NaN = no run.
        targets: by workload.
        baseline: submission that the speed-ups are over.
    """
    rows = [list(_head(baseline))]
    for name, row in board.iterrows():
        rows.append([str(name), *_texts(row)])
    compared = sorted({int(number) for number in board["compared"]})
    note = (
        "score: 1 = the fastest on every workload, 0 = never close to it; speed-up: geometric mean "
        f"over {' to '.join(map(str, dict.fromkeys((compared[0], compared[-1]))))} workloads"
    )
    each = [["workload", "target", "reached by", "fastest", ""]]
    for workload in times.columns:
        each.append(_workload_row(times[workload], targets.get(str(workload), math.nan)))
    return "\n".join([*_aligned(rows), note, "", *_aligned(each)])


def leaderboard_table(board: pd.DataFrame, title: str, baseline: str) -> Table:
    """The leaderboard with score, targets reached and speed-up."""
    best = board["score"].max()
    body = []
    for name, row in board.iterrows():
        score, *others = _texts(row)
        first = Cell(score, kind="best" if row["score"] == best > 0 else "")
        body.append([Cell(str(name), kind="label"), first, *map(Cell, others)])
    return Table("leaderboard", title, header(*_head(baseline)), body)


def _head(baseline: str) -> tuple[str, ...]:
    return "submission", "score", "targets reached", "fastest on", f"speed-up over {baseline}"


def _texts(row: pd.Series[float]) -> list[str]:
    """Score, targets reached, wins and speed-up of a submission."""
    faster = f"{row['speedup']:.3f}" if math.isfinite(row["speedup"]) else "–"
    return [f"{row['score']:.4f}", _reached(row), str(int(row["wins"])), faster]


def _reached(row: pd.Series[float]) -> str:
    """``7 of 8``, and how many of them the cut-off and the variants leave."""
    reached, counted = int(row["reached"]), int(row["counted"])
    left = f" ({counted} count)" if counted < reached else ""
    return f"{reached} of {int(row['workloads'])}{left}"


def _workload_row(times: pd.Series[float], target: float) -> list[str]:
    finite = times[np.isfinite(times)].sort_index()
    number = f"{len(finite)} of {int(times.notna().sum())}"
    if finite.empty:
        return [str(times.name), plain(target, 6), number, "nobody", ""]
    return [
        str(times.name),
        plain(target, 6),
        number,
        f"{plain(float(finite.min()), 4)} s",
        str(finite.idxmin()),
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width: text to the left in the first and last, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if place > 0 else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
