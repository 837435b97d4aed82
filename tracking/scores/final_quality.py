"""Final metrics of recorded runs.

Pure: functions of ``RunRecord``; no I/O. ``tracking.scores.targets`` says which runs count.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Split
from timetrial.tracking.scores.evaluations import last_metrics
from timetrial.tracking.scores.targets import (
    CONDITIONS,
    SPLITS,
    by_workload,
    diverged,
    ended_early,
    trials,
)


def final_value(record: RunRecord, key: str) -> float:
    """The metric ``"<split>/<metric>"`` of the last evaluation; NaN if the run ended early."""
    return _final_metrics(record, Split(key.split("/", 1)[0])).get(key, math.nan)


def _final_metrics(record: RunRecord, split: Split) -> Mapping[str, float]:
    return {} if ended_early(record) else last_metrics(record, split)


def final_values(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Every final metric of every trial: the input of ``uncertainty.quality_intervals``.

    Returns:
        Columns condition, workload, optimizer, split, metric, seed, value; NaN where a run ended
        early or never evaluated the metric.
    """
    rows = []
    for condition in CONDITIONS:
        for workload, runs in by_workload(trials(records, condition=condition)).items():
            keys = _metric_keys(runs)
            for split in sorted({Split(key.split("/", 1)[0]) for key in keys}):
                for run in runs:
                    final = _final_metrics(run, split)
                    for key in (key for key in keys if key.startswith(f"{split}/")):
                        cell = condition, workload, run.optimizer, *key.split("/", 1), run.seed
                        rows.append((*cell, final.get(key, math.nan)))
    names = "condition workload optimizer split metric seed value"
    return pd.DataFrame(rows, columns=names.split())


def final_quality(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Mean and standard deviation over seeds of every final metric of every split.

    Both are taken over the trials with a finite final metric (sample deviation, NaN for one
    trial); ``runs`` counts all trials, so that ``finite < runs`` shows what the mean leaves out.

    Returns:
        Columns condition, workload, optimizer, split, metric, mean, std, runs, finite, diverged;
        one row for every metric of a workload and every optimizer of the condition, with or
        without runs, sorted.
    """
    rows = []
    for condition in CONDITIONS:
        here = [record for record in records if record.condition == condition]
        runs: defaultdict[tuple[str, str], list[RunRecord]] = defaultdict(list)
        for run in trials(here, condition=condition):
            runs[run.workload, run.optimizer].append(run)
        for workload in sorted({record.workload for record in here}):
            keys = _metric_keys([record for record in here if record.workload == workload])
            for optimizer in sorted({record.optimizer for record in here}):
                group = runs[workload, optimizer]
                for key in keys:
                    summary = _mean_and_std([final_value(run, key) for run in group])
                    lost = sum(map(diverged, group))
                    rows.append(
                        (condition, workload, optimizer, *key.split("/", 1), *summary, lost)
                    )
    names = "condition workload optimizer split metric mean std runs finite diverged"
    return pd.DataFrame(rows, columns=names.split())


def _mean_and_std(values: Sequence[float]) -> tuple[float, float, int, int]:
    """Mean and sample deviation of the finite values, how many there are, and how many finite."""
    finite = [value for value in values if math.isfinite(value)]
    mean = float(np.mean(finite)) if finite else math.nan
    std = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
    return mean, std, len(values), len(finite)


def _metric_keys(records: Iterable[RunRecord]) -> list[str]:
    """The metrics that any run has evaluated, in order of split, the deciding metric first."""
    keys: set[str] = set()
    deciding: set[str] = set()
    for record in records:
        deciding.add(record.metric)
        for row in record.evaluations:
            keys.update(row.metrics)
    splits: dict[str, int] = {split: place for place, split in enumerate(SPLITS)}

    def place(key: str) -> tuple[int, bool, str]:
        split, metric = key.split("/", 1)
        return splits[split], metric not in deciding, metric

    return sorted((key for key in keys if key.split("/", 1)[0] in SPLITS and "/" in key), key=place)
