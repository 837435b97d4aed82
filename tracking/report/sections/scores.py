"""Question 3 of the paper: is the learned optimizer faster to the targets; the table of scores.

Pure: the answer is computed from scores and their intervals.

Source: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (section 1, Table 3).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from timetrial.tracking.report.cells import (
    NOTHING,
    Cell,
    Table,
    below,
    header,
    interval_text,
    name_cell,
    score_cell,
)
from timetrial.tracking.report.comparison import (
    SAME,
    baselines,
    cannot_answer,
    capital,
    contender,
    difference,
    difference_text,
)
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text, captioned
from timetrial.tracking.report.standings import CONTROL, Standing, headlines, interval_ends


def section(results: Results) -> Section:
    """The question, its answer and the scores."""
    name = contender(results)
    return Section(
        name="question-3",
        title=f"3. Does {name or 'VeLO'} reach the targets faster than the baselines?",
        blocks=[
            Text(_answer(results, name), "answer"),
            *captioned([score_table(results)] if results.standings else []),
        ],
        frames={"scores": score_frame(results.standings)},
    )


def _answer(results: Results, name: str | None) -> str:
    scored = [head for head in headlines(results.standings) if name in head.scores.index]
    if name is None or not scored:
        lacking = "a learned optimizer" if name is None else f"{name} with a score"
        return cannot_answer(results, f"runs of {lacking}")
    said = "; ".join(_place(head, name, results) for head in scored)
    return capital(f"{said}.")


def _place(standing: Standing, name: str, results: Results) -> str:
    scores = standing.scores
    mine = float(scores[name])
    where = f"under {CONTROL[standing.condition]}, {name} scores {mine:.2f} on {standing.split}"
    if standing.intervals is not None:
        ends = standing.intervals.scores.set_index("optimizer")[["low", "high"]]
        low, high = map(float, ends.loc[name])
        where += f" ({interval_text(low, high, 2)})"
    place = int((scores > mine + SAME).sum()) + 1
    where += f", place {place} of {len(scores)}"
    rivals = scores[[one for one in scores.index if one in baselines(results)]]
    if rivals.empty:
        return f"{where}, without a baseline to compare with"
    if not scores.max() > 0:
        return f"{where}: no optimizer reaches a target"
    rival = str(rivals.idxmax())
    gap = difference(standing, name, rival, results.level)
    relation = "level with" if abs(gap.value) < SAME else "ahead of" if gap.value > 0 else "behind"
    return (
        f"{where}, {relation} the best baseline, {rival} with {rivals.max():.2f} "
        f"({difference_text(gap, results)})"
    )


def score_table(results: Results) -> Table:
    """Scores as in the paper's Table 3: one column per condition and split."""
    found = results.standings
    spans = list(Counter(CONTROL[standing.condition] for standing in found).items())
    columns = [_score_cells(standing) for standing in found]
    body = [
        [name_cell(name), *(column.get(name, NOTHING) for column in columns)]
        for name in results.optimizers
    ]
    head = header("optimizer", *(standing.split for standing in found))
    return Table("scores", "Scores (Table 3)", head, body, spans)


def _score_cells(standing: Standing) -> dict[str, Cell]:
    best = float(standing.scores.max())
    ties = int((standing.scores > best - SAME).sum())
    ends = interval_ends(standing, "scores")
    cells = {}
    for key, value in standing.scores.items():
        name = str(key)
        lost = int(standing.times.loc[name].isna().to_numpy().sum())
        first = value > best - SAME and value > 0
        low, high, few = ends.get((name,), (math.nan, math.nan, False))
        missing = f"{lost} of {standing.times.shape[1]} without run" if lost else ""
        more = below("tie" if first and ties > 1 else "", missing)
        cells[name] = score_cell(
            float(value),
            best=first,
            interval=interval_text(low, high, 2),
            more=more,
            few=few and not lost,
        )
    return cells


def score_frame(standings: Sequence[Standing]) -> pd.DataFrame:
    """Columns condition, split, optimizer, score, low, high, trials, few, first, r_max.

    Without single trials, low, high, trials (the fewest of a workload), few and first (share of
    resamples with the optimizer in front) are left out.
    """
    tables = []
    for s in standings:
        table = s.scores.rename("score").rename_axis("optimizer").reset_index()
        if s.intervals is not None:
            ends = s.intervals.scores[["optimizer", "low", "high", "trials", "few"]]
            first = s.intervals.first.rename("first").reset_index()
            table = table.merge(ends, how="left").merge(first, how="left")
        table.insert(0, "condition", s.condition)
        table.insert(1, "split", s.split)
        tables.append(table.assign(r_max=s.r_max))
    names = ["condition", "split", "optimizer", "score", "r_max"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)
