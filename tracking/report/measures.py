"""Measures on which two optimizers of a race are compared, and the trials behind each of them.

Pure: from recorded runs to tables.

Final losses and metrics have no floor: they tell optimizers apart that both score 0. They are
compared by the probability of improvement (Agarwal et al., Deep Reinforcement Learning at the Edge
of the Statistical Precipice, 2021, https://arxiv.org/abs/2108.13264), and so are times to target.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.report.standings import SHOWN, Standing
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.targets import CONDITIONS, final_values, trial_times
from timetrial.tracking.scores.uncertainty import probability_of_improvement


class Kind(enum.StrEnum):
    """What is measured: the final loss, the final deciding metric, or the time to target."""

    LOSS = enum.auto()
    METRIC = enum.auto()
    TIME = enum.auto()


FINAL: Final = (Kind.LOSS, Kind.METRIC)
"""Measures of final quality."""

COLUMNS: Final = (
    *("condition", "split", "measure", "optimizer", "other", "probability", "low", "high"),
    *("p_value", "workloads", "trials", "few", "apart"),
)
"""Columns of a table of improvement."""

_TRIAL = ["workload", "optimizer", "seed", "value"]


class Measure(NamedTuple):
    """One way to compare optimizers: under a kind of budget, on a split."""

    condition: Condition
    split: Split
    kind: Kind


def improvement(
    records: Sequence[RunRecord], standings: Sequence[Standing], bootstrap: Bootstrap
) -> pd.DataFrame:
    """Probability that a run of one optimizer beats a run of another, by every measure.

    Returns:
        Columns ``COLUMNS``: those of ``probability_of_improvement`` (``p_value`` is not adjusted),
        and ``apart``, the number of workloads on which every trial of one optimizer beats every
        trial of the other, whichever of them wins.
    """
    ways = {run.workload: run.direction for run in records}
    tables = []
    for measure, trials in _trials(records, standings):
        directions = {
            Kind.LOSS: dict.fromkeys(ways, Direction.MINIMIZE),
            Kind.METRIC: ways,
            Kind.TIME: None,
        }[measure.kind]
        table = probability_of_improvement(trials, directions=directions, options=bootstrap)
        apart = _apart(trials, directions)
        pairs = zip(table["optimizer"], table["other"], strict=True)
        table = table.assign(apart=[apart[pair] for pair in pairs])
        for place, (name, value) in enumerate(
            zip(("condition", "split", "measure"), measure, strict=True)
        ):
            table.insert(place, name, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


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


def _apart(
    trials: pd.DataFrame, directions: Mapping[str, Direction] | None
) -> dict[tuple[str, str], int]:
    """Number of workloads on which the trials of two optimizers do not overlap, by ordered pair."""
    up = trials["workload"].map(directions or {}) == Direction.MAXIMIZE
    costs = trials["value"].where(~up, -trials["value"]).fillna(np.inf)
    ends = costs.groupby([trials["optimizer"], trials["workload"]]).agg(["min", "max"])
    low, high = (ends[end].unstack() for end in ("min", "max"))
    return {
        (one, other): int(
            ((high.loc[one] < low.loc[other]) | (high.loc[other] < low.loc[one])).sum()
        )
        for one in low.index
        for other in low.index
    }
