"""How large a gap pure chance gives: the scores of a race with exchanged labels.

Pure: from recorded runs to one value; seeded, and the order of runs never matters.

If all optimizers were the same, the labels of the runs of one workload and seed could be exchanged
without any effect but chance. So they are exchanged at random, within each workload and place of
the seed; targets are established anew from the runs that carry the setters' labels then, because
they come from the same runs; and the race is scored again. The gaps of many such races show what
chance alone gives with these workloads, seeds, budgets and targets. Fixed targets stay.

Sources: Fisher, The Design of Experiments, 1935 (permutation tests); Good, Permutation, Parametric,
and Bootstrap Tests of Hypotheses, 2005, https://doi.org/10.1007/b138696 (exchange within blocks);
Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010,
https://doi.org/10.2202/1544-6115.1585 (the p-value of drawn permutations).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from timetrial.framework.budget import TARGET_SHARE
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.scores.curves import Curve, Floats, curves
from timetrial.tracking.scores.normalised import by_workload, optimizers_of
from timetrial.tracking.scores.scoring import areas, ratios_to_best
from timetrial.tracking.scores.targets import given_targets, setting_runs

QUANTILES: Final = (0.5, 0.9, 0.95, 0.99)
"""Quantiles of the gaps under exchanged labels."""

Places = npt.NDArray[np.intp]

_TIE: Final = 1e-12  # gaps that differ by less are equal but for the order of a sum


@dataclasses.dataclass(frozen=True)
class NullTest:
    """Gaps between the scores of a race, and what chance alone gives.

    Attributes:
        leaders: the optimizers with the best score, sorted; more than one is a tie.
        lead: best score minus the second best, in [0, 1]; 0 for a tie.
        spread: best score minus the worst, in [0, 1].
        lead_p_value, spread_p_value: probability of a gap at least as large if all optimizers were
            the same, in (0, 1].
        quantiles: index ``lead``, ``spread``; columns ``QUANTILES``: gaps that chance alone exceeds
            with probability ``1 - q``.
        permutations: number of races with exchanged labels.

    All numbers are NaN with fewer than two optimizers.
    """

    leaders: tuple[str, ...]
    lead: float
    spread: float
    lead_p_value: float
    spread_p_value: float
    quantiles: pd.DataFrame
    permutations: int

    def limits(self, gap: str) -> dict[float, float]:
        """Gaps, ``lead`` or ``spread``, that chance exceeds with probability 1 - q, by q."""
        found = self.quantiles.loc[gap].to_numpy(dtype=float)
        return dict(zip(QUANTILES, map(float, found), strict=True))


def null_test(
    records: Sequence[RunRecord],
    *,
    split: Split,
    condition: Condition,
    r_max: float,
    setters: Collection[str] | None = None,
    at: float = TARGET_SHARE,
    permutations: int = 1000,
    seed: int = 0,
) -> NullTest:
    """Compares the leader's gap with those of races whose labels are exchanged.

    The p-values are those of the hypothesis that all optimizers are the same. A small one of the
    lead says that the leader's gap is no chance; it does not say which of the others differ.

    Args:
        records: runs, in any order; other conditions are ignored.
        split: ``train``, ``validation`` or ``test``.
        condition: ``time`` or ``step``.
        r_max: as for ``scoring.scores``.
        setters: as for ``targets.target_table``.
        at: share of the budget at which targets are taken.
        permutations: >= 1; the smallest p-value is ``1 / (1 + permutations)``.
        seed: of the permutations.

    Raises:
        ValueError: ``permutations`` out of range, or as for ``targets.target_table``.
    """
    if permutations < 1:
        raise ValueError(f"permutations: expected a whole number >= 1, got {permutations}")
    found = curves(records, split=split, condition=condition)
    names = optimizers_of(found)
    if len(names) < 2:
        return _nothing(names, permutations)
    here = [record for record in records if record.condition == condition]
    given = given_targets(here, split, condition)
    random = np.random.default_rng(seed)
    times = []
    for workload, runs in by_workload(found).items():
        block = _Block(runs, names)
        places = block.exchanged(permutations, random)
        if workload in given:
            goals = np.full(permutations + 1, given[workload][0])
        else:
            goals = block.goals(places, setters, at)
        times.append(block.times(places, goals))
    ratios = ratios_to_best(np.stack(times, axis=1), 0)  # optimizers, workloads, races
    return _compared(names, areas(ratios, r_max=r_max).mean(axis=1), permutations)


class _Block:
    """The runs of one workload; ``places`` say which run carries the n-th seed of each label."""

    def __init__(self, runs: Sequence[Curve], names: Sequence[str]) -> None:
        self.runs = runs
        self.names = names
        own: list[list[int]] = [[] for _ in names]
        for place, curve in enumerate(runs):
            own[names.index(curve.run.optimizer)].append(place)
        self.counts = [len(places) for places in own]
        self.own = np.zeros((len(names), max(self.counts)), dtype=np.intp)
        for label, places in enumerate(own):
            self.own[label, : len(places)] = places

    def exchanged(self, permutations: int, random: np.random.Generator) -> Places:
        """The race as it is, then with exchanged labels: shape ``(races, labels, seeds)``."""
        places = np.repeat(self.own[None], permutations + 1, axis=0)
        for seed in range(self.own.shape[1]):
            labels = np.array([k for k, count in enumerate(self.counts) if count > seed])
            order = np.argsort(random.random((permutations, len(labels))), axis=1)
            places[1:, labels, seed] = self.own[labels[order], seed]
        return places

    def goals(self, places: Places, setters: Collection[str] | None, at: float) -> Floats:
        """Target of every race, from the runs that carry a setter's label; NaN for none."""
        setting = setting_runs([curve.run for curve in self.runs], setters)
        labels = [self.names.index(name) for name in sorted({run.optimizer for run in setting})]
        values = np.array([curve.at_share(at) for curve in self.runs])
        medians = self._medians(values[:, None], places)[labels]
        down = self.runs[0].direction is Direction.MINIMIZE
        best = medians.min(axis=0, initial=math.inf) if down else medians.max(0, initial=-math.inf)
        return np.where(np.isfinite(best), best, math.nan)

    def times(self, places: Places, goals: Floats) -> Floats:
        """Median time to the race's target: shape ``(labels, races)``; inf without a run."""
        unique, where = np.unique(goals, return_inverse=True)
        times = np.stack([curve.times_to(unique) for curve in self.runs])
        return self._medians(times[:, where], places)

    def _medians(self, values: Floats, places: Places) -> Floats:
        """Median over the seeds of every label: shape ``(labels, races)``.

        Args:
            values: of every run, shape ``(runs, races)``, or ``(runs, 1)`` if equal in all races.
            places: from ``exchanged``.
        """
        races = np.arange(len(places))[:, None] if values.shape[1] > 1 else 0
        medians = np.full((len(self.names), len(places)), math.inf)
        for label, count in enumerate(self.counts):
            if count:
                mine = values[places[:, label, :count], races]
                medians[label] = np.median(mine, axis=1)
        return medians


def _nothing(names: Sequence[str], permutations: int) -> NullTest:
    quantiles = pd.DataFrame(math.nan, ["lead", "spread"], list(QUANTILES))
    nan = math.nan
    return NullTest(tuple(names), nan, nan, nan, nan, quantiles, permutations)


def _compared(names: Sequence[str], scores: Floats, permutations: int) -> NullTest:
    """The gaps of the first race among those of all; scores: shape ``(optimizers, races)``."""
    ordered = np.sort(scores, axis=0)
    gaps = np.stack([ordered[-1] - ordered[-2], ordered[-1] - ordered[0]])
    own, others = gaps[:, 0], gaps[:, 1:]
    hits = (others >= own[:, None] - _TIE).sum(axis=1)
    p_values = (1 + hits) / (1 + permutations)
    quantiles = np.quantile(others, QUANTILES, axis=1, method="higher").T
    best = scores[:, 0] >= ordered[-1, 0] - _TIE
    return NullTest(
        leaders=tuple(name for name, leads in zip(names, best, strict=True) if leads),
        lead=float(own[0]) if own[0] > _TIE else 0.0,
        spread=float(own[1]),
        lead_p_value=float(p_values[0]),
        spread_p_value=float(p_values[1]),
        quantiles=pd.DataFrame(quantiles, ["lead", "spread"], list(QUANTILES)),
        permutations=permutations,
    )
