"""Expected best of k tuning trials against untuned optimizers.

Pure: from the trials of studies to text, cells, panels and numbers; the estimator is
``tracking.scores.hpo_curves``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.record import schema
from timetrial.tracking.report.cells import (
    Cell,
    Table,
    coverage_text,
    header,
    interval_text,
    name_cell,
    plain,
)
from timetrial.tracking.report.comparison import contender
from timetrial.tracking.report.plots import Line, Panel
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Block, Plots, Section, Text, plots_of
from timetrial.tracking.report.standings import CONTROL
from timetrial.tracking.report.style import better, metric_name
from timetrial.tracking.scores.final_quality import final_value
from timetrial.tracking.scores.hpo_curves import HpoCurve, hpo_curve, trials_to_beat
from timetrial.tracking.scores.targets import counts

SPLIT = Split.VALIDATION


@dataclasses.dataclass(frozen=True)
class Tuned:
    """One study on a workload of the race, under the race's budget.

    Attributes:
        study: its name.
        optimizer: the tuned optimizer, as the race calls it untuned.
        workload, condition, metric, direction: those of its trials.
        curve: expected best final validation metric of k trials.
        references: mean final validation metric of each optimizer of the race.
    """

    study: str
    optimizer: str
    workload: str
    condition: Condition
    metric: str
    direction: Direction
    curve: HpoCurve
    references: Mapping[str, float]

    @property
    def name(self) -> str:
        """Label of the tuned optimizer, ``adam[tuned]``."""
        return f"{self.optimizer}[tuned]"


def section(results: Results) -> Section:
    """Tuning studies against the race; reasons for those left out."""
    studies, refused = tuned(results)
    return Section(
        name="tuning",
        title="Performance over tuning trials",
        menu="Tuning",
        blocks=[
            *(_shown(results, studies) if studies else [_nothing(results)]),
            *(Text(f"Not compared: study {line}.", "note") for line in refused),
        ],
        frames={"tuning": tuning_frame(studies)},
    )


def _shown(results: Results, studies: Sequence[Tuned]) -> list[Block]:
    covered = coverage_text(value for one in studies for value in one.curve.coverage)
    text = (
        "Expected best final validation metric of k tuning trials, with its interval as a band "
        f"({covered}: it narrows for k near the number of trials). Level lines show the "
        "same optimizer untuned, and learned optimizers. The best trial is chosen by the metric "
        "shown, which slightly favours tuning."
    )
    panels = tuning_panels(results, studies)
    return [
        Text(text),
        tuning_table(results, studies),
        Plots(plots_of("tuning", "Expected best of k trials", panels)),
    ]


def _nothing(results: Results) -> Text:
    if results.published:
        return Text("The paper’s tables hold no tuning trials.")
    return Text(
        Markup(
            "No tuning study on this race’s workloads and budgets is recorded "
            "(<code>timetrial tune</code> makes one)."
        )
    )


def tuned(results: Results) -> tuple[list[Tuned], list[str]]:
    """The studies comparable with the race, and reasons against the others."""
    groups: dict[tuple[str, str, str, Condition], dict[str, RunRecord]] = {}
    for run in results.studies:
        if counts(run) or run.reason == "PRUNED":
            name = run.tags[schema.STUDY]
            points = groups.setdefault((name, run.workload, run.optimizer, run.condition), {})
            points[run.tags.get(schema.POINT, run.run_id)] = run  # a later attempt replaces it
    found, refused = [], []
    for (name, workload, optimizer, condition), points in sorted(groups.items()):
        trials = list(points.values())
        one = trials[0]
        values = [final_value(run, f"{SPLIT}/{one.metric}") for run in trials]
        raced = {
            run.budget
            for run in results.records
            if run.workload == workload and run.condition == condition
        }
        if not raced:
            refused.append(f"{name}: {workload} is not raced under {CONTROL[condition]}")
        elif {run.budget for run in trials} != raced:
            refused.append(f"{name}: its trials had another budget than the race")
        elif not np.isfinite(values).any():
            refused.append(f"{name}: no trial has a final {SPLIT} metric")
        else:
            curve = hpo_curve(values, one.direction, confidence=results.level)
            references = _references(results.quality, condition, workload, one.metric)
            found.append(
                Tuned(name, optimizer, workload, condition, one.metric, one.direction, curve,
                      references)
            )  # fmt: skip
    return found, refused


def _references(
    quality: pd.DataFrame, condition: Condition, workload: str, metric: str
) -> dict[str, float]:
    here = quality[
        (quality["condition"] == condition)
        & (quality["workload"] == workload)
        & (quality["split"] == SPLIT)
        & (quality["metric"] == metric)
    ]
    whole = here[np.isfinite(here["mean"])]
    return dict(zip(whole["optimizer"], whole["mean"], strict=True))


def tuning_table(results: Results, studies: Sequence[Tuned]) -> Table:
    """Number of trials until the tuned optimizer beats the untuned and the learned one."""
    learned = contender(results)
    body = []
    for one in studies:
        expected, last = one.curve.expected, len(one.curve.expected) - 1
        body.append(
            [
                name_cell(one.name),
                Cell(one.workload),
                Cell(one.condition),
                Cell(str(last + 1)),
                *(
                    Cell(plain(expected[k], 4), interval_text(one.curve.low[k], one.curve.high[k]))
                    for k in (0, last)
                ),
                _beaten(one, one.optimizer),
                _beaten(one, learned),
                Cell(one.study, kind="code"),
            ]
        )
    head = header(
        "optimizer", "workload", "control", "trials", "expected best of 1", "of all trials",
        "trials until better than untuned", f"until better than {learned or 'a learned one'}",
        "study",
    )  # fmt: skip
    return Table("tuning", "Tuning trials against untuned optimizers", head, body)


def _beaten(one: Tuned, rival: str | None) -> Cell:
    value = one.references.get(rival, math.nan) if rival else math.nan
    if math.isnan(value):
        return Cell("no run", kind="none")
    needed = trials_to_beat(one.curve, value, one.direction)
    text = f"not within {len(one.curve.trials)}" if needed is None else str(needed)
    return Cell(text, f"{rival}: {plain(value, 4)}")


def tuning_panels(results: Results, studies: Sequence[Tuned]) -> list[Panel]:
    """Expected best of k, per workload and condition, with untuned optimizers as level lines."""
    panels = []
    for key in dict.fromkeys((one.workload, one.condition) for one in studies):
        here = [one for one in studies if (one.workload, one.condition) == key]
        longest = max(len(one.curve.trials) for one in here)
        ends = np.array([1.0, float(max(longest, 2))])
        lines = {
            one.name: Line(
                one.name, one.curve.trials.astype(np.float64), one.curve.expected,
                one.curve.low, one.curve.high,
            )
            for one in here
        }  # fmt: skip
        for one in here:
            for name, value in one.references.items():
                if results.entrants[name].learned or name == one.optimizer:
                    lines[name] = Line(name, ends, np.array([value, value]))
        words = f"{metric_name(here[0].metric)} ({better(here[0].direction)})"
        panels.append(
            Panel(
                title=f"{here[0].workload}, {CONTROL[here[0].condition]}",
                x_label="tuning trials k",
                y_label=f"final {SPLIT} {words}",
                lines=list(lines.values()),
                x_limits=(float(ends[0]), float(ends[1])),
                whole_x=True,
            )
        )
    return panels


def tuning_frame(studies: Sequence[Tuned]) -> pd.DataFrame:
    """Columns study, workload, optimizer, condition, metric, trials, expected, low, high."""
    rows = [
        (one.study, one.workload, one.optimizer, one.condition, one.metric, *point)
        for one in studies
        for point in zip(
            one.curve.trials.tolist(),
            one.curve.expected.tolist(),
            one.curve.low.tolist(),
            one.curve.high.tolist(),
            strict=True,
        )
    ]
    names = "study workload optimizer condition metric trials expected low high"
    return pd.DataFrame(rows, columns=names.split())
