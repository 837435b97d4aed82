"""The paper's setup as it printed it: Tables 4-8, with what follows from them.

Pure: from the paper's tables to text, cells and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd
from markupsafe import Markup

from timetrial.framework.types import Condition
from timetrial.tracking.report.cells import NOTHING, Cell, Table, header, name_cell, plain
from timetrial.tracking.report.paper import read
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Block, Section, Text, headed
from timetrial.tracking.report.standings import CONTROL
from timetrial.tracking.report.style import metric_name
from timetrial.tracking.scores.algoperf_workloads import STEP_HINTS_V05

_FILES: Final = {
    "paper_calibration": "hardware_calibration.csv",
    "paper_budgets": "targets.csv",
    "paper_step_estimates": "velo_step_estimate.csv",
    "paper_hyperparameters": "hyperparameters.csv",
}
_SHORT: Final = 0.75  # share of the steps that the short prompt tells
_SOURCE: Final = Markup(
    "Numbers as printed by Rezk et al., "
    '<a href="https://arxiv.org/abs/2310.18191">Is Scaling Learned Optimizers Worth It?</a>, 2023 '
    "(licence CC BY 4.0), Tables 4–8; columns called “computed” or “AlgoPerf” are not the paper’s."
)


def section(results: Results) -> Section | None:
    """Tables 4-8 with remarks; None for a race."""
    if not results.published:
        return None
    frames = {name: read(file) for name, file in _FILES.items()}
    calibration = frames["paper_calibration"]
    tables = [
        reference_table(calibration),
        calibration_table(calibration),
        budget_table(frames["paper_budgets"]),
        estimate_table(frames["paper_step_estimates"]),
        hyperparameter_table(frames["paper_hyperparameters"]),
    ]
    blocks: list[Block] = [Text(_SOURCE, "note"), *headed(tables)]
    blocks += [Text(line, "note") for line in remarks(calibration)]
    return Section(
        name="paper-setup",
        title="Budgets, targets, step estimates, hyperparameters (Tables 4–8)",
        menu="Tables 4–8",
        blocks=blocks,
        frames=frames,
    )


def reference_table(rows: pd.DataFrame) -> Table:
    """Table 4: the target-setting runs on the reference machine, beside AlgoPerf's step hints."""
    body = []
    for row in _rows(rows):
        hint = STEP_HINTS_V05[str(row["workload"])]
        off = abs(row["v100x8_steps"] - hint) > 1  # the paper rounds up
        body.append([
            name_cell(str(row["workload"])),
            Cell(str(row["target_setting_algorithm"])),
            Cell(_whole(row["v100x8_steps"]), kind="bad" if off else ""),
            Cell(_whole(hint)),
            Cell(_whole(row["v100x8_runtime_s"])),
            Cell(plain(row["v100x8_runtime_s"] / row["v100x8_steps"], 4)),
        ])  # fmt: skip
    heads = ("workload", "optimizer", "steps", "AlgoPerf’s step hint", "runtime, s")
    title = "Table 4: target-setting runs on 8 × V100"
    return Table("paper_table_4", title, header(*heads, "s per step, computed"), body)


def calibration_table(rows: pd.DataFrame) -> Table:
    """Table 5: times per step on A100s, and the budgets of seconds that follow."""
    body = []
    for row in _rows(rows):
        body.append([
            name_cell(str(row["workload"])),
            Cell(_whole(row["calibration_steps"])),
            Cell(_whole(row["a100x1_runtime_s"])),
            Cell(_seconds(row["a100x1_step_s"])),
            Cell(_whole(row["a100x2_runtime_s"])),
            Cell(_seconds(row["a100x2_step_s"])),
            Cell(_whole(row["gpus_used"])),
            Cell(_whole(row["max_allowed_time_s"])),
            Cell(_whole(computed_budget(row))),
        ])  # fmt: skip
    heads = ("steps", "runtime, s", "s per step", "runtime, s", "s per step", "GPUs", "s")
    spans = [("timed", 1), ("1 × A100", 2), ("2 × A100", 2), ("budget", 3)]
    title = "Table 5: times per step on A100s, and the budgets"
    names = header("workload", *heads, "s, computed")
    return Table("paper_table_5", title, names, body, spans)


def computed_budget(row: Mapping[str, Any]) -> int:
    """Charged seconds of a row of Table 5: Table 4's steps at the time per step here, rounded down.

    Equal to the reference runtime times the ratio of the times per step (appendix A).
    """
    return int(row["v100x8_steps"] * row[f"a100x{row['gpus_used']}_step_s"])


def budget_table(rows: pd.DataFrame) -> Table:
    """Table 6: budgets and targets of both conditions."""
    body = [
        [
            name_cell(str(row["workload"])),
            Cell(CONTROL[Condition(str(row["condition"]))]),
            Cell(f"{_whole(row['budget'])} {row['budget_unit']}"),
            Cell(metric_name(str(row["metric"]))),
            Cell(f"{row['train_target']:.5g}"),
            Cell(f"{row['validation_target']:.5g}"),
        ]
        for row in _rows(rows)
    ]
    heads = ("workload", "control", "budget", "metric", "train target", "validation target")
    return Table("paper_table_6", "Table 6: budgets and targets", header(*heads), body)


def estimate_table(rows: pd.DataFrame) -> Table:
    """Table 7: how the steps that the learned optimizer is told were estimated."""
    body = [
        [
            name_cell(str(row["workload"])),
            Cell(_whole(row["estimate"])),
            Cell(_whole(row["gpus"])),
            Cell(_whole(row["steps_run"])),
            Cell(_whole(row["observed_runtime_s"])),
            Cell(_seconds(row["step_s"])),
            Cell(_whole(row["estimated_total_steps"])),
            Cell(_whole(row["trial1_estimated_steps"])),
            Cell(_whole(row["trial1_actual_steps"])),
            Cell(_whole(math.floor(_SHORT * row["trial1_actual_steps"]))),
        ]
        for row in _rows(rows)
    ]
    heads = ("workload", "estimate", "GPUs", "steps", "runtime, s", "s per step", "steps in budget")
    told = ("trial 1", "trials 2 and 3", "short, computed")
    spans = [("measured", 5), ("estimated", 1), ("steps told", 3)]
    title = "Table 7: VeLO’s estimates of steps"
    return Table("paper_table_7", title, header(*heads, *told), body, spans)


def hyperparameter_table(rows: pd.DataFrame) -> Table:
    """Table 8: the hyperparameters of the hand-made optimizers."""
    names = [str(name) for name in rows.columns]
    body = [
        [name_cell(str(row[names[0]])), *(_setting(row[name]) for name in names[1:])]
        for row in rows.to_dict("records")
    ]
    heads = [name.replace("_", " ") for name in names]
    return Table("paper_table_8", "Table 8: default hyperparameters", header(*heads), body)


def remarks(rows: pd.DataFrame) -> list[str]:
    """What follows from Tables 4, 5 and 8, and what does not."""
    agree = sum(computed_budget(row) == row["max_allowed_time_s"] for row in _rows(rows))
    lines = [
        f"{agree} of {len(rows)} budgets of Table 5 follow from its times per step and Table 4’s "
        "steps, rounded down to whole seconds. Our file holds Tables 4 and 5 as one; which of "
        "their columns stands where in the paper is our reading."
    ]
    for row in _rows(rows):
        printed, hint = row["v100x8_steps"], STEP_HINTS_V05[str(row["workload"])]
        if abs(printed - hint) > 1:
            other = computed_budget({**row, "v100x8_steps": hint})
            lines.append(
                f"{row['workload']}: the paper prints {_whole(printed)} steps, AlgoPerf’s step "
                f"hint is {_whole(hint)}. The paper’s budget of "
                f"{_whole(row['max_allowed_time_s'])} s follows from the printed number; "
                f"AlgoPerf’s would give {_whole(other)} s. The schedules here use AlgoPerf’s."
            )
    lines.append(
        "Table 8’s end learning rate is a factor of the peak in the code behind the paper: the "
        "schedules end at 0.01 % of it."
    )
    return lines


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _setting(value: object) -> Cell:
    if isinstance(value, float):
        return NOTHING if math.isnan(value) else Cell(f"{value:g}")
    return Cell(str(value).replace("_", " "))


def _seconds(number: float) -> str:
    """With all printed digits."""
    return f"{number:.10g}"


def _whole(number: float) -> str:
    return f"{int(number):,}"
