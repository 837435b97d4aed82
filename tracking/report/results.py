"""The numbers of a report, of recorded runs or of the paper's own tables.

Pure: from runs to one value; no wording, no drawing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction
from timetrial.tracking.record import schema
from timetrial.tracking.report.entrants import Entrant, contender, entrants_of
from timetrial.tracking.report.listing import ListedRun, Planned, listed_runs
from timetrial.tracking.report.measures import improvement
from timetrial.tracking.report.standings import Standing, directions, headlines, order, standings
from timetrial.tracking.scores.final_quality import final_quality, final_values
from timetrial.tracking.scores.machines import left_out, with_suspect
from timetrial.tracking.scores.null_test import NullTest, null_test
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.uncertainty import quality_intervals

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
        setters: labels of the optimizers that set targets; by default those of
            ``targets.may_set_targets``.
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
    setters: Sequence[str] | None = None
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
        improvement: columns ``measures.COLUMNS``: final deciding metrics of every pair, final
            losses and times to target of the learned optimizer in question (``contender``) and each
            other one; empty where single trials are not known.
        metrics: deciding metric by workload.
        directions: by workload and metric.
        optimizers: labels from the best to the last.
        entrants: recorded facts about each optimizer, by label.
        options: how the report is made.
        listed_runs: every run, missing ones too.
        null_tests: by condition, what chance alone gives on the deciding split; empty where
            single trials are not known.
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
    null_tests: Mapping[Condition, NullTest] = dataclasses.field(default_factory=dict)
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
        setters=options.setters,
    )
    ends = quality_intervals(final_values(raced), options=options.bootstrap)
    entrants = entrants_of(raced)
    ranked = order(found, {run.optimizer for run in raced})
    one = contender([entrants[name] for name in ranked])
    learned = [name for name in ranked if entrants[name].learned]
    return Results(
        records=raced,
        standings=found,
        quality=final_quality(raced).merge(
            ends[[*_CELL, "low", "high", "coverage"]], on=_CELL, how="left"
        ),
        improvement=improvement(raced, found, one, learned, options.bootstrap),
        metrics={run.workload: run.metric for run in raced},
        directions=directions(raced),
        optimizers=ranked,
        entrants=entrants,
        options=options,
        listed_runs=listed_runs(raced, options.planned),
        null_tests=_null_tests(raced, found, options),
        left_out=left_out(raced),
        studies=[run for run in ordered if schema.STUDY in run.tags],
    )


def _null_tests(
    records: Sequence[RunRecord], found: Sequence[Standing], options: ReportOptions
) -> dict[Condition, NullTest]:
    """The null test of each condition with scores of two optimizers or more."""
    return {
        head.condition: null_test(
            records,
            split=head.split,
            condition=head.condition,
            r_max=head.r_max,
            setters=options.setters,
            seed=options.bootstrap.seed,
        )
        for head in headlines(found)
        if len(head.scores) > 1
    }


def _identity(record: RunRecord) -> tuple[str, str, str, int, str]:
    return (record.condition, record.workload, record.optimizer, record.seed, record.run_id)
