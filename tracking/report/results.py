"""The numbers of a report, of recorded runs or of the paper's own tables.

Pure: from runs to one value; no wording, no drawing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.record import schema
from timetrial.tracking.report.entrants import Entrant, entrants_of
from timetrial.tracking.report.listing import ListedRun, Planned, listed_runs
from timetrial.tracking.report.standings import SHOWN, Standing, directions, order, standings
from timetrial.tracking.scores.machines import left_out, with_suspect
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.targets import CONDITIONS, final_quality, final_values
from timetrial.tracking.scores.uncertainty import probability_of_improvement, quality_intervals

RATE_COLUMNS: Final = ("workload", "optimizer", "step", "learning_rate")
"""Columns of a table of learning rates."""

_CELL = ["condition", "workload", "optimizer", "split", "metric"]


def _no_rates() -> pd.DataFrame:
    return pd.DataFrame(columns=list(RATE_COLUMNS))


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """How a report is made.

    Attributes:
        title: heading of the page.
        r_max: upper limit of the score's integral, > 1, one for all or one per condition; by
            default those that reproduce the paper, 3 (time) and 1.5 (step).
        meta: facts to show under the heading, in this order (suite, command, ...). A clock time
            would make reports of the same runs differ.
        planned: the planned runs; those without a record are listed as missing. By default every
            optimizer on every workload with every seed that occurs.
        mixed_machines: score the seconds of runs from different machines or calibrations, too;
            by default there are no scores under time control then.
        include_suspect: count runs under time control whose seconds are suspect, too.
        bootstrap: how intervals are made; by default 95 % percentile intervals.
        rates: learning rates to draw, columns ``RATE_COLUMNS``, in order of step.
        run_url: address of a run, ``{run_id}`` in place of its id; "" sets no links.
    """

    title: str = "Timetrial"
    r_max: float | Mapping[str, float] | None = None
    meta: Mapping[str, str] = dataclasses.field(default_factory=dict)
    planned: Planned | None = None
    mixed_machines: bool = False
    include_suspect: bool = False
    bootstrap: Bootstrap = dataclasses.field(default_factory=Bootstrap)
    rates: pd.DataFrame = dataclasses.field(default_factory=_no_rates)
    run_url: str = ""


@dataclasses.dataclass(frozen=True)
class Results:
    """A scored race.

    Attributes:
        records: the runs of the race; empty for published tables.
        standings: every condition and split.
        quality: columns of ``targets.final_quality`` and low, high (NaN where single trials are
            not known).
        improvement: columns condition, split and those of ``probability_of_improvement``, on the
            final deciding metrics; empty where single trials are not known.
        metrics: deciding metric by workload.
        directions: by workload and metric.
        optimizers: labels from the best to the last.
        entrants: recorded facts about each optimizer, by label.
        options: how the report is made.
        listed_runs: every run, missing ones too.
        left_out: runs that scores under time control leave out, because their seconds are suspect.
        studies: trials of tuning studies, which do not belong to the race.
        published: True for the paper's own tables.
    """

    records: Sequence[RunRecord]
    standings: Sequence[Standing]
    quality: pd.DataFrame
    improvement: pd.DataFrame
    metrics: Mapping[str, str]
    directions: Mapping[tuple[str, str], Direction]
    optimizers: Sequence[str]
    entrants: Mapping[str, Entrant]
    options: ReportOptions
    listed_runs: Sequence[ListedRun] = ()
    left_out: Sequence[RunRecord] = ()
    studies: Sequence[RunRecord] = ()
    published: bool = False

    @property
    def level(self) -> float:
        """Nominal coverage of the intervals, in (0, 1)."""
        return self.options.bootstrap.level

    @property
    def level_text(self) -> str:
        """The same in words: ``95 %``."""
        return f"{100 * self.level:g}\N{NO-BREAK SPACE}%"


def results_of(records: Sequence[RunRecord], options: ReportOptions | None = None) -> Results:
    """Scores recorded runs; arguments as for ``write_report``."""
    options = options or ReportOptions()
    ordered = sorted(records, key=_identity)
    raced = [run for run in ordered if schema.STUDY not in run.tags]
    raced = with_suspect(raced) if options.include_suspect else raced
    found = standings(
        raced,
        r_max=options.r_max,
        mixed_machines=options.mixed_machines,
        bootstrap=options.bootstrap,
    )
    ends = quality_intervals(final_values(raced), options=options.bootstrap)
    return Results(
        records=raced,
        standings=found,
        quality=final_quality(raced).merge(ends[[*_CELL, "low", "high"]], on=_CELL, how="left"),
        improvement=_improvement(raced, options.bootstrap),
        metrics={run.workload: run.metric for run in raced},
        directions=directions(raced),
        optimizers=order(found, {run.optimizer for run in raced}),
        entrants=entrants_of(raced),
        options=options,
        listed_runs=listed_runs(raced, options.planned),
        left_out=left_out(raced),
        studies=[run for run in ordered if schema.STUDY in run.tags],
    )


def _improvement(records: Sequence[RunRecord], bootstrap: Bootstrap) -> pd.DataFrame:
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
                here[["workload", "optimizer", "seed", "value"]], directions=ways, options=bootstrap
            )
            table.insert(0, "condition", condition)
            table.insert(1, "split", split)
            tables.append(table)
    columns = ["condition", "split", "optimizer", "other", "probability", "low", "high"]
    columns += ["workloads", "trials", "few"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _identity(record: RunRecord) -> tuple[str, str, str, int, str]:
    return (record.condition, record.workload, record.optimizer, record.seed, record.run_id)
