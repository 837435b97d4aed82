"""One optimizer against others by several measures, with all statements made at once.

Pure: from results to numbers.

"Better" and "worse" are said only where the p-value of the permutation test, adjusted by Holm over
all pairs and measures of one answer, is at most 1 - level: then the probability of any false
statement in that answer is at most 1 - level. Tables without single trials (the paper's) have no
p-values; there the number of workloads decides on which one mean, or median time, is better.

Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979,
https://www.jstor.org/stable/4615733.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pandas as pd

from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.report.measures import Kind, Measure
from timetrial.tracking.report.results import Results
from timetrial.tracking.scores.multiple import holm, smallest_difference
from timetrial.tracking.scores.targets import CONDITIONS

SPLITS: Final = (Split.TRAIN, Split.VALIDATION)
"""The splits that the paper's answers are given on."""

MOST_SEEDS: Final = 40
"""No more seeds are proposed."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """One optimizer against another by one measure.

    Attributes:
        measure: how they are compared.
        one, other: labels.
        ahead, behind, level: workloads on which the mean of ``one`` (of times: the median) is
            better than, worse than or equal to that of ``other``.
        probability: that a run of ``one`` is better than one of ``other``; NaN without trials.
        low, high: its bootstrap interval.
        p_value: two-sided, adjusted for all comparisons made at once; NaN without trials.
        trials: the fewest on any workload; 0 when they are not known.
        apart: workloads on which the trials of both do not overlap.
        sign: 1 or -1 where ``one`` is better or worse, 0 where the data do not tell.
    """

    measure: Measure
    one: str
    other: str
    ahead: Sequence[str]
    behind: Sequence[str]
    level: Sequence[str]
    probability: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    trials: int = 0
    apart: int = 0
    sign: int = 0

    @property
    def workloads(self) -> int:
        """Number of workloads on which both have values."""
        return len(self.ahead) + len(self.behind) + len(self.level)


def pairs(
    results: Results, names: Iterable[tuple[str, str]], kinds: Sequence[Kind]
) -> list[Pair]:
    """Every pair of names by every measure of some kinds; those without common values left out.

    P-values are adjusted over all of them.
    """
    wanted = list(names)
    found = []
    for measure in measures(results, kinds):
        table = costs(results, measure)
        found += [pair for one, other in wanted if (pair := _pair(table, measure, one, other))]
    if results.published:
        return [dataclasses.replace(one, sign=_by_count(one)) for one in found]
    return _tested(results, found)


def measures(results: Results, kinds: Sequence[Kind]) -> list[Measure]:
    """The measures of some kinds that these results hold, in fixed order.

    The loss is left out where it is the deciding metric of every workload.
    """
    twice = set(results.metrics.values()) == {"loss"}
    return [
        measure
        for condition in CONDITIONS
        for split in SPLITS
        for kind in kinds
        if not (twice and kind is Kind.LOSS)
        if not costs(results, measure := Measure(condition, split, kind)).empty
    ]


def costs(results: Results, measure: Measure) -> pd.DataFrame:
    """Optimizer by workload: smaller is better, inf is the worst, NaN without a run that counts.

    Means of final losses or metrics (inf where a run of the cell has no final value), or median
    times to target.
    """
    condition, split, kind = measure
    if kind is Kind.TIME:
        here = (s for s in results.standings if (s.condition, s.split) == (condition, split))
        return next((standing.times for standing in here), pd.DataFrame())
    table = results.quality
    named = "loss" if kind is Kind.LOSS else table["workload"].map(results.metrics)
    chosen = (table["condition"] == condition) & (table["split"] == split)
    rows = table[chosen & (table["metric"] == named)]
    up = [
        results.directions[w, m] is Direction.MAXIMIZE
        for w, m in zip(rows["workload"], rows["metric"], strict=True)
    ]
    values = rows["mean"].where(~np.array(up, dtype=bool), -rows["mean"])
    values = values.where(rows["finite"] == rows["runs"], math.inf).where(rows["runs"] > 0)
    return rows.assign(cost=values).pivot(index="optimizer", columns="workload", values="cost")


def firsts(
    results: Results, measure: Measure, name: str, others: Sequence[str]
) -> tuple[list[str], list[str], list[str]]:
    """Workloads on which an optimizer is the best of all, shares the best value, and all of them.

    Only workloads count on which it has a run and somebody has a value.
    """
    table = costs(results, measure)
    there = [one for one in (name, *others) if one in table.index]
    if name not in there:
        return [], [], []
    table = table.loc[there]
    alone, shared, all_ = [], [], []
    for workload in table.columns[table.loc[name].notna()]:
        column = table[workload]
        rest = column.drop(name).min()
        mine = float(column[name])
        all_.append(str(workload))
        if mine < (math.inf if math.isnan(rest) else rest):
            alone.append(str(workload))
        elif mine == rest and math.isfinite(mine):
            shared.append(str(workload))
    return alone, shared, all_


def smallest_shown(found: Sequence[Pair], level: float) -> float:
    """The smallest probability above 1/2 that the clearest of these pairs can be told apart by.

    NaN where even an optimizer that wins every pair of trials is not told apart.
    """
    tested = [pair for pair in found if pair.trials]
    shown = (
        smallest_difference(trials, workloads, len(tested), level)
        for trials, workloads in {(pair.trials, pair.workloads) for pair in tested}
    )
    return min((one for one in shown if not math.isnan(one)), default=math.nan)


def seeds_needed(found: Sequence[Pair], level: float) -> int | None:
    """Seeds with which the clearest undecided pair would be told apart, if its probability holds.

    At that number the estimate itself is just significant, so that another race of as many seeds
    shows it half of the time. None where more than ``MOST_SEEDS`` are needed, or no pair is open.
    """
    tested = sum(pair.trials > 0 for pair in found)
    best: int | None = None
    for pair in (one for one in found if one.trials and not one.sign):
        top = MOST_SEEDS if best is None else best - 1
        effect = abs(pair.probability - 0.5)

        def shows(seeds: int, pair: Pair = pair, effect: float = effect) -> bool:
            limit = smallest_difference(seeds, pair.workloads, tested, level)
            return not math.isnan(limit) and limit - 0.5 <= effect + 1e-9

        place = bisect.bisect_left(range(1, top + 1), True, key=shows)
        best = place + 1 if place < top else best
    return best


def _pair(table: pd.DataFrame, measure: Measure, one: str, other: str) -> Pair | None:
    if one not in table.index or other not in table.index:
        return None
    mine, theirs = table.loc[one], table.loc[other]
    both = mine.notna() & theirs.notna()
    if not both.any():
        return None
    ahead, behind, level = (
        [str(w) for w in table.columns[both & how]]
        for how in (mine < theirs, mine > theirs, mine == theirs)
    )
    return Pair(measure, one, other, ahead, behind, level)


def _by_count(pair: Pair) -> int:
    """1 or -1 where more than half of the workloads agree."""
    half = pair.workloads / 2
    return int(len(pair.ahead) > half) - int(len(pair.behind) > half)


def _tested(results: Results, found: Sequence[Pair]) -> list[Pair]:
    """The pairs with probabilities, adjusted p-values and signs; without trials left out."""
    table = results.improvement
    keys = table[["condition", "split", "measure", "optimizer", "other"]]
    rows = dict(zip(keys.itertuples(index=False, name=None), table.to_dict("records"), strict=True))
    tested = [(pair, rows.get((*pair.measure, pair.one, pair.other))) for pair in found]
    known = [(pair, row) for pair, row in tested if row is not None]
    adjusted = holm({place: float(row["p_value"]) for place, (_, row) in enumerate(known)})
    done = []
    for place, (pair, row) in enumerate(known):
        probability, p_value = float(row["probability"]), adjusted[place]
        shown = p_value <= 1 - results.level + 1e-12
        done.append(
            dataclasses.replace(
                pair,
                probability=probability,
                low=float(row["low"]),
                high=float(row["high"]),
                p_value=p_value,
                trials=int(row["trials"]),
                apart=int(row["apart"]),
                sign=int(np.sign(probability - 0.5)) if shown else 0,
            )
        )
    return done


