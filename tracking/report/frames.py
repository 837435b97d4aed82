"""The report's tables as raw numbers: what goes into the CSV files.

Pure: from recorded runs and standings to tidy data frames; the columns are those of the paper's
tables in ``tracking/paper`` where there is one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.tracking.report.standings import ListedRun, Standing
from timetrial.tracking.scores.scoring import performance_profile
from timetrial.tracking.scores.targets import SPLITS, UNITS, final_value, trial_times

_NOT_SETTINGS: Final = (  # tags that say which run it is, not what it ran on
    *("workload", "optimizer", "seed", "condition", "budget", "metric", "direction", "mlflow."),
    *(
        "config_hash",
        "stop_reason",
        "diverged",
        "spool",
        "pid",
        "process_start",
        "run_",
        "group",
        "sets_",
    ),
)


def config_hash(run: RunRecord) -> str:
    """The recorded identity of the run's configuration, or else one made from it (hex)."""
    if "config_hash" in run.tags:
        return run.tags["config_hash"]
    lines = "\n".join(f"{key}={run.config[key]}" for key in sorted(run.config))
    return hashlib.sha256(lines.encode()).hexdigest() if lines else ""


def settings_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Columns setting, value, runs: what was recorded, the most frequent value first."""
    found = Counter(
        (key, value)
        for record in records
        for key, value in record.tags.items()
        if not key.startswith(_NOT_SETTINGS)
    )
    rows = sorted(((*pair, count) for pair, count in found.items()), key=_by_frequency)
    return pd.DataFrame(rows, columns=["setting", "value", "runs"])


def profile_frame(standings: Sequence[Standing]) -> pd.DataFrame:
    """Columns condition, split, optimizer, tau, share: every step of every profile to r_max."""
    rows = []
    for s in standings:
        ratios = s.ratios.to_numpy()
        taus = sorted({1.0, s.r_max, *ratios[ratios <= s.r_max].tolist()})
        for name, shares in performance_profile(s.times, taus).iterrows():
            rows += [(s.condition, s.split, name, *pair) for pair in shares.items()]
    return pd.DataFrame(rows, columns=["condition", "split", "optimizer", "tau", "share"])


def score_frame(standings: Sequence[Standing]) -> pd.DataFrame:
    """Columns condition, split, optimizer, score, low, high, trials, few, first, r_max.

    The interval, the fewest trials and the share of resamples in which the optimizer is first are
    left out where single trials are not known.
    """
    tables = []
    for s in standings:
        table = s.scores.rename("score").rename_axis("optimizer").reset_index()
        if s.intervals is not None:
            ends = s.intervals.scores[["optimizer", "low", "high", "trials", "few"]]
            first = s.intervals.first.rename("first").reset_index()
            table = table.merge(ends, how="left").merge(first, how="left")
        table.insert(0, "condition", s.condition)
        table.insert(1, "split", s.split)
        tables.append(table.assign(r_max=s.r_max))
    names = ["condition", "split", "optimizer", "score", "r_max"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)


def time_frame(standings: Sequence[Standing]) -> pd.DataFrame:
    """Columns condition, split, optimizer, workload, value, unit, ratio: one row per cell.

    And low, high, trials, few where single trials are known.
    """
    tables = []
    for s in standings:
        rows = [
            (s.condition, s.split, name, w, s.times.loc[name, w], s.unit, s.ratios.loc[name, w])
            for name in s.times.index
            for w in s.times.columns
        ]
        names = ["condition", "split", "optimizer", "workload", "value", "unit", "ratio"]
        table = pd.DataFrame(rows, columns=names)
        if s.intervals is not None:
            keys = ["optimizer", "workload"]
            ends = s.intervals.times[[*keys, "low", "high", "trials", "few"]]
            table = table.merge(ends, on=keys, how="left")
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["value"])


def trial_frame(records: Sequence[RunRecord], standings: Sequence[Standing]) -> pd.DataFrame:
    """Time to target of every single trial, in seconds and in steps."""
    tables = []
    for s in standings:
        for unit in UNITS.values():
            table = trial_times(records, s.targets, s.split, unit, condition=s.condition)
            table.insert(0, "condition", s.condition)
            table.insert(1, "split", s.split)
            tables.append(table.assign(unit=unit))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def target_frame(standings: Sequence[Standing]) -> pd.DataFrame:
    """Columns condition, split, workload, target."""
    rows = [(s.condition, s.split, w, value) for s in standings for w, value in s.targets.items()]
    return pd.DataFrame(rows, columns=["condition", "split", "workload", "target"])


def run_frame(rows: Sequence[ListedRun]) -> pd.DataFrame:
    """One row per run with every final metric of its workload's deciding metric."""
    table = []
    for row in rows:
        run = row.record
        entry: dict[str, object] = {
            "condition": row.condition,
            "workload": row.workload,
            "optimizer": row.optimizer,
            "seed": row.seed,
            "outcome": row.outcome,
            "counts": row.counted,
        }
        if run is not None:
            entry |= {
                "run_id": run.run_id,
                "status": run.status,
                "reason": run.reason,
                "budget": run.budget,
                "step": run.step,
                "train_seconds": run.train_seconds,
                "metric": run.metric,
                "config_hash": config_hash(run),
            }
            entry |= {split: final_value(run, f"{split}/{run.metric}") for split in SPLITS}
        table.append(entry)
    return pd.DataFrame(table)


def _by_frequency(row: tuple[str, str, int]) -> tuple[str, int, str]:
    return (row[0], -row[2], row[1])
