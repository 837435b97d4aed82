"""One optimizer against others by several measures, with all statements made at once.

Pure: from results to numbers.

"Better" and "worse" are said only where the p-value of the permutation test, adjusted by Holm over
all pairs and measures of one answer, is at most 1 - level: then the probability of any false
statement in that answer is at most 1 - level. Tables without single trials (the paper's) have no
p-values; there one is better that wins more workloads than it loses, by mean or median time.

Targets stay fixed in the tests of times to target, also where one of the two has set them: of
simulated races between equal optimizers, 4 to 7 % have p-values of at most 0.05.

Sources: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979,
https://www.jstor.org/stable/4615733; Tarone, A Modified Bonferroni Method for Discrete Data, 1990,
https://doi.org/10.2307/2531456 (comparisons that no labelling could decide, as between runs that
all tie, do not count).
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pandas as pd

from timetrial.framework.types import Direction, Split
from timetrial.tracking.report.effects import smallest_effect
from timetrial.tracking.report.measures import Kind, Measure
from timetrial.tracking.report.results import Results
from timetrial.tracking.scores.multiple import holm, smallest_difference
from timetrial.tracking.scores.targets import CONDITIONS

SPLITS: Final = (Split.TRAIN, Split.VALIDATION)
"""The splits that the paper's answers are given on."""

MOST_SEEDS: Final = 40
"""No more seeds are proposed."""

_NONE: Final = 1e-9  # an effect up to this is none


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
        coverage: probability that such an interval holds the truth; NaN where it is not known.
        p_value: adjusted for all comparisons made at once; NaN without trials, and where all
            trials tie.
        trials: the fewest on any workload; 0 when they are not known.
        seeds: median number of trials on a workload.
        any_difference: True when the test is one of any difference, whichever of the two it favours
            on which workload; False when it is one of the probability.
        effect: deviation of the probability from 1/2, in [0, 1/2]: of its mean over workloads, or
            for a test of any difference its root mean square over workloads.
        shown: True where the two differ beyond chance.
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
    coverage: float = math.nan
    p_value: float = math.nan
    trials: int = 0
    seeds: int = 0
    any_difference: bool = False
    effect: float = math.nan
    shown: bool = False

    @property
    def sign(self) -> int:
        """1 or -1 where ``one`` is better or worse, 0 where the data do not tell."""
        if self.trials:
            return int(np.sign(self.probability - 0.5)) if self.shown else 0
        return int(np.sign(len(self.ahead) - len(self.behind)))

    @property
    def workloads(self) -> int:
        """Number of workloads on which both have values."""
        return len(self.ahead) + len(self.behind) + len(self.level)


def pairs(
    results: Results,
    names: Iterable[tuple[str, str]],
    kinds: Sequence[Kind],
    *,
    any_difference: bool = False,
) -> list[Pair]:
    """Every pair of names by every measure of some kinds; those without common values left out.

    P-values are adjusted over all of them. ``any_difference`` tests two learned optimizers for any
    difference instead of for which one is better.
    """
    wanted = list(names)
    found = []
    for measure in measures(results, kinds):
        table = costs(results, measure)
        found += [pair for one, other in wanted if (pair := _pair(table, measure, one, other))]
    return found if results.published else _tested(results, found, any_difference)


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
    for workload in (w for w in table.columns if not math.isnan(float(table[w][name]))):
        column = table[workload]
        rest = column.drop(name).min()
        mine = float(column[name])
        all_.append(str(workload))
        if mine < (math.inf if math.isnan(rest) else rest):
            alone.append(str(workload))
        elif mine == rest and math.isfinite(mine):
            shared.append(str(workload))
    return alone, shared, all_


def comparisons(found: Sequence[Pair]) -> int:
    """Number of pairs that are tested at once."""
    return sum(not math.isnan(pair.p_value) for pair in found)


def smallest_shown(found: Sequence[Pair], level: float) -> float:
    """The smallest effect by which the clearest of these pairs can be told apart.

    NaN where even an optimizer that wins every pair of trials is not told apart.
    """
    tested = [pair for pair in found if not math.isnan(pair.p_value)]
    sizes = {(pair.seeds, pair.workloads, pair.any_difference) for pair in tested}
    limits = (_limit(*size, comparisons(found), level) for size in sorted(sizes))
    return min((limit for limit in limits if not math.isnan(limit)), default=math.nan)


def deciding_open(found: Sequence[Pair]) -> Pair | None:
    """The undecided pair whose decision would settle the question with the fewest seeds.

    A test of any difference settles it with the clearest pair. A claim that one optimizer is better
    by every measure falls with the clearest pair on the other side; without one it stands with the
    least clear pair. None where the effect is 0.
    """
    open_ = [pair for pair in found if pair.trials and not pair.shown]
    against = [p for p in open_ if p.any_difference or p.probability < 0.5 - _NONE]
    if against:
        return max(against, key=lambda pair: pair.effect)
    pair = min(open_, key=lambda pair: pair.effect, default=None)
    return pair if pair and pair.effect > _NONE else None


def seeds_needed(pair: Pair, number: int, level: float) -> int | None:
    """About the number of seeds with which a pair would be told apart, if its effect stays.

    At that number the effect itself is just significant, so that another race of as many seeds
    shows it half of the time. None where more than ``MOST_SEEDS`` are needed. ``number``:
    comparisons made at once.
    """

    def shows(seeds: int) -> bool:
        limit = _limit(seeds, pair.workloads, pair.any_difference, number, level)
        return limit <= pair.effect + 1e-9

    more = range(pair.seeds + 1, MOST_SEEDS + 1)
    place = bisect.bisect_left(more, True, key=shows)
    return more[place] if place < len(more) else None


def _limit(seeds: int, workloads: int, any_difference: bool, number: int, level: float) -> float:
    """The smallest effect of a race of this size that is told from none; NaN for no effect."""
    if any_difference:
        return smallest_effect(seeds, workloads, number, level)
    return smallest_difference(seeds, workloads, number, level) - 0.5


def _pair(table: pd.DataFrame, measure: Measure, one: str, other: str) -> Pair | None:
    if one not in table.index or other not in table.index:
        return None
    mine, theirs = table.loc[one], table.loc[other]
    both = mine.notna() & theirs.notna()
    if not both.any():
        return None
    ahead, behind, level = (
        [str(w) for w, holds in (both & how).items() if holds]
        for how in (mine < theirs, mine > theirs, mine == theirs)
    )
    return Pair(measure, one, other, ahead, behind, level)


def _tested(results: Results, found: Sequence[Pair], any_difference: bool) -> list[Pair]:
    """The pairs with probabilities and adjusted p-values; those without trials left out."""
    table = results.improvement
    keys = table[["condition", "split", "measure", "optimizer", "other"]]
    rows = dict(zip(keys.itertuples(index=False, name=None), table.to_dict("records"), strict=True))
    known = [
        (pair, row) for pair in found if (row := rows.get((*pair.measure, pair.one, pair.other)))
    ]
    column = "p_any" if any_difference else "p_value"
    adjusted = holm(
        {
            place: math.nan if row["tied"] else float(row[column])
            for place, (_, row) in enumerate(known)
        }
    )
    return [
        dataclasses.replace(
            pair,
            probability=float(row["probability"]),
            low=float(row["low"]),
            high=float(row["high"]),
            coverage=float(row["coverage"]),
            p_value=adjusted[place],
            trials=int(row["trials"]),
            seeds=int(row["seeds"]),
            any_difference=any_difference,
            effect=float(row["effect"] if any_difference else abs(row["probability"] - 0.5)),
            shown=adjusted[place] <= 1 - results.level + _NONE,
        )
        for place, (pair, row) in enumerate(known)
    ]
