"""AlgoPerf's scoring rules as options: from runs or times to its leaderboard.

Pure: records and tables in, tables out. ``tracking.scores.scoring`` holds the paper's rules, which
these extend; ``tracking.read.algoperf_logs`` reads AlgoPerf's log directories.

Sources: Dahl et al., Benchmarking Neural Network Training Algorithms, 2023,
https://arxiv.org/abs/2306.07179; Kasimbeg et al., Accelerating Neural Network Training: An
Analysis of the AlgoPerf Competition, 2025, https://arxiv.org/abs/2502.15015; the rules and the
scorer of https://github.com/mlcommons/algorithmic-efficiency (docs/DOCUMENTATION.md, scoring/).

What the rules of 2023 (``FORK``: the tree that the VeLO paper started from) and those of the
leaderboards (``V05``, ``V06``) have in common: a target is reached at ``<=`` or ``>=``, NaN never
reaches it, a miss is inf, the profile is integrated by trapezoids over 100 factors. In what they
differ:

====================  ===========================  ============================================
piece                 2023                         leaderboards
====================  ===========================  ============================================
time of a workload    best of all trials           best trial of each study, median over studies
largest factor        the largest finite ratio     4
4 times the best      no rule                      beyond it, a time is inf before the ratios
held-out variants     none                         a miss on a variant is a miss on its workload
denominator           workloads in the table       base workloads of the benchmark
====================  ===========================  ============================================

Where text and code of the leaderboards differ: the text takes the trial with the smallest time of
each study, the code the one whose evaluation at the target has the smallest number
(``best_trial="evaluation"``), ties in whatever order the file system lists the trials; here they go
to the smaller time. The published scores of both leaderboards follow the code so read, all 19 of
them; by the smallest time, some of the first leaderboard's change by up to 0.005.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Split
from timetrial.tracking.record import schema
from timetrial.tracking.scores.scoring import checked_times, ratios_to_best
from timetrial.tracking.scores.targets import Unit

BASE_V05: Final = (
    "criteo1tb",
    "fastmri",
    "imagenet_resnet",
    "imagenet_vit",
    "librispeech_conformer",
    "librispeech_deepspeech",
    "ogbg",
    "wmt",
)
"""The eight workloads that both leaderboards score on."""

HELD_OUT_V05: Final = (
    "criteo1tb_embed_init",
    "fastmri_tanh",
    "imagenet_resnet_large_bn_init",
    "librispeech_conformer_layernorm",
    "ogbg_model_size",
    "wmt_glu_tanh",
)
"""The held-out variants that were drawn for the first leaderboard."""

RUNTIMES_V05: Final[Mapping[str, float]] = {
    "criteo1tb": 7703,
    "fastmri": 8859,
    "imagenet_resnet": 63_008,
    "imagenet_vit": 77_520,
    "librispeech_conformer": 61_068,
    "librispeech_deepspeech": 55_506,
    "ogbg": 18_477,
    "wmt": 48_151,
}
"""Longest allowed runtimes of the first leaderboard in seconds (self-tuning: three times that)."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """How times are chosen and scored.

    Attributes:
        workloads: the base workloads: the columns that are scored, and their number is the
            denominator, whether somebody ran them or not. None takes the table's own.
        variants: held-out variants that belong to them. None takes every other column as one.
        cutoff: times above this multiple of the best of their workload are inf, or None.
        r_max: largest factor of the integral; None takes the largest finite ratio.
        points: points of the trapezoid rule, evenly spaced from 1 to ``r_max``; None is exact.
        log_scale: points spaced evenly in log10 of the factor, and integrated over that.
        best_trial: which trial of a study counts: the one with the smallest ``time``, or with the
            smallest number of the ``evaluation`` at which it arrived (ties: the smaller time).
        by_study: median over the best trials of the studies; False takes the best of all trials.
        studies, trials: how many a submission must have; only ``shortfalls`` looks at them.
    """

    workloads: tuple[str, ...] | None = None
    variants: tuple[str, ...] | None = ()
    cutoff: float | None = 4.0
    r_max: float | None = 4.0
    points: int | None = 100
    log_scale: bool = False
    best_trial: Literal["time", "evaluation"] = "time"
    by_study: bool = True
    studies: int = 3
    trials: int = 5

    def __post_init__(self) -> None:
        if self.r_max is not None and not 1 < self.r_max < math.inf:
            raise ValueError(f"r_max: expected a finite number > 1 or None, got {self.r_max}")
        if self.points is not None and self.points < 2:
            raise ValueError(f"points: expected at least 2 or None, got {self.points}")
        if self.points is None and self.log_scale:
            raise ValueError("log_scale: expected a number of points, got points=None")
        if self.cutoff is not None and not self.cutoff >= 1:
            raise ValueError(f"cutoff: expected a multiple >= 1 or None, got {self.cutoff}")
        if self.best_trial not in ("time", "evaluation"):
            raise ValueError(f"best_trial: expected time or evaluation, got {self.best_trial!r}")


V05: Final = Rules(BASE_V05, HELD_OUT_V05, best_trial="evaluation", studies=5)
"""The first leaderboard (2024): 8 workloads, 6 held-out variants, 5 studies of 5 trials."""

V06: Final = Rules(BASE_V05, None, best_trial="evaluation")
"""The second leaderboard (2025): no variants are drawn, 3 studies of 5 trials.

Whatever else was run counts as a variant, as in its scorer; there is nothing else in its logs.
"""

FORK: Final = Rules(
    None, (), cutoff=None, r_max=None, best_trial="evaluation", by_study=False, studies=1
)
"""The scorer of mid-2023."""


def study_times(
    records: Iterable[RunRecord],
    targets: Mapping[str, float] | pd.Series[float],
    rules: Rules,
    *,
    split: Split = Split.VALIDATION,
    unit: Unit = "seconds",
) -> pd.DataFrame:
    """Time to target per submission and workload by AlgoPerf's choice among studies and trials.

    Evaluations count in the order in which they were recorded. All records count, however they
    ended; a study without any record does not count, while one without a hit is inf.

    Args:
        records: runs; the tag ``study`` groups trials, a run without it is a study of its own.
        targets: by workload; nobody reaches a target that is not given.
        rules: which trial of a study counts, and whether studies do.
        split: ``train``, ``validation`` or ``test``.
        unit: charged ``seconds`` (AlgoPerf's ``score`` column) or ``steps``.

    Returns:
        Index optimizer, columns workload, sorted; inf = never, NaN = no record.
    """
    goals = {str(workload): float(target) for workload, target in targets.items()}
    hits: defaultdict[tuple[str, str], dict[str, list[tuple[int, float]]]] = defaultdict(dict)
    for run in records:
        target = goals.get(run.workload, math.nan)
        study = run.tags.get(schema.STUDY, f"seed {run.seed}") if rules.by_study else ""
        trials = hits[run.optimizer, run.workload].setdefault(study, [])
        hit = _first_hit(run, f"{split}/{run.metric}", target, unit)
        if hit is not None:
            trials.append(hit)
    times = {cell: _median([*map(_chooser(rules), s.values())]) for cell, s in hits.items()}
    table = pd.Series(times, dtype=float)
    if table.empty:
        return pd.DataFrame()
    table.index.names = ["optimizer", "workload"]
    return table.unstack("workload").sort_index(axis=0).sort_index(axis=1)


def ratios(times: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Ratios to the best on the base workloads, after variants and cut-off.

    In this order: a variant whose base is not reached is not reached; what is above the cut-off
    is not reached; a base one of whose variants is not reached is not reached; only then is
    divided by the best of those that are left.

    Args:
        times: index optimizer, columns workload and variant; inf = never, NaN = never ran.
        rules: the rules.

    Returns:
        Index optimizer, columns base workload, values in ``[1, inf]``.

    Raises:
        TypeError, ValueError: ``times`` is no table of times >= 0.
    """
    table = pd.DataFrame(checked_times(times), index=times.index, columns=times.columns)
    bases = _bases(table, rules)
    given = table.columns.difference(list(bases)) if rules.variants is None else rules.variants
    variants = {variant: _base_of(variant, bases) for variant in given}
    table = table.reindex(columns=[*bases, *variants]).fillna(math.inf)
    for variant, base in variants.items():
        if base in table:
            table[variant] = table[variant].where(np.isfinite(table[base]), math.inf)
    if rules.cutoff is not None and len(table):
        table = table.where(table <= rules.cutoff * table.min(axis=0), math.inf)
    for variant, base in variants.items():
        if base in table:
            table[base] = table[base].where(np.isfinite(table[variant]), math.inf)
    values = ratios_to_best(table[list(bases)].to_numpy(), axis=0)
    return pd.DataFrame(values, table.index, list(bases))


def profile(times: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Performance profile on the rules' grid of factors.

    Returns:
        Index optimizer; columns the factors (their log10 with ``log_scale``), ``points`` of them,
        or 100 where the rules integrate exactly.
    """
    found = ratios(times, rules)
    r_max = _r_max(found, rules)
    points = rules.points or 100
    grid = np.linspace(1.0, r_max, points)
    if rules.log_scale:
        grid = np.logspace(0.0, math.log10(r_max), points)
    hits = (found.to_numpy()[:, :, None] <= grid).sum(axis=1)
    columns = np.log10(grid) if rules.log_scale else grid
    return pd.DataFrame(hits / max(found.shape[1], 1), index=found.index, columns=columns)


def scores(times: pd.DataFrame, rules: Rules) -> pd.Series[float]:
    """AlgoPerf's benchmark score: the mean height of the profile between 1 and ``r_max``.

    Returns:
        Index optimizer in the order of ``times``, name ``score``, in ``[0, 1]``; NaN where
        ``r_max`` is left to the table and no ratio in it is above 1.
    """
    if rules.points is not None:
        table = profile(times, rules)
        grid = table.columns.to_numpy(dtype=float)
        span = grid[-1] - grid[0]
        heights = np.trapezoid(table.to_numpy(), grid, axis=1)
        values = heights / span if span > 0 else np.full(len(table), math.nan)
        return pd.Series(values, index=table.index, name="score")
    found = ratios(times, rules)
    r_max = _r_max(found, rules)
    lengths = r_max - np.clip(found.to_numpy(), 1.0, r_max)
    values = lengths.sum(axis=1) / max(found.shape[1], 1)
    values = values / (r_max - 1) if r_max > 1 else np.full(len(found), math.nan)
    return pd.Series(values, index=found.index, name="score")


def shortfalls(records: Iterable[RunRecord], rules: Rules) -> list[str]:
    """Where submissions do not have the workloads, studies and trials that the rules ask for."""
    cells: defaultdict[str, dict[str, Counter[str]]] = defaultdict(dict)
    for run in records:
        study = run.tags.get(schema.STUDY, f"seed {run.seed}")
        cells[run.optimizer].setdefault(run.workload, Counter())[study] += 1
    lines = []
    for optimizer, found in sorted(cells.items()):
        for workload in (*(rules.workloads or ()), *(rules.variants or ())):
            if workload not in found:
                lines.append(f"{optimizer}: no run of {workload}")
        for workload, studies in sorted(found.items()):
            if len(studies) != rules.studies:
                lines.append(
                    f"{optimizer} on {workload}: {len(studies)} studies instead of {rules.studies}"
                )
            lines += [
                f"{optimizer} on {workload}, {study}: {number} trials instead of {rules.trials}"
                for study, number in sorted(studies.items())
                if number != rules.trials
            ]
    return lines


def _first_hit(run: RunRecord, key: str, target: float, unit: Unit) -> tuple[int, float] | None:
    """Number and time of the first recorded evaluation at or beyond the target."""
    for place, row in enumerate(run.evaluations):
        if run.direction.reached(row.metrics.get(key, math.nan), target):
            return place, row.train_seconds if unit == "seconds" else float(row.step)
    return None


def _chooser(rules: Rules) -> Callable[[Sequence[tuple[int, float]]], float]:
    """Time of a study: of the trial that the rules choose among those that arrived."""

    def choose(hits: Sequence[tuple[int, float]]) -> float:
        if not hits:
            return math.inf
        return min(hits)[1] if rules.best_trial == "evaluation" else min(t for _, t in hits)

    return choose


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _bases(table: pd.DataFrame, rules: Rules) -> tuple[str, ...]:
    if rules.workloads is not None:
        return rules.workloads
    return tuple(c for c in table.columns if c not in (rules.variants or ()))


def _base_of(variant: str, bases: Iterable[str]) -> str:
    """The first base workload whose name is part of the variant's, or else itself."""
    return next((base for base in bases if base in variant), variant)


def _r_max(found: pd.DataFrame, rules: Rules) -> float:
    if rules.r_max is not None:
        return rules.r_max
    values = found.to_numpy()
    return float(values[np.isfinite(values)].max(initial=1.0))
