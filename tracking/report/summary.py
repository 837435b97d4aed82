"""The report in words: what was raced, who leads, and what is missing; also as a terminal table.

Pure: from runs and standings to sentences.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.tracking.report.cells import count
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import (
    CONTROL,
    ListedRun,
    Planned,
    Standing,
    headline,
    order,
    refused,
    rows,
    standings,
)
from timetrial.tracking.scores.targets import CONDITIONS, trials

_OUTCOMES = ("finished", "diverged", "failed", "killed", "pruned", "running", "missing")


def summary(results: Results) -> list[str]:
    """What was raced, then one sentence for the winner of each condition."""
    if results.published:
        raced = "The paper’s own results, from its printed tables: medians and means of 3 trials."
    elif not results.records:
        return ["No runs are recorded yet."]
    else:
        raced = _raced(results.records)
    heads = [head for c in CONDITIONS if (head := headline(results.standings, c)) is not None]
    return [raced, *map(_winner, heads)]


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


def census(listed: Sequence[ListedRun]) -> str:
    """How many runs there are and what became of them."""
    counts = Counter(row.outcome for row in listed)
    parts = [f"{counts[name]} {name}" for name in _OUTCOMES if counts[name]]
    return f"{count(len(listed), 'run')}: {', '.join(parts)}." if parts else "No runs."


def notes(records: Sequence[RunRecord], found: Sequence[Standing]) -> list[str]:
    """What a reader of the scores must know: limits, absent conditions, gaps, mixed hardware."""
    lines = []
    for condition in CONDITIONS:
        limits = {s.r_max for s in found if s.condition == condition}
        if limits:
            lines.append(f"Under {CONTROL[condition]}, r_max is {min(limits):g}.")
        elif mixed := refused(records, condition):
            workload, tags = next(iter(mixed.items()))
            listed = "; ".join(f"{tag}: {', '.join(values)}" for tag, values in tags.items())
            lines.append(
                f"There are no scores under {CONTROL[condition]}: runs of {workload} were timed on "
                f"different machines ({listed}) and their seconds are not comparable; "
                "--mixed-machines compares them all the same."
            )
        elif records:
            lines.append(f"There are no runs under {CONTROL[condition]}: nothing is said about it.")
    if lines:
        lines = [" ".join(lines)]
    for standing in found:
        nobody = [str(w) for w in standing.times if not (standing.times[w] < math.inf).any()]
        if nobody:
            lines.append(
                f"Nobody reaches the {standing.split} target of {', '.join(nobody)} under "
                f"{CONTROL[standing.condition]}; it stays in the denominator of the score."
            )
    gaps = sorted({name for s in found for name in s.times.index[s.times.isna().any(axis=1)]})
    if gaps:
        lines.append(
            f"Provisional: {', '.join(gaps)} {'has' if len(gaps) == 1 else 'have'} workloads "
            "without any run that counts; these score as never reached."
        )
    few = _few(records)
    if few:
        more = f" and {len(few) - 6} more" if len(few) > 6 else ""
        lines.append(f"Fewer than 3 seeds: {'; '.join(few[:6])}{more}.")
    kinds = {r.tags["device_kind"] for r in records if r.tags.get("device_kind")}
    hosts = {r.tags["host"] for r in records if r.tags.get("host")}
    if len(kinds) > 1 or len(hosts) > 1:
        lines.append("The runs come from different machines: their seconds are not comparable.")
    return lines


def score_table_text(
    records: Sequence[RunRecord],
    *,
    r_max: float | Mapping[str, float] | None = None,
    planned: Planned | None = None,
    mixed_machines: bool = False,
) -> str:
    """The score table for a terminal, best optimizer first, with a line on the runs below it.

    Args:
        records: all runs of the race.
        r_max: as for ``write_report``.
        planned: as for ``write_report``.
        mixed_machines: as for ``write_report``.
    """
    found = standings(records, r_max=r_max, mixed_machines=mixed_machines)
    names = order(found, {record.optimizer for record in records})
    lines = []
    if found:
        heads: list[list[str]] = [
            [CONTROL[s.condition] for s in found],
            [s.split for s in found],
        ]
        cells = [[_score(s, name) for s in found] for name in names]
        reached = [_reached(found, name) for name in names]
        wide = max(len("optimizer"), *map(len, names)) + 2
        columns = [max(map(len, column)) + 2 for column in zip(*heads, *cells, strict=True)]
        for label, row, last in zip(
            ["Scores", "optimizer", *names],
            [*heads, *cells],
            ["", "validation targets reached", *reached],
            strict=True,
        ):
            padded = (text.rjust(width) for text, width in zip(row, columns, strict=True))
            lines.append(f"{label:<{wide}}{''.join(padded)}  {last}".rstrip())
        limits = {s.condition: s.r_max for s in found}
        listed = ", ".join(f"{CONTROL[c]} r_max {value:g}" for c, value in limits.items())
        lines.append(f"1 = the fastest on every workload, 0 = never close to it ({listed})")
    lines.append(census(rows(records, planned)))
    return "\n".join(lines)


def _score(standing: Standing, name: str) -> str:
    return f"{standing.scores[name]:.2f}" if name in standing.scores.index else "–"


def _few(records: Sequence[RunRecord]) -> list[str]:
    """Results that rest on one or two seeds."""
    seeds = Counter(
        (run.condition, run.workload, run.optimizer)
        for condition in CONDITIONS
        for run in trials(records, condition=condition)
    )
    return [
        f"{optimizer} on {workload} ({CONTROL[condition]})"
        for (condition, workload, optimizer), number in seeds.items()
        if number < 3
    ]


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
    heads = [head for c in CONDITIONS if (head := headline(found, c)) is not None]
    return ", ".join(
        f"{_finite(head.times.loc[name])} of {head.times.shape[1]}"
        if name in head.times.index
        else "–"
        for head in heads
    )


def _finite(times: pd.Series[Any] | pd.DataFrame) -> int:
    return int(np.isfinite(times.to_numpy()).sum())
