"""Everything that a report says, as numbers: of recorded runs, or of the paper's own tables.

Pure: from runs or published tables to one value; wording and drawing come later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.record import schema
from timetrial.tracking.report.standings import (
    SHOWN,
    ListedRun,
    Planned,
    Standing,
    directions,
    order,
    rows,
    standings,
)
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.targets import CONDITIONS, final_quality, final_values
from timetrial.tracking.scores.uncertainty import probability_of_improvement, quality_intervals

_CELL = ["condition", "workload", "optimizer", "split", "metric"]


@dataclasses.dataclass(frozen=True)
class Results:
    """A race, scored.

    Attributes:
        records: the runs of the race; empty for published tables.
        standings: every condition and split.
        quality: columns of ``targets.final_quality`` and low, high (NaN where single trials are
            not known).
        improvement: columns condition, split and those of ``probability_of_improvement``, on the
            final deciding metrics; empty where single trials are not known.
        metrics: deciding metric by workload.
        directions: by workload and metric.
        optimizers: from the best to the last.
        rows: every run, missing ones too.
        studies: the trials of tuning studies; they are no part of the race.
        level: share that intervals should cover, in (0, 1).
        published: True for the paper's own tables.
    """

    records: Sequence[RunRecord]
    standings: Sequence[Standing]
    quality: pd.DataFrame
    improvement: pd.DataFrame
    metrics: Mapping[str, str]
    directions: Mapping[tuple[str, str], Direction]
    optimizers: Sequence[str]
    rows: Sequence[ListedRun] = ()
    studies: Sequence[RunRecord] = ()
    level: float = 0.95
    published: bool = False


def results_of(
    records: Sequence[RunRecord],
    *,
    r_max: float | Mapping[str, float] | None = None,
    planned: Planned | None = None,
    mixed_machines: bool = False,
    options: Bootstrap | None = None,
) -> Results:
    """The results of recorded runs; the arguments are those of ``write_report``."""
    options = options or Bootstrap()
    ordered = sorted(records, key=_identity)
    raced = [run for run in ordered if schema.STUDY not in run.tags]
    found = standings(raced, r_max=r_max, mixed_machines=mixed_machines, options=options)
    ends = quality_intervals(final_values(raced), options=options)[[*_CELL, "low", "high"]]
    return Results(
        records=raced,
        standings=found,
        quality=final_quality(raced).merge(ends, on=_CELL, how="left"),
        improvement=_improvement(raced, options),
        metrics={run.workload: run.metric for run in raced},
        directions=directions(raced),
        optimizers=order(found, {run.optimizer for run in raced}),
        rows=rows(raced, planned),
        studies=[run for run in ordered if schema.STUDY in run.tags],
        level=options.level,
    )


def _improvement(records: Sequence[RunRecord], options: Bootstrap) -> pd.DataFrame:
    """Probability of improvement on the final deciding metrics, per condition and split."""
    deciding = {run.workload: run.metric for run in records}
    ways = {run.workload: run.direction for run in records}
    values = final_values(records)
    values = values[values["metric"] == values["workload"].map(deciding)]
    tables = []
    for condition in CONDITIONS:
        for split in SHOWN:
            here = values[(values["condition"] == condition) & (values["split"] == split)]
            if here.empty:
                continue
            table = probability_of_improvement(
                here[["workload", "optimizer", "seed", "value"]], directions=ways, options=options
            )
            table.insert(0, "condition", condition)
            table.insert(1, "split", split)
            tables.append(table)
    columns = ["condition", "split", "optimizer", "other", "probability", "low", "high"]
    columns += ["workloads", "trials", "few"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _identity(record: RunRecord) -> tuple[str, str, str, int, str]:
    return (record.condition, record.workload, record.optimizer, record.seed, record.run_id)
