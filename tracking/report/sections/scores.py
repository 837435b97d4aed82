"""Question 3 of the paper: is the learned optimizer faster to the targets; the table of scores.

Pure: the answer is computed from scores and times to target of both splits and both conditions.

Source: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (section 1, Table 3).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from timetrial.tracking.report.answers import (
    SPLIT_WORDS,
    Answer,
    Verdict,
    groups_text,
    needed_text,
    overall,
    pair_table,
    resolution_text,
)
from timetrial.tracking.report.cells import (
    NOTHING,
    Cell,
    Table,
    below,
    count,
    coverage_text,
    header,
    interval_text,
    joined_names,
    name_cell,
    score_cell,
)
from timetrial.tracking.report.comparison import (
    SAME,
    baselines,
    contender,
    difference,
    difference_text,
    lacks,
)
from timetrial.tracking.report.measures import Kind, Measure
from timetrial.tracking.report.pairs import SPLITS, Pair, firsts, pairs
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, captioned
from timetrial.tracking.report.standings import CONTROL, Standing, interval_ends, places
from timetrial.tracking.scores.targets import CONDITIONS

_PRINTED: Final = (
    "These scores are computed from Tables 9–12; Table 3 prints them to within 0.015, one excepted."
)


def section(results: Results) -> Section:
    """The question, its answer, the scores and the probability of being faster."""
    name = contender(results)
    tables = [score_table(results)] if results.standings else []
    found = _pairs(results, name)
    if found:
        what = f"{name} is faster to the target, by baseline"
        tables.append(pair_table("faster", what, "baseline", found))
    return Section(
        name="question-3",
        title=f"3. Does {name or 'VeLO'} reach the targets faster than the baselines?",
        blocks=[*_answer(results, name, found).blocks(), *captioned(tables)],
        frames={"scores": score_frame(results.standings)},
    )


def answer(results: Results) -> Answer:
    """Whether it is ahead of every baseline, on both splits and under both conditions."""
    name = contender(results)
    return _answer(results, name, _pairs(results, name))


def _answer(results: Results, name: str | None, found: Sequence[Pair]) -> Answer:
    others = baselines(results)
    judged = [one for one in results.standings if _judged(one, name, others)]
    judged.sort(key=lambda one: (CONDITIONS.index(one.condition), SPLITS.index(one.split)))
    if name is None or not judged:
        what = "runs of a learned optimizer" if name is None else f"scores of {name} and a baseline"
        return Answer(Verdict.OPEN, lacks(results, what), needed="Needed: runs of both.")
    signs = [_sign(one, name, others, found, results.published) for one in judged]
    verdict = overall(signs)
    points = [_point(one, name, others, found, results) for one in judged]
    points += [resolution_text(results, found)] if found else []
    points += [_PRINTED] if results.published else []
    needed = _needed(results, name, found) if verdict is Verdict.OPEN else ""
    rankings = count(len(judged), "ranking")
    ahead = f"is shown to be faster than every baseline in {signs.count(1)} of {rankings}"
    behind = f"slower than at least one in {signs.count(-1)}"
    if results.published:
        ahead = f"scores higher than every baseline in {signs.count(1)} of {rankings}"
        behind = f"lower than at least one in {signs.count(-1)}"
    against = "; ".join(_against_best(standing, name, others) for standing in judged)
    details = [f"Scores against the best baseline: {against}."]
    return Answer(verdict, f"{name} {ahead} and {behind}.", details, points, needed)


def _judged(standing: Standing, name: str | None, others: Sequence[str]) -> bool:
    known = standing.scores.index
    return standing.split in SPLITS and name in known and any(one in known for one in others)


def _pairs(results: Results, name: str | None) -> list[Pair]:
    names = [(name, other) for other in baselines(results)] if name else []
    return pairs(results, names, [Kind.TIME])


def _rivals(standing: Standing, others: Sequence[str]) -> list[str]:
    return [one for one in others if one in standing.scores.index]


def _best(standing: Standing, others: Sequence[str]) -> tuple[str, list[str]]:
    """The baseline with the best score, and all that share it."""
    scores = standing.scores[_rivals(standing, others)]
    level = [str(name) for name in scores.index if scores[name] > scores.max() - SAME]
    return level[0], level


def _sign(
    standing: Standing, name: str, others: Sequence[str], found: Sequence[Pair], published: bool
) -> int:
    """1 where it is ahead of every baseline, -1 where one is ahead of it, 0 else.

    By score where single trials are not known, else by the tests of the times to target.
    """
    if published:
        gap = float(standing.scores[name] - standing.scores[_best(standing, others)[0]])
        return int(gap > SAME) - int(gap < -SAME)
    signs = [pair.sign for pair in _of(standing, found)]
    if -1 in signs:
        return -1
    return int(bool(signs) and 0 not in signs)


def _of(standing: Standing, found: Sequence[Pair]) -> list[Pair]:
    where = (standing.condition, standing.split)
    return [pair for pair in found if pair.measure[:2] == where]


def _against_best(standing: Standing, name: str, others: Sequence[str]) -> str:
    """``0.20 against adam’s 1.00 on training, time control``."""
    mine, (rival, level) = float(standing.scores[name]), _best(standing, others)
    best = float(standing.scores[rival])
    whose = f"{rival}’s {best:.2f}"
    if len(level) > 1:
        whose = f"{joined_names(level)} with {best:.2f}"
    relation = "level with" if abs(mine - best) < SAME else "against"
    where = f"{SPLIT_WORDS[standing.split]}, {CONTROL[standing.condition]}"
    return f"{mine:.2f} {relation} {whose} on {where}"


def _point(
    standing: Standing, name: str, others: Sequence[str], found: Sequence[Pair], results: Results
) -> str:
    """Score, place, difference, targets reached first, and tests of one standing."""
    mine, (rival, _) = float(standing.scores[name]), _best(standing, others)
    where = f"{SPLIT_WORDS[standing.split].capitalize()}, {CONTROL[standing.condition]}"
    interval = _interval(standing, name)
    place = places(standing.scores)[name].of(len(standing.scores))
    said = [f"{where}: {name} scores {mine:.2f}{interval}, {place}"]
    if max(mine, float(standing.scores[rival])) < SAME:
        said[0] += "; at 0.00 the score cannot tell it from the best baseline"
    else:
        gap = difference_text(difference(standing, name, rival, results.level), results)
        said[0] += f"; against {rival}, {gap}"
        level = [
            one for one in _rivals(standing, others) if abs(standing.scores[one] - mine) < SAME
        ]
        if level and mine < SAME:
            said.append(f"At 0.00 the score cannot tell it from {joined_names(level)}")
    said.append(_reached(standing, name, others, results))
    if groups := groups_text(_of(standing, found), "faster than", "slower than"):
        said.append(f"By times to target it is {groups}")
    return f"{'. '.join(said)}."


def _interval(standing: Standing, name: str) -> str:
    """The interval of a score and its coverage, in brackets; empty when it is not known."""
    if standing.intervals is None:
        return ""
    table = standing.intervals.scores.set_index("optimizer")[["low", "high", "coverage"]]
    if name not in table.index:  # no counted run
        return ""
    low, high, covered = map(float, table.loc[name])
    coverage = "" if math.isnan(covered) else f", {coverage_text([covered])}"
    return f" ({interval_text(low, high, 2)}{coverage})"


def _reached(standing: Standing, name: str, others: Sequence[str], results: Results) -> str:
    measure = Measure(standing.condition, standing.split, Kind.TIME)
    alone, shared, all_ = firsts(results, measure, name, others)
    reached = int(np.isfinite(standing.times.loc[name].to_numpy()).sum())
    named = f" ({joined_names(alone)})" if alone else ""
    tied = f", and level with the first on {joined_names(shared)}" if shared else ""
    before = f"{len(alone) or 'none'} of them before every baseline{named}{tied}"
    return f"It reaches {reached} of {count(len(all_), 'target')}, {before}"


def _needed(results: Results, name: str, found: Sequence[Pair]) -> str:
    if all(abs(pair.probability - 0.5) < SAME for pair in found if not pair.sign):
        return (
            f"Needed: other targets, which {name} and the baselines reach; more seeds do not help "
            "where neither does."
        )
    return needed_text(results, found)


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
    """Columns condition, split, optimizer, score, low, high, coverage, trials, few, first, r_max.

    Without single trials, low, high, trials (the fewest of a workload), few and first (share of
    resamples with the optimizer in front) are left out.
    """
    tables = []
    for s in standings:
        table = s.scores.rename("score").rename_axis("optimizer").reset_index()
        if s.intervals is not None:
            ends = s.intervals.scores[["optimizer", "low", "high", "coverage", "trials", "few"]]
            first = s.intervals.first.rename("first").reset_index()
            table = table.merge(ends, how="left").merge(first, how="left")
        table.insert(0, "condition", s.condition)
        table.insert(1, "split", s.split)
        tables.append(table.assign(r_max=s.r_max))
    names = ["condition", "split", "optimizer", "score", "r_max"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)
