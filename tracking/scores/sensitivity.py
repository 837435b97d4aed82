"""How the scores depend on what was chosen: targets, who sets them, r_max.

Pure: from recorded runs to one table.

The variants of a race, one choice changed at a time:

* ``chosen``: the race as it is scored.
* ``share``: targets taken at 60, 65, ..., 90 % of the budget.
* ``relaxed``: targets moved 0, 5, 10, 20 % of the way from the target back to the untrained model,
  whatever the direction of the metric.
* ``setter``: one optimizer that sets targets sets none any more but still competes, for each in
  turn; and every workload without its own setters (label ``without each setter``). A workload that
  nobody else can set keeps its target.
* ``r_max``: 1.5, 3 and 4.

Sources: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (targets at 75 % of the budget; r_max 3 and 1.5); Dahl et al.,
Benchmarking Neural Network Training Algorithms, 2023, https://arxiv.org/abs/2306.07179 (r_max 4;
scores depend on these choices).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from timetrial.framework.budget import TARGET_SHARE
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Split
from timetrial.tracking.scores.curves import Curve, Floats, curves
from timetrial.tracking.scores.normalised import by_workload, untrained
from timetrial.tracking.scores.ranks import places
from timetrial.tracking.scores.scoring import scores
from timetrial.tracking.scores.targets import given_targets, setting_runs

SHARES: Final = (0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90)
"""Shares of the budget at which targets are taken."""

RELAXATIONS: Final = (0.0, 0.05, 0.10, 0.20)
"""Parts of the way from the target back to the untrained model."""

LIMITS: Final = (1.5, 3.0, 4.0)
"""Values of r_max: the paper's two and AlgoPerf's."""

KINDS: Final = ("chosen", "share", "relaxed", "setter", "r_max")
"""Kinds of variants, in the order of the table."""

Targets = Mapping[str, float]


class _Variant(NamedTuple):
    kind: str
    value: float
    label: str
    targets: Targets
    r_max: float


def sensitivity(
    records: Sequence[RunRecord],
    *,
    split: Split,
    condition: Condition,
    r_max: float,
    setters: Collection[str] | None = None,
    at: float = TARGET_SHARE,
) -> pd.DataFrame:
    """Scores under every variant of the race.

    Fixed targets depend neither on shares nor on setters: their workloads keep them, and a race
    with nothing else has no variants of these two kinds.

    Args:
        records: runs, in any order; other conditions are ignored.
        split: ``train``, ``validation`` or ``test``.
        condition: ``time`` or ``step``.
        r_max: of the race, as for ``scoring.scores``.
        setters: as for ``targets.target_table``.
        at: share of the budget at which the race takes its targets.

    Returns:
        Columns kind, value (share, part, r_max; NaN for the other two kinds), label (the value in
        words), optimizer, score, rank, tie; sorted by kind, variant and optimizer. A rank is that
        within the variant; ``tie`` marks equal scores.
    """
    found = curves(records, split=split, condition=condition)
    here = [record for record in records if record.condition == condition]
    given = {w: target for w, (target, _) in given_targets(here, split, condition).items()}
    race = _Race(found, sorted({record.optimizer for record in here}), given, setters)
    variants = list(_variants(race, r_max, at))
    tables = []
    for variant, times in zip(variants, race.times([v.targets for v in variants]), strict=True):
        score = scores(times, r_max=variant.r_max)
        table = pd.DataFrame({"score": score}).join(places(score)).reset_index(names="optimizer")
        table.insert(0, "kind", variant.kind)
        table.insert(1, "value", variant.value)
        table.insert(2, "label", variant.label)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


class _Race:
    """Runs by workload, for times to any targets."""

    def __init__(
        self,
        found: Sequence[Curve],
        optimizers: list[str],
        given: Targets,
        setters: Collection[str] | None,
    ) -> None:
        self.runs = by_workload(found)
        self.optimizers = optimizers
        self.given = given
        self.setters = setters

    def levels(self, at: float) -> dict[str, dict[str, float]]:
        """By workload without a fixed target: the median value of every setter."""
        found: dict[str, dict[str, float]] = {}
        for workload, runs in self.runs.items():
            if workload in self.given:
                continue
            setting = {id(run) for run in setting_runs([c.run for c in runs], self.setters)}
            values: dict[str, list[float]] = {}
            for curve in (curve for curve in runs if id(curve.run) in setting):
                values.setdefault(curve.run.optimizer, []).append(curve.at_share(at))
            found[workload] = {o: float(np.median(seeds)) for o, seeds in values.items()}
        return found

    def targets(self, levels: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The best level by workload, or the fixed target."""
        best = {
            workload: self.runs[workload][0].direction.best(filter(math.isfinite, values.values()))
            for workload, values in levels.items()
        }
        return {**best, **self.given}

    def relaxed(self, targets: Targets, part: float) -> dict[str, float]:
        """Targets moved towards the untrained model, where it is known to be worse."""
        moved = {}
        for workload, target in targets.items():
            runs = self.runs.get(workload, [])
            start = untrained(runs)
            worse = bool(runs) and runs[0].direction.best([start, target]) == target
            moved[workload] = target
            if worse and math.isfinite(start):
                moved[workload] += part * (start - target)
        return moved

    def times(self, targets: Sequence[Targets]) -> list[pd.DataFrame]:
        """Median times to each set of targets: as ``targets.time_to_target``."""
        shape = len(targets), len(self.optimizers), len(self.runs)
        medians = np.full(shape, math.nan)
        for place, (workload, runs) in enumerate(self.runs.items()):
            goals = np.array([one.get(workload, math.nan) for one in targets])
            times: dict[str, list[Floats]] = {}
            for curve in runs:
                times.setdefault(curve.run.optimizer, []).append(curve.times_to(goals))
            for optimizer, seeds in times.items():
                medians[:, self.optimizers.index(optimizer), place] = np.median(seeds, axis=0)
        return [pd.DataFrame(table, self.optimizers, list(self.runs)) for table in medians]


def _variants(race: _Race, r_max: float, at: float) -> Iterator[_Variant]:
    levels = race.levels(at)
    chosen = race.targets(levels)
    yield _Variant("chosen", math.nan, "as scored", chosen, r_max)
    if levels:
        for share in SHARES:
            targets = race.targets(race.levels(share))
            yield _Variant("share", share, f"{100 * share:.0f} %", targets, r_max)
    for part in RELAXATIONS:
        label = f"+{100 * part:.0f} %"
        yield _Variant("relaxed", part, label, race.relaxed(chosen, part), r_max)
    set_by = {
        workload: {o for o, value in values.items() if value == chosen[workload]}
        for workload, values in levels.items()
    }
    for label in sorted(set().union(*set_by.values())):
        without = _without(levels, {w: {label} for w in levels})
        yield _Variant("setter", math.nan, f"without {label}", race.targets(without), r_max)
    if levels:
        targets = race.targets(_without(levels, set_by))
        yield _Variant("setter", math.nan, "without each setter", targets, r_max)
    for limit in LIMITS:
        yield _Variant("r_max", limit, f"{limit:g}", chosen, limit)


def _without(
    levels: Mapping[str, Mapping[str, float]], setters: Mapping[str, Collection[str]]
) -> dict[str, Mapping[str, float]]:
    """Levels without some setters, where others with a finite level remain."""
    found: dict[str, Mapping[str, float]] = {}
    for workload, values in levels.items():
        rest = {o: v for o, v in values.items() if o not in setters[workload]}
        found[workload] = rest if any(map(math.isfinite, rest.values())) else values
    return found
