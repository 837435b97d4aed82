"""All runs, recorded or missing, with their outcomes and evaluations.

Pure: from results to text, cells and numbers.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Split
from timetrial.tracking.record import schema
from timetrial.tracking.report.cells import Cell, Table, header, name_cell, plain
from timetrial.tracking.report.exports import parquet
from timetrial.tracking.report.listing import ListedRun, outcome_counts
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Block, Section, Text, headed
from timetrial.tracking.scores.final_quality import final_value
from timetrial.tracking.scores.machines import suspect
from timetrial.tracking.scores.targets import SPLITS


def section(results: Results) -> Section:
    """Unfinished runs, then all runs, with links into MLflow."""
    evaluations = evaluation_frame(results.records)
    return Section(
        name="runs",
        title="Runs",
        menu="Runs",
        blocks=_blocks(results),
        frames={"runs": run_frame(results.listed_runs), "evaluations": evaluations},
        files={"evaluations.parquet": parquet(evaluations)} if len(evaluations) else {},
    )


def _blocks(results: Results) -> list[Block]:
    if results.published:
        return [Text("The paper publishes no single runs.")]
    listed, url = results.listed_runs, results.options.run_url
    unfinished = [run for run in listed if run.outcome != "finished"]
    if not listed:
        return [Text(outcome_counts(listed))]
    text = Markup(
        f"{outcome_counts(listed)} The last column opens the run in MLflow while "
        "<code>timetrial ui</code> serves it."
    )
    tables = [
        run_table(unfinished, url, name="unfinished_runs", title="Runs that did not finish"),
        run_table(listed, url, name="runs", title="All runs"),
    ]
    return [Text(text), *headed(tables)]


def run_table(listed: Sequence[ListedRun], run_url: str, *, name: str, title: str) -> Table:
    """One row per run, of any outcome.

    ``run_url`` is the address of a run, ``{run_id}`` in place of its id; "" sets no links.
    """
    names = (
        "optimizer, workload, control, seed, outcome, stop reason, steps, charged s, "
        "final metric, counts, config, run"
    )
    kind = "long fit left" if name == "runs" else "fit left"
    body = [_run_cells(run, run_url) for run in listed]
    return Table(name, title, header(*names.split(", ")), body, kind=kind)


def _run_cells(listed: ListedRun, run_url: str) -> list[Cell]:
    run = listed.record
    cells = [
        name_cell(listed.optimizer),
        Cell(listed.workload),
        Cell(listed.condition),
        Cell(str(listed.seed)),
        Cell(listed.outcome, kind="" if listed.outcome == "finished" else "bad"),
    ]
    counted = Cell("yes" if listed.counted else "no", kind="" if listed.counted else "bad")
    code = Cell("", kind="code")
    if run is None:
        return [*cells, Cell(""), Cell(""), Cell(""), Cell("–"), counted, code, code]
    value = final_value(run, f"{_deciding_split(run)}/{run.metric}")
    return [
        *cells,
        Cell(f"{run.reason.lower()}{', seconds suspect' if suspect(run) else ''}"),
        Cell(f"{run.step:,}"),
        Cell(plain(run.train_seconds, 4)),
        Cell(plain(value, 4)),
        counted,
        Cell(config_hash(run)[:8], kind="code"),
        Cell(run.run_id[:8], kind="code", link=run_url.replace("{run_id}", run.run_id)),
    ]


def _deciding_split(run: RunRecord) -> Split:
    for split in (Split.VALIDATION, Split.TEST, Split.TRAIN):
        if any(f"{split}/{run.metric}" in row.metrics for row in run.evaluations):
            return split
    return Split.VALIDATION


def config_hash(run: RunRecord) -> str:
    """The recorded identity of the run's configuration, or else one made from it (hex)."""
    if "config_hash" in run.tags:
        return run.tags["config_hash"]
    lines = "\n".join(f"{key}={run.config[key]}" for key in sorted(run.config))
    return hashlib.sha256(lines.encode()).hexdigest() if lines else ""


def run_frame(listed: Sequence[ListedRun]) -> pd.DataFrame:
    """One row per run with every final value of its workload's deciding metric."""
    return pd.DataFrame([_run_numbers(run) for run in listed])


def _run_numbers(listed: ListedRun) -> dict[str, object]:
    entry: dict[str, object] = {
        "condition": listed.condition,
        "workload": listed.workload,
        "optimizer": listed.optimizer,
        "seed": listed.seed,
        "outcome": listed.outcome,
        "counts": listed.counted,
    }
    run = listed.record
    if run is None:
        return entry
    return entry | {
        "run_id": run.run_id,
        "status": run.status,
        "reason": run.reason,
        "budget": run.budget,
        "step": run.step,
        "train_seconds": run.train_seconds,
        "metric": run.metric,
        "config_hash": config_hash(run),
        "seconds_suspect": run.tags.get(schema.SECONDS_SUSPECT, ""),
        **{split.value: final_value(run, f"{split}/{run.metric}") for split in SPLITS},
    }


def evaluation_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Every evaluated value of every run, one row each, in order of the runs and steps.

    Args:
        records: runs, of any status, as ``load_runs`` returns them.

    Returns:
        Columns ``run_id``, ``condition``, ``workload``, ``optimizer``, ``seed``, ``status``,
        ``step`` (updates made), ``train_seconds`` (charged seconds), ``split``, ``metric`` and
        ``value``; the report's ``evaluations.csv`` has the same.
    """
    names = ("run_id", "condition", "workload", "optimizer", "seed", "status")
    of_runs = pd.DataFrame([[getattr(run, name) for name in names] for run in records])
    steps, seconds, sizes, values = list[int](), list[float](), list[int](), list[float]()
    codes: list[int] = []
    known: dict[str, int] = {}  # place of each key in the table of splits and metrics
    totals = []
    for run in records:
        start = len(values)
        for row in run.evaluations:
            keys = _evaluated(tuple(row.metrics))
            steps.append(row.step)
            seconds.append(row.train_seconds)
            sizes.append(len(keys))
            values += [row.metrics[key] for key in keys]
            codes += [known.setdefault(key, len(known)) for key in keys]
        totals.append(len(values) - start)
    if not values:
        return pd.DataFrame(columns=[*names, "step", "train_seconds", "split", "metric", "value"])
    table = of_runs.take(np.repeat(np.arange(len(records)), totals)).reset_index(drop=True)
    table.columns = pd.Index(names)
    splits = pd.DataFrame([key.split("/", 1) for key in known], columns=["split", "metric"])
    return table.assign(
        step=np.repeat(steps, sizes),
        train_seconds=np.repeat(seconds, sizes),
        **splits.take(codes).reset_index(drop=True),
        value=values,
    )


@functools.lru_cache(maxsize=256)
def _evaluated(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of evaluated metrics, sorted."""
    return tuple(sorted(key for key in keys if "/" in key))
