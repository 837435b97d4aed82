"""Targets, times to target, ratios and scores of a race, per condition and split.

Pure: from recorded runs to tables; nothing is formatted or drawn here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Literal

import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.scores.machines import differences, with_suspect
from timetrial.tracking.scores.ranks import ranks
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.scoring import performance_ratios, scores
from timetrial.tracking.scores.targets import (
    CONDITIONS,
    UNITS,
    Unit,
    target_table,
    time_to_target,
    trial_times,
    trials,
)
from timetrial.tracking.scores.uncertainty import RaceIntervals, race_intervals

CONTROL: Final = {Condition.TIME: "time control", Condition.STEP: "step control"}
"""Names of the kinds of budget."""

R_MAX: Final[Mapping[str, float]] = {Condition.TIME: 3.0, Condition.STEP: 1.5}
"""Upper limits of the score's integral that reproduce the paper's Table 3 (AlgoPerf: 4)."""

SHOWN: Final = (Split.VALIDATION, Split.TRAIN, Split.TEST)
"""Splits in the order of the report, the deciding one first."""


@dataclasses.dataclass(frozen=True)
class Standing:
    """The race of one condition, judged on one split.

    Attributes:
        condition: ``time`` or ``step``.
        split: ``train``, ``validation`` or ``test``.
        unit: of the times.
        r_max: upper limit of the score's integral.
        targets: target by workload.
        set_by: by workload, the optimizers that set the target, or its source.
        times: optimizer by workload, in ``unit``; ``inf`` = never, NaN = no run that counts.
        ratios: optimizer by workload, in ``[1, inf]``.
        scores: by optimizer, in ``[0, 1]``.
        intervals: of times, ratios and scores; None where single trials are not known.
    """

    condition: Condition
    split: Split
    unit: Unit
    r_max: float
    targets: pd.Series[float]
    times: pd.DataFrame
    ratios: pd.DataFrame
    scores: pd.Series[float]
    set_by: Mapping[str, str] = dataclasses.field(default_factory=dict)
    intervals: RaceIntervals | None = None

    @property
    def heading(self) -> str:
        """``Validation, time control``."""
        return f"{self.split}, {CONTROL[self.condition]}".capitalize()


def r_max_by_condition(r_max: float | Mapping[str, float] | None) -> dict[str, float]:
    """One r_max for each condition: the given ones, the defaults for the others.

    Raises:
        ValueError: an unknown condition.
    """
    if r_max is None:
        return dict(R_MAX)
    if not isinstance(r_max, Mapping):
        return dict.fromkeys(CONDITIONS, float(r_max))
    unknown = sorted(set(r_max) - set(CONDITIONS))
    if unknown:
        raise ValueError(f"r_max: expected limits for {', '.join(CONDITIONS)}, got {unknown}")
    return {**R_MAX, **r_max}


def standings(
    records: Sequence[RunRecord],
    *,
    r_max: float | Mapping[str, float] | None = None,
    mixed_machines: bool = False,
    include_suspect: bool = False,
    bootstrap: Bootstrap | None = None,
    setters: Collection[str] | None = None,
) -> list[Standing]:
    """Every condition and split in which the deciding metrics were evaluated, in fixed order.

    Runs whose seconds are suspect count under time control with ``include_suspect`` only.

    Times of runs from different machines or calibrations are compared with ``mixed_machines``
    only; without it there is no standing under time control then (see ``refused``). With
    ``bootstrap`` each standing has intervals. ``setters`` as for ``targets.target_table``.
    """
    limits = r_max_by_condition(r_max)
    records = with_suspect(records) if include_suspect else records
    return [
        _standing(records, condition, split, limits[condition], bootstrap, setters)
        for condition in CONDITIONS
        if mixed_machines or not refused(records, condition)
        for split in _splits(records, condition)
    ]


def refused(records: Sequence[RunRecord], condition: Condition) -> dict[str, dict[str, list[str]]]:
    """Differences that keep runs from being compared, by workload and tag; empty for none."""
    if condition != Condition.TIME:
        return {}
    return differences(trials(records, condition=condition), beside=records)


def headline(found: Sequence[Standing], condition: Condition) -> Standing | None:
    """The deciding standing of a condition: on validation, else on the first split present."""
    here = {standing.split: standing for standing in found if standing.condition == condition}
    return here.get(Split.VALIDATION) or next(iter(here.values()), None)


def headlines(found: Sequence[Standing]) -> list[Standing]:
    """The deciding standing of each condition with scores."""
    heads = (headline(found, condition) for condition in CONDITIONS)
    return [head for head in heads if head is not None]


def interval_ends(
    standing: Standing, what: Literal["scores", "times"]
) -> dict[tuple[str, ...], tuple[float, float, bool]]:
    """Low, high and few of scores (by optimizer) or times (by optimizer and workload)."""
    if standing.intervals is None:
        return {}
    table: pd.DataFrame = getattr(standing.intervals, what)
    keys = [name for name in ("optimizer", "workload") if name in table]
    return {
        tuple(row[: len(keys)]): (float(row[-3]), float(row[-2]), bool(row[-1]))
        for row in table[[*keys, "low", "high", "few"]].itertuples(index=False, name=None)
    }


def order(standings: Sequence[Standing], optimizers: Iterable[str]) -> list[str]:
    """Optimizers from the best to the last, by the headline scores of all conditions."""
    heads = headlines(standings)
    total = {name: sum(head.scores.get(name, 0.0) for head in heads) for name in optimizers}
    return sorted(total, key=lambda name: (-total[name], name))


_NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of an optimizer: the first and the last one that equal scores share."""

    first: int
    last: int

    @property
    def tied(self) -> int:
        """Number of optimizers that share it, itself included."""
        return self.last - self.first + 1

    def __str__(self) -> str:
        """``3``; ``3–7`` for a tie."""
        return str(self.first) if self.tied == 1 else f"{self.first}–{self.last}"

    def of(self, number: int) -> str:
        """``place 3 of 7``, ``a five-way tie for last of 7``."""
        if self.tied == 1:
            return f"place {self.first} of {number}"
        shared = f"places {self.first} to {self.last}"
        if self.first == 1:
            shared = "first"
        elif self.last == number:
            shared = "last"
        words = _NUMBERS[self.tied] if self.tied < len(_NUMBERS) else str(self.tied)
        return f"a {words}-way tie for {shared} of {number}"


def places(scores: pd.Series[float]) -> dict[str, Place]:
    """The place of each optimizer by score; those with equal scores share theirs."""
    rank = ranks(scores)
    tied = rank.value_counts()
    return {
        str(name): Place(int(first), int(first) + int(tied[first]) - 1)
        for name, first in rank.items()
    }


def directions(records: Iterable[RunRecord]) -> dict[tuple[str, str], Direction]:
    """The direction of each ``(workload, metric)`` that has one: deciding metrics and losses."""
    found: dict[tuple[str, str], Direction] = {}
    for record in records:
        found[record.workload, "loss"] = Direction.MINIMIZE
    for record in records:
        found[record.workload, record.metric] = record.direction
    return found


def _standing(
    records: Sequence[RunRecord],
    condition: Condition,
    split: Split,
    r_max: float,
    bootstrap: Bootstrap | None,
    setters: Collection[str] | None,
) -> Standing:
    unit = UNITS[condition]
    table = target_table(records, split=split, condition=condition, setters=setters)
    goals = table["target"]
    times = time_to_target(records, goals, split, unit, condition=condition, mixed_machines=True)
    found = standing_of(times, goals, condition=condition, split=split, r_max=r_max)
    found = dataclasses.replace(found, set_by={str(w): by for w, by in table["set_by"].items()})
    if bootstrap is None:
        return found
    each = trial_times(records, goals, split, unit, condition=condition)
    return dataclasses.replace(
        found, intervals=race_intervals(each, r_max=r_max, options=bootstrap)
    )


def standing_of(
    times: pd.DataFrame,
    targets: pd.Series[float],
    *,
    condition: Condition,
    split: Split,
    r_max: float,
) -> Standing:
    """The standing that follows from a table of times to target, optimizer by workload."""
    return Standing(
        condition=condition,
        split=split,
        unit=UNITS[condition],
        r_max=r_max,
        targets=targets,
        times=times,
        ratios=performance_ratios(times),
        scores=scores(times, r_max=r_max),
    )


def _splits(records: Iterable[RunRecord], condition: Condition) -> list[Split]:
    seen = {
        split
        for record in records
        if record.condition == condition
        for row in record.evaluations
        for split in SHOWN
        if f"{split}/{record.metric}" in row.metrics
    }
    return [split for split in SHOWN if split in seen]
