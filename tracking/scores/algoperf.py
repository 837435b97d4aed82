"""AlgoPerf's leaderboards: from runs or times to scores, by the rules of ``algoperf_rules``.

Pure: records and tables in, tables out. ``tracking.scores.scoring`` holds the paper's rules;
``tracking.read.algoperf_logs`` reads AlgoPerf's log directories.

Source: the scorer of https://github.com/mlcommons/algorithmic-efficiency (scoring/). Two of its
faults are not repeated; neither matters to the published logs. It takes the time of a hit as
written, also where charged seconds go back after a resume (10, 20, 5): here the hit gets the
largest time so far, because what was charged stays charged. It lets -inf reach the target of a
loss: here only finite values do.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Split
from timetrial.tracking.record import schema
from timetrial.tracking.scores.algoperf_rules import Rules
from timetrial.tracking.scores.evaluations import first_hit
from timetrial.tracking.scores.scoring import checked_times, ratios_to_best, speedups, wins
from timetrial.tracking.scores.targets import Unit


def study_times(
    records: Iterable[RunRecord],
    targets: Mapping[str, float] | pd.Series[float],
    rules: Rules,
    *,
    split: Split = Split.VALIDATION,
    unit: Unit = "seconds",
) -> pd.DataFrame:
    """Time to target per submission and workload: the median over ``best_trials``.

    Further arguments are those of ``best_trials``.

    Returns:
        Index optimizer, columns workload, sorted; inf = never, NaN = no record.
    """
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for run, time in best_trials(records, targets, rules, split=split, unit=unit):
        times[run.optimizer, run.workload].append(time)
    table = pd.Series({cell: float(np.median(found)) for cell, found in times.items()}, dtype=float)
    if table.empty:
        return pd.DataFrame()
    table.index.names = ["optimizer", "workload"]
    return table.unstack("workload").sort_index(axis=0).sort_index(axis=1)


def best_trials(
    records: Iterable[RunRecord],
    targets: Mapping[str, float] | pd.Series[float],
    rules: Rules,
    *,
    split: Split = Split.VALIDATION,
    unit: Unit = "seconds",
) -> list[tuple[RunRecord, float]]:
    """The trial that counts of each study, and its time to target; inf = never.

    Evaluations count in the order in which they were recorded. All records count, however they
    ended. A study without a hit gives its first trial; a study without a record gives none.

    Args:
        records: runs; the tag ``study`` groups trials, a run without it is a study of its own.
        targets: by workload; one in a run's tags (``schema.GIVEN_TARGET``) goes before it. A
            workload without a target is never reached.
        rules: which trial of a study counts, and whether studies do.
        split: ``train``, ``validation`` or ``test``.
        unit: charged ``seconds`` (AlgoPerf's ``score`` column) or ``steps``.
    """
    goals = {str(workload): float(target) for workload, target in targets.items()}
    studies: dict[tuple[str, str, str], list[tuple[RunRecord, tuple[float, float]]]] = {}
    for run in records:
        study = _study(run) if rules.by_study else ""
        given = run.tags.get(f"{schema.GIVEN_TARGET}{split}")
        target = goals.get(run.workload, math.nan) if given is None else float(given)
        hit = _first_hit(run, f"{split}/{run.metric}", target, unit)
        key = hit if rules.best_trial == "evaluation" else hit[::-1]
        studies.setdefault((run.optimizer, run.workload, study), []).append((run, key))
    best = [min(trials, key=lambda trial: trial[1]) for trials in studies.values()]
    return [(run, key[1] if rules.best_trial == "evaluation" else key[0]) for run, key in best]


def ratios(times: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Ratios to the best on the base workloads, after variants and cut-off.

    In this order: a variant is missed where its base is missed; times above the cut-off are missed;
    a base is missed where one of its variants is missed; the rest is divided by the best.

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


def largest_factor(times: pd.DataFrame, rules: Rules) -> float:
    """Upper limit of the score's integral: the rules', or the largest finite ratio."""
    return _r_max(ratios(times, rules), rules)


def leaderboard(times: pd.DataFrame, rules: Rules, baseline: str) -> pd.DataFrame:
    """Scores, targets reached and speed-ups of every submission, best score first.

    A speed-up is the geometric mean over the base workloads of the baseline's time divided by the
    submission's. As in AlgoPerf, a miss counts as the longest allowed runtime plus 1 s. Rules
    without runtimes leave out workloads that either of the two never reaches.

    Args:
        times: as for ``ratios``.
        rules: the rules.
        baseline: submission that speed-ups are over.

    Returns:
        Index optimizer; columns ``score``, ``reached`` (targets of base workloads), ``counted``
        (those that the cut-off and the variants leave), ``wins`` (base workloads on which it is
        the fastest), ``workloads`` (the denominator), ``speedup``, ``compared`` (number of
        workloads that the speed-up is the mean of).

    Raises:
        KeyError: no such baseline.
        TypeError, ValueError: as for ``ratios``.
    """
    within = ratios(times, rules)
    base = times.reindex(columns=within.columns).fillna(math.inf)
    limits = None
    if rules.runtimes is not None and set(within.columns) <= set(rules.runtimes):
        limits = {str(w): rules.runtimes[w] + 1 for w in within.columns}
    faster = speedups(base, baseline, budgets=limits)
    table = pd.DataFrame(
        {
            "score": scores(times, rules),
            "reached": np.isfinite(base).sum(axis=1),
            "counted": np.isfinite(within).sum(axis=1),
            "wins": wins(base),
            "workloads": within.shape[1],
            "speedup": faster["speedup"],
            "compared": faster["workloads"],
        },
        index=times.index,
    )
    return table.sort_index().sort_values("score", ascending=False, kind="stable")


def shortfalls(records: Iterable[RunRecord], rules: Rules) -> list[str]:
    """The workloads, studies and trials that the rules require and a submission lacks.

    Runs without the tag ``study`` are studies of one trial, whatever the rules require.
    """
    cells: defaultdict[str, dict[str, Counter[str]]] = defaultdict(dict)
    tagged = set()
    for run in records:
        cells[run.optimizer].setdefault(run.workload, Counter())[_study(run)] += 1
        tagged |= {(run.optimizer, run.workload)} if schema.STUDY in run.tags else set()
    lacks: defaultdict[str, list[str]] = defaultdict(list)
    for optimizer, found in sorted(cells.items()):
        for workload in (*(rules.workloads or ()), *(rules.variants or ())):
            if workload not in found:
                lacks[f"{optimizer}: no run of"].append(workload)
        for workload, studies in sorted(found.items()):
            if len(studies) != rules.studies:
                text = f"{optimizer}: {len(studies)} studies instead of {rules.studies} on"
                lacks[text].append(workload)
            for study, number in sorted(studies.items()):
                if number != rules.trials and (optimizer, workload) in tagged:
                    text = f"{optimizer}: {number} trials instead of {rules.trials} on"
                    lacks[text].append(f"{workload} ({study})")
    return [f"{text} {', '.join(where)}" for text, where in lacks.items()]


def _study(run: RunRecord) -> str:
    return run.tags.get(schema.STUDY, f"seed {run.seed}")


def _first_hit(run: RunRecord, key: str, target: float, unit: Unit) -> tuple[float, float]:
    """Number and time of the first recorded evaluation that reaches the target; inf = never."""
    values = np.array([row.metrics.get(key, math.nan) for row in run.evaluations])
    times = np.array(
        [row.train_seconds if unit == "seconds" else row.step for row in run.evaluations]
    )
    return first_hit(values, times, target, run.direction) or (math.inf, math.inf)


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
