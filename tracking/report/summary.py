"""The report in a few lines: what was raced and who leads; and the score table for a terminal.

Pure: from runs and standings to sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.tracking.report.cells import count
from timetrial.tracking.report.listing import listed_runs, outcome_counts
from timetrial.tracking.report.results import ReportOptions, Results
from timetrial.tracking.report.standings import CONTROL, Standing, headlines, order, standings
from timetrial.tracking.scores.machines import left_out, with_suspect
from timetrial.tracking.scores.targets import CONDITIONS

_NAMED: Final = 6  # runs that are named in a sentence


def summary(results: Results) -> list[str]:
    """What was raced, one sentence for the winner of each condition, and how the runs ended."""
    if results.published:
        raced = "The paper’s own results, from its printed tables: medians and means of 3 trials."
    elif not results.records:
        raced = "No runs are recorded yet."
    else:
        raced = _raced(results.records)
    winners = [_winner(head) for head in headlines(results.standings)]
    ended = [outcome_counts(results.listed_runs)] if results.listed_runs else []
    return [raced, *winners, *ended]


def score_table_text(records: Sequence[RunRecord], options: ReportOptions | None = None) -> str:
    """The score table for a terminal, best optimizer first, with a line on the runs below it.

    Args:
        records: all runs of the race.
        options: as for ``write_report``.
    """
    options = options or ReportOptions()
    records = with_suspect(records) if options.include_suspect else records
    found = standings(records, r_max=options.r_max, mixed_machines=options.mixed_machines)
    names = order(found, {record.optimizer for record in records})
    lines = _score_lines(found, names) if found else []
    lines.append(outcome_counts(listed_runs(records, options.planned)))
    if suspects := left_out(records):
        lines.append(left_out_text(suspects))
    return "\n".join(lines)


def left_out_text(suspects: Sequence[RunRecord]) -> str:
    """Runs that scores under time control leave out, in one sentence."""
    names = [f"{run.optimizer} on {run.workload} seed {run.seed}" for run in suspects]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"Left out of the scores under time control, because their seconds are suspect: "
        f"{', '.join(names[:_NAMED])}{more}. --include-suspect counts them."
    )


def _score_lines(found: Sequence[Standing], names: Sequence[str]) -> list[str]:
    """The lines of the score table, two of header and one below it."""
    cells: list[list[str]] = [
        [CONTROL[s.condition] for s in found],
        [s.split for s in found],
        *([_score(s, name) for s in found] for name in names),
    ]
    firsts = ["Scores", "optimizer", *names]
    lasts = ["", "validation targets reached", *(_reached(found, name) for name in names)]
    wide = max(map(len, firsts[1:])) + 2
    widths = [max(map(len, column)) + 2 for column in zip(*cells, strict=True)]
    lines = []
    for first, row, last in zip(firsts, cells, lasts, strict=True):
        padded = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        lines.append(f"{first:<{wide}}{''.join(padded)}  {last}".rstrip())
    limits = {s.condition: s.r_max for s in found}
    used = ", ".join(f"{CONTROL[c]} r_max {value:g}" for c, value in limits.items())
    return [*lines, f"1 = the fastest on every workload, 0 = never close to it ({used})"]


def _score(standing: Standing, name: str) -> str:
    return f"{standing.scores[name]:.2f}" if name in standing.scores.index else "–"


def _raced(records: Sequence[RunRecord]) -> str:
    optimizers, workloads, seeds = (
        len({getattr(record, name) for record in records})
        for name in ("optimizer", "workload", "seed")
    )
    conditions = [CONTROL[c] for c in CONDITIONS if any(r.condition == c for r in records)]
    return (
        f"{count(optimizers, 'optimizer')} on {count(workloads, 'workload')} with "
        f"{count(seeds, 'seed')} each, under {' and '.join(conditions)}."
    )


def _winner(standing: Standing) -> str:
    control = CONTROL[standing.condition]
    best = standing.scores.max()
    if not best > 0:
        return f"Under {control}, no optimizer reaches any {standing.split} target."
    ranked = standing.scores.sort_values(ascending=False, kind="stable")
    first = [str(name) for name in ranked.index if ranked[name] == best]
    others = [str(name) for name in ranked.index if ranked[name] < best]
    score = f"the best {standing.split} score ({best:.2f} of 1)"
    if len(first) > 1:
        return f"Under {control}, {' and '.join(first)} share {score}."
    times = standing.times.loc[first[0]]
    fastest = int(np.sum(standing.ratios.loc[first[0]].to_numpy() == 1))
    after = f", ahead of {others[0]} ({ranked[others[0]]:.2f})" if others else ""
    return (
        f"Under {control}, {first[0]} has {score}{after}: it reaches the target on "
        f"{_finite(times)} of {count(len(times), 'workload')} and is the fastest "
        f"on {fastest}."
    )


def _reached(found: Sequence[Standing], name: str) -> str:
    return ", ".join(
        f"{_finite(head.times.loc[name])} of {head.times.shape[1]}"
        if name in head.times.index
        else "–"
        for head in headlines(found)
    )


def _finite(times: pd.Series[Any] | pd.DataFrame) -> int:
    return int(np.isfinite(times.to_numpy()).sum())
