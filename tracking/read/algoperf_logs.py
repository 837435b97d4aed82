"""Reads AlgoPerf's log directories as runs.

Boundary: reads CSV files only; what the numbers mean is for ``tracking.scores.algoperf``.

A trial is a directory ``<submission>/<study>/<workload>_<framework>/trial_k``. Its evaluations
are in ``eval_measurements.csv``; loggers of before 2024 wrote them between
the training rows of ``measurements.csv`` only, whose evaluation columns are empty otherwise. The
charged seconds are the column ``score`` (``accumulated_submission_time``).

Other than in AlgoPerf's scorer, a trial whose file lacks a column has no values for it (there it
inherits those of the trial read before), and nan stays nan (in its parser of ``.log`` files it
becomes 0, which reaches the target of any loss).

Source: https://github.com/mlcommons/algorithmic-efficiency (logger_utils.py, scoring/) and the
logs of https://github.com/mlcommons/submissions_algorithms.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from timetrial.framework.errors import UserError
from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction, Split, Status
from timetrial.tracking.read.sources import Problem, Source
from timetrial.tracking.record import schema

METRICS: Final[Mapping[str, tuple[str, Direction]]] = {
    "criteo1tb": ("loss", Direction.MINIMIZE),
    "fastmri": ("ssim", Direction.MAXIMIZE),
    "imagenet": ("accuracy", Direction.MAXIMIZE),
    "librispeech": ("wer", Direction.MINIMIZE),
    "ogbg": ("mean_average_precision", Direction.MAXIMIZE),
    "wmt": ("bleu", Direction.MAXIMIZE),
    "finewebedu": ("ppl", Direction.MINIMIZE),
    "cifar": ("accuracy", Direction.MAXIMIZE),
    "mnist": ("accuracy", Direction.MAXIMIZE),
}
"""The deciding metric by how the name of the workload begins, variants included."""

SPLITS: Final = tuple(Split)
_SECONDS: Final = ("score", "accumulated_submission_time")
_TIMESTAMP: Final = re.compile(r"-\d{4}(-\d{2}){5}$")
_STUDY: Final = re.compile(r"study_\d+$")
_TRIAL: Final = re.compile(r"trial_(\d+)$")


def read_algoperf_logs(directory: Path, *, budgets: Mapping[str, float] | None = None) -> Source:
    """Every trial below a directory, sorted by submission, workload, study and trial.

    What lies above ``<study>/<workload>_<framework>/trial_k`` names the submission (its optimizer
    label); directly below ``directory`` it is that directory's own name. Directories of one
    submission that differ in a time stamp (``-2024-05-28-10-00-00``) are one submission. The seed
    of a record is the number of its trial among those of the submission's workload; its tags say
    study, trial, framework and path. Evaluations stay in the order of the file.

    Args:
        directory: a submission, or a directory of submissions.
        budgets: longest allowed seconds by workload; without it the budget of a record is nan.

    Raises:
        UserError: no trial below ``directory``.
    """
    trials = sorted(
        (path for path in directory.rglob("trial_*") if _TRIAL.match(path.name) and path.is_dir()),
        key=lambda path: _natural(path.relative_to(directory).as_posix()),
    )
    if not trials:
        raise UserError(
            f"{directory}: expected AlgoPerf's logs (<submission>/<study>/<workload>/trial_k/"
            "eval_measurements.csv), found no directory trial_k"
        )
    records: list[RunRecord] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, str], int] = {}
    for path in trials:
        name = path.relative_to(directory).as_posix()
        if _STUDY.match(path.parent.name):
            problems.append(Problem(name, "expected <workload>_<framework>/trial_k", lost=True))
            continue
        evaluations, complaints = _evaluations(path)
        problems += [Problem(name, text, lost=evaluations is None) for text in complaints]
        if evaluations is None:
            continue
        record = _record(path, directory, evaluations, budgets or {})
        cell = record.optimizer, record.workload
        seen[cell] = seen.get(cell, -1) + 1
        records.append(dataclasses.replace(record, seed=seen[cell]))
        problems += [Problem(name, text) for text in _complaints(record)]
    return Source(records, problems)


def _evaluations(path: Path) -> tuple[list[Row] | None, list[str]]:
    """The evaluations of a trial directory, and what is wrong with it; None without any file.

    As in AlgoPerf's scorer, a trial without ``eval_measurements.csv`` is no trial, unless its
    ``measurements.csv`` has evaluations; an empty ``eval_measurements.csv`` is one that never
    reached anything.
    """
    complaints: list[str] = []
    for name in ("eval_measurements.csv", "measurements.csv"):
        try:
            with (path / name).open(newline="", encoding="utf-8") as lines:
                rows = list(csv.reader(lines))
        except FileNotFoundError:
            complaints.append(f"no {name}")
            continue
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            complaints.append(f"{name} cannot be read: {error}")
            continue
        found = list(_rows(name, rows, complaints)) if rows else []
        if found or name == "eval_measurements.csv":
            return found, complaints
        complaints.append(f"{name} has no evaluation")
    return None, ["; ".join(complaints)]


def _rows(name: str, rows: list[list[str]], complaints: list[str]) -> Iterator[Row]:
    head = [column.strip() for column in rows[0]]
    seconds = next((column for column in _SECONDS if column in head), None)
    if seconds is None or "global_step" not in head:
        complaints.append(f"{name} has no column score or no column global_step")
        return
    metrics = [
        column
        for column in head
        if column.startswith(tuple(f"{split}/" for split in SPLITS))
        and not column.endswith("/num_examples")
    ]
    for number, cells in enumerate(rows[1:], start=2):
        if not cells:
            continue
        row = dict(zip(head, cells, strict=False))
        if len(cells) != len(head):
            complaints.append(f"{name}, line {number} has {len(cells)} cells, not {len(head)}")
            continue
        try:
            found = {key: float(row[key]) for key in metrics if row[key].strip()}
            if found:
                step = int(float(row["global_step"]))
                yield Row(step, float(row[seconds] or "nan"), found)
        except ValueError as error:
            complaints.append(f"{name}, line {number}: {error}")


def _record(
    path: Path, root: Path, evaluations: list[Row], budgets: Mapping[str, float]
) -> RunRecord:
    relative = path.relative_to(root).parts
    study, run, trial = path.absolute().parts[-3:]
    submission = "/".join(relative[:-3]) or path.absolute().parts[-4]
    workload, _, framework = run.rpartition("_")
    if framework not in ("jax", "pytorch"):
        workload, framework = run, ""
    metric, direction = _deciding(workload)
    last = max(evaluations, key=lambda row: row.step, default=None)
    return RunRecord(
        run_id=path.relative_to(root).as_posix(),
        workload=workload,
        optimizer=_TIMESTAMP.sub("", submission),
        seed=0,
        condition=Condition.TIME,
        budget=float(budgets.get(workload, math.nan)),
        metric=metric,
        direction=direction,
        status=Status.FINISHED,
        reason="",
        step=last.step if last else 0,
        train_seconds=last.train_seconds if last else 0.0,
        evaluations=evaluations,
        tags={schema.STUDY: study, schema.TRIAL: trial, "framework": framework, "path": str(path)},
    )


def _deciding(workload: str) -> tuple[str, Direction]:
    return next((m for name, m in METRICS.items() if workload.startswith(name)), _UNKNOWN)


_UNKNOWN: Final = ("loss", Direction.MINIMIZE)


def _complaints(record: RunRecord) -> Iterator[str]:
    if not record.workload.startswith(tuple(METRICS)):
        yield f"{record.workload} is no workload of AlgoPerf; judged by its loss"
    if not record.evaluations:
        yield "no evaluations"
        return
    if not any(f"validation/{record.metric}" in row.metrics for row in record.evaluations):
        yield f"no column validation/{record.metric}"
    steps = [row.step for row in record.evaluations]
    if any(late <= early for early, late in itertools.pairwise(steps)):
        yield "evaluations out of order or repeated, as after a resume"
    if any(not math.isfinite(row.train_seconds) for row in record.evaluations):
        yield "evaluations without a time"


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``trial_10`` behind ``trial_9``."""
    return [
        (int(part or 0), "") if i % 2 else (0, part)
        for i, part in enumerate(re.split(r"(\d+)", name))
    ]
