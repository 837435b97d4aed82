"""The report in a few lines: who leads, what was raced; and the score table for a terminal.

Pure: from runs and standings to sentences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

import numpy as np
import pandas as pd
from markupsafe import Markup

from timetrial.framework.records import RunRecord
from timetrial.tracking.report.cells import count, interval_text, joined_names
from timetrial.tracking.report.comparison import chance_text, difference, difference_text
from timetrial.tracking.report.entrants import Entrant
from timetrial.tracking.report.listing import listed_runs, outcome_counts
from timetrial.tracking.report.results import ReportOptions, Results
from timetrial.tracking.report.standings import (
    CONTROL,
    Standing,
    headlines,
    interval_ends,
    order,
    places,
    refused,
    standings,
)
from timetrial.tracking.scores.machines import left_out, with_suspect
from timetrial.tracking.scores.targets import CONDITIONS

# Runs of older versions did not record whose weights these are.
_WEIGHTS: Final[Mapping[str, str]] = {
    "embedded": (
        "our own small embedded weights, not on Google’s: no result here speaks for Google’s VeLO"
    ),
    "google": "the weights that Google published with the VeLO paper",
}
_OTHER_WEIGHTS: Final = "the weights in {}, neither Google’s nor those of this package"

_NAMED: Final = 6  # runs that are named in a sentence


def headline_texts(results: Results) -> list[Markup]:
    """One sentence per condition: who leads, by how much, and how sure that is."""
    told = [_leader(head, results) for head in headlines(results.standings)]
    scored = {head.condition for head in headlines(results.standings)}
    for condition in CONDITIONS:
        if condition not in scored and refused(results.records, condition):
            told.append(
                Markup(
                    f"There are no scores under {CONTROL[condition]}: its runs were timed on "
                    "different machines."
                )
            )
    return told or [Markup("There are no scores yet.")]


def raced_text(results: Results) -> str:
    """What was raced, and how the runs ended."""
    if results.published:
        return "The paper’s own results, from its printed tables: medians and means of 3 trials."
    if not results.records:
        return "No runs are recorded yet."
    ended = [outcome_counts(results.listed_runs)] if results.listed_runs else []
    return " ".join([_raced(results.records), *ended])


def weights_text(results: Results) -> str:
    """The weights of the learned optimizers: whose, their cost, what they were trained on.

    Empty without a learned optimizer.
    """
    if results.published:
        return "The paper’s VeLO runs on Google’s weights."
    groups: dict[str, list[str]] = {}
    for one in (results.entrants[name] for name in results.optimizers):
        if one.weights or one.origin:
            groups.setdefault(_weights(one), []).append(one.label)
    return " ".join(
        f"{joined_names(names)} {'runs' if len(names) == 1 else 'run'} on {weights}."
        for weights, names in sorted(groups.items())
    )


def _weights(one: Entrant) -> str:
    """The weights of a learned optimizer in words, without the path of their file."""
    weights, file = one.weights, PurePath(one.weights).name
    whose = one.origin or _WEIGHTS.get(weights) or _OTHER_WEIGHTS.format(file)
    if not one.origin:
        return whose
    cost = f"took {one.cost}" if one.cost else "has no recorded cost"
    return f"{whose}; their meta-training {cost}, on {one.trained_on or 'tasks not recorded'}"


def score_table_text(records: Sequence[RunRecord], options: ReportOptions | None = None) -> str:
    """The score table for a terminal, best optimizer first, with a line on the runs below it.

    Args:
        records: all runs of the race.
        options: as for ``write_report``.
    """
    options = options or ReportOptions()
    records = with_suspect(records) if options.include_suspect else records
    found = standings(
        records,
        r_max=options.r_max,
        mixed_machines=options.mixed_machines,
        setters=options.setters,
    )
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


def _leader(standing: Standing, results: Results) -> Markup:
    """Who leads under one condition, by how much, and how sure that is."""
    control, scores = CONTROL[standing.condition], standing.scores
    place = places(scores)
    first = [name for name in place if place[name].first == 1]
    if not scores.max() > 0:
        return Markup(
            f"Under {control}, no optimizer reaches a {standing.split} target: at scores of 0 "
            "nothing can be told apart."
        )
    leads = "leads" if len(first) == 1 else "share the lead"
    told = Markup("<strong>{} {}</strong> under {}: {} score {}").format(
        joined_names(first), leads, control, standing.split, _of_one(standing, first[0])
    )
    others = sorted((name for name in place if place[name].first > 1), key=lambda n: place[n].first)
    if len(first) > 1 or not others:
        return told + "."
    gap = difference(standing, first[0], others[0], results.level)
    told += f", ahead of {others[0]} with {_of_one(standing, others[0])}"
    if standing.intervals is None:
        return told + "."
    verdict = "" if gap.sign else ": the race does not tell them apart"
    told += f"; {difference_text(gap, results)}{verdict}."
    test = results.null_tests.get(standing.condition)
    return told if test is None else told + f" {chance_text(test, results.level)}."


def _of_one(standing: Standing, name: str) -> str:
    """A score out of 1, its interval in brackets where single trials are known."""
    low, high, _ = interval_ends(standing, "scores").get((name,), (math.nan, math.nan, False))
    interval = interval_text(low, high, 2)
    return f"{standing.scores[name]:.2f}" + (f" ({interval})" if interval else " of 1")


def _reached(found: Sequence[Standing], name: str) -> str:
    return ", ".join(
        f"{_finite(head.times.loc[name])} of {head.times.shape[1]}"
        if name in head.times.index
        else "–"
        for head in headlines(found)
    )


def _finite(times: pd.Series[Any] | pd.DataFrame) -> int:
    return int(np.isfinite(times.to_numpy()).sum())
