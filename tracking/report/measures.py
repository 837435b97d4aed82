"""Measures on which two optimizers of a race are compared, and the trials behind each of them.

Pure: from recorded runs to tables.

Final losses and metrics have no floor: they tell optimizers apart that both score 0. They are
compared by the probability of improvement (Agarwal et al., Deep Reinforcement Learning at the Edge
of the Statistical Precipice, 2021, https://arxiv.org/abs/2108.13264), and so are times to target.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.report.effects import difference_test, effect
from timetrial.tracking.report.standings import SHOWN, Standing
from timetrial.tracking.scores.final_quality import final_values
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.targets import CONDITIONS, trial_times
from timetrial.tracking.scores.uncertainty import Cells, costs, probability_of_improvement


class Kind(enum.StrEnum):
    """What is measured: the final loss, the final deciding metric, or the time to target."""

    LOSS = enum.auto()
    METRIC = enum.auto()
    TIME = enum.auto()


FINAL: Final = (Kind.LOSS, Kind.METRIC)
"""Measures of final quality."""

COLUMNS: Final = (
    *("condition", "split", "measure", "optimizer", "other", "probability", "low", "high"),
    *("coverage", "p_value", "workloads", "trials", "few", "seeds", "tied", "effect", "p_any"),
)
"""Columns of a table of improvement."""

_TRIAL = ["workload", "optimizer", "seed", "value"]


class Measure(NamedTuple):
    """One way to compare optimizers: under a kind of budget, on a split."""

    condition: Condition
    split: Split
    kind: Kind


def improvement(
    records: Sequence[RunRecord],
    standings: Sequence[Standing],
    contender: str | None,
    learned: Collection[str],
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """Probability that a run of one optimizer beats a run of another, by every measure.

    Returns:
        Columns ``COLUMNS``. By final metric every pair has the columns of
        ``probability_of_improvement``; by loss and time the contender and each other one do. For
        the contender and each other one, in this order, there are also ``seeds``, the median number
        of trials of the two on a workload; ``tied``, True when all their trials on each workload
        are equal, so that no test can tell them apart; and, where the other one is learned, too,
        ``effects.effect`` and ``p_any``, from ``effects.difference_test``. No p-value is adjusted.
    """
    ways = {run.workload: run.direction for run in records}
    tables = []
    for measure, trials in _trials(records, standings):
        directions = {
            Kind.LOSS: dict.fromkeys(ways, Direction.MINIMIZE),
            Kind.METRIC: ways,
            Kind.TIME: None,
        }[measure.kind]
        names = trials["optimizer"]
        groups = [trials]
        if measure.kind is not Kind.METRIC:
            others = [] if contender is None else sorted({*names} - {contender})
            groups = [trials[names.isin([contender, other])] for other in others]
        for group in groups:
            table = probability_of_improvement(group, directions=directions, options=bootstrap)
            cells = costs(group, directions)
            more = [
                _details(cells, str(one), str(other), other in learned, bootstrap.seed)
                if one == contender
                else (math.nan, False, math.nan, math.nan)
                for one, other in zip(table["optimizer"], table["other"], strict=True)
            ]
            details = pd.DataFrame(more, table.index, ["seeds", "tied", "effect", "p_any"])
            parts = [_named(measure, table.index), table, details]
            tables.append(pd.concat(parts, axis="columns"))
    found = [table for table in tables if len(table)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(COLUMNS))


def _named(measure: Measure, index: pd.Index[int]) -> pd.DataFrame:
    names = ["condition", "split", "measure"]
    return pd.DataFrame([measure] * len(index), index, names)


def _trials(
    records: Sequence[RunRecord], standings: Sequence[Standing]
) -> Iterator[tuple[Measure, pd.DataFrame]]:
    """The trials of every measure; the loss is left out where it is the deciding metric anyway."""
    finals = final_values(records)
    deciding = finals["workload"].map({run.workload: run.metric for run in records})
    chosen = {Kind.LOSS: finals["metric"] == "loss", Kind.METRIC: finals["metric"] == deciding}
    if chosen[Kind.LOSS].equals(chosen[Kind.METRIC]):
        del chosen[Kind.LOSS]
    scored = {(standing.condition, standing.split): standing for standing in standings}
    for condition in CONDITIONS:
        for split in SHOWN:
            here = (finals["condition"] == condition) & (finals["split"] == split)
            for kind, rows in chosen.items():
                if (table := finals.loc[here & rows, _TRIAL]).size:
                    yield Measure(condition, split, kind), table
            if (one := scored.get((condition, split))) is not None:
                times = trial_times(records, one.targets, split, one.unit, condition=condition)
                yield Measure(condition, split, Kind.TIME), times


def _details(
    cells: Cells, one: str, other: str, tested: bool, seed: int
) -> tuple[float, bool, float, float]:
    """Median number of trials, whether all tie, effect and p-value of any difference of a pair."""
    tried = [{w for name, w in cells if name == optimizer} for optimizer in (one, other)]
    both = [(cells[one, w], cells[other, w]) for w in sorted(tried[0] & tried[1])]
    seeds = float(np.median([len(values) for pair in both for values in pair]))
    tied = all(len(np.unique(np.concatenate(pair))) == 1 for pair in both)
    if not tested:
        return seeds, tied, math.nan, math.nan
    return seeds, tied, effect(both), difference_test(both, seed=seed)
