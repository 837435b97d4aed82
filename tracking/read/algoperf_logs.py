"""Reads AlgoPerf's log directories as runs.

Boundary: reads CSV and JSON files only; ``tracking.scores.algoperf`` scores them.

A trial is a directory ``<submission>/<study>/<workload>_<framework>/trial_k``. Its evaluations
are in ``eval_measurements.csv``. Before 2024 they were in ``measurements.csv`` only, between
training rows with empty evaluation columns. The charged seconds are the column ``score`` (or its
copy ``accumulated_submission_time``). ``meta_data_0.json`` has the longest allowed runtime and the
machine, so that seconds of different machines are told apart.

Differences from AlgoPerf's scorer: a trial without a column has no values for it (AlgoPerf reuses
the values of the previous trial). nan stays nan (AlgoPerf's parser of ``.log`` files turns it into
0, below the target of any loss). Symbolic links are followed; no directory is read twice.

Source: https://github.com/mlcommons/algorithmic-efficiency (logger_utils.py, scoring/) and the
logs of https://github.com/mlcommons/submissions_algorithms.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
"""Deciding metric by prefix of the workload name, variants included."""

FRAMEWORK: Final = "framework"
"""Tag of every AlgoPerf trial: ``jax``, ``pytorch`` or empty."""

_MOST_STEPS: Final = 2**53
_MOST_BYTES: Final = 8 << 20  # of meta data

_MACHINE: Final = {schema.DEVICE_KIND: "gpu_model_name", schema.DEVICE_COUNT: "gpu_count"}
"""Keys of the meta data by the tags of the machine."""

_UNKNOWN: Final = ("loss", Direction.MINIMIZE)
_PREFIXES: Final = tuple(f"{split}/" for split in Split)
_SECONDS: Final = ("score", "accumulated_submission_time")
_EVALUATIONS: Final = "eval_measurements.csv"
_FILES: Final = (_EVALUATIONS, "measurements.csv")
_TIMESTAMP: Final = re.compile(r"-\d{4}(-\d{2}){5}$")
_STUDY: Final = re.compile(r"study_\d+$")
_TRIAL: Final = re.compile(r"trial_\d+$")


def read_algoperf_logs(directory: Path) -> Source:
    """Every trial below a directory, sorted by submission, workload, study and trial.

    The path above ``<study>/<workload>_<framework>/trial_k`` is the name of the submission (the
    optimizer label). Without such a part it is the name of ``directory``. Directories that differ
    only in a time stamp (``-2024-05-28-10-00-00``) are one submission. The seed of a record is the
    number of its trial within the submission and workload. Tags hold study, trial, framework and
    path. Evaluations stay in the order of the file.

    Args:
        directory: a submission, or a directory of submissions.

    Raises:
        UserError: ``directory`` contains no trial.
    """
    trials, problems = find_trials(directory)
    if not trials:
        raise UserError(
            f"{directory}: expected AlgoPerf's logs (<submission>/<study>/<workload>/trial_k/"
            f"{_EVALUATIONS}), found no directory trial_k"
        )
    records: list[RunRecord] = []
    seen: dict[tuple[str, str], int] = {}
    for path in sorted(trials, key=lambda path: _natural(path.relative_to(directory).as_posix())):
        name = path.relative_to(directory).as_posix()
        evaluations, complaints = _evaluations(path)
        problems += [Problem(name, text, lost=evaluations is None) for text in complaints]
        if evaluations is None:
            continue
        record = _record(path, directory, evaluations)
        cell = record.optimizer, record.workload
        seen[cell] = seen.get(cell, -1) + 1
        records.append(dataclasses.replace(record, seed=seen[cell]))
        problems += [Problem(name, text) for text in _complaints(record)]
    return Source(records, problems)


def find_trials(directory: Path) -> tuple[list[Path], list[Problem]]:
    """The trial directories below a directory, and problems with other directories.

    Symbolic links are followed. A directory with several paths is read once, by the path without
    links if there is one.
    """
    trials: list[Path] = []
    problems: list[Problem] = []
    seen: dict[tuple[int, int], str] = {}
    waiting, linked = [directory], list[Path]()
    while waiting or linked:
        path = waiting.pop() if waiting else linked.pop(0)  # links come last
        name = path.relative_to(directory).as_posix()
        entries, complaint = _opened(path, name, seen)
        complaint = complaint or _misplaced(path, entries)
        if complaint:
            problems.append(Problem(name, complaint, lost=True))
        elif _TRIAL.match(path.name):
            trials.append(path)
            continue
        waiting += [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
        linked += [Path(e) for e in entries if e.is_symlink() and not os.path.isfile(e)]
    return trials, problems


def _opened(
    path: Path, name: str, seen: dict[tuple[int, int], str]
) -> tuple[list[os.DirEntry[str]], str]:
    """The entries of a directory, or a complaint; each directory is opened once."""
    try:
        status = path.stat()
        first = seen.setdefault((status.st_dev, status.st_ino), name)
        if first != name:
            return [], f"the same directory as {first}"
        return sorted(os.scandir(path), key=lambda entry: entry.name), ""
    except OSError as error:
        return [], f"cannot be read ({error.strerror})"


def _misplaced(path: Path, entries: Sequence[os.DirEntry[str]]) -> str:
    """A complaint about the location of a directory, or ""."""
    if _TRIAL.match(path.name):
        return "expected <workload>_<framework>/trial_k" if _STUDY.match(path.parent.name) else ""
    logs = any(entry.name in _FILES for entry in entries)
    return "expected a directory name trial_k for logs" if logs else ""


def _evaluations(path: Path) -> tuple[list[Row] | None, list[str]]:
    """The evaluations of a trial directory, and complaints; None without any file.

    A directory without ``eval_measurements.csv`` is skipped, as in AlgoPerf's scorer, unless its
    ``measurements.csv`` has evaluations. An empty ``eval_measurements.csv`` is a trial without
    evaluations.
    """
    complaints: list[str] = []
    for name in _FILES:
        try:
            with (path / name).open(newline="", encoding="utf-8-sig") as lines:
                table = list(csv.reader(lines))
        except FileNotFoundError:
            complaints.append(f"no {name}")
            continue
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            complaints.append(f"{name} cannot be read: {error}")
            continue
        found = list(_rows(name, table, complaints)) if table else []
        if found or name == _EVALUATIONS:
            return found, complaints
        complaints.append(f"{name} has no evaluation")
    return None, ["; ".join(complaints)]


def _rows(name: str, table: Sequence[Sequence[str]], complaints: list[str]) -> Iterator[Row]:
    """The rows with evaluated metrics; appends complaints about the table.

    A row with an empty, infinite or negative ``global_step`` gets the previous step plus 1.
    """
    head = [column.strip() for column in table[0]]
    if "global_step" not in head or not any(column in head for column in _SECONDS):
        complaints.append(f"{name} has no column score or no column global_step")
        return
    if twice := sorted(column for column, number in Counter(head).items() if number > 1):
        shown = ", ".join(twice[:5]) + ", ..." * (len(twice) > 5)
        complaints.append(f"{name} repeats {shown}; the first filled cell counts")
    step, unknown = 0, 0
    for number, cells in enumerate(table[1:], start=2):
        if cells and len(cells) != len(head):
            complaints.append(f"{name}, line {number} has {len(cells)} cells, not {len(head)}")
            continue
        try:
            values = _values(head, cells)
        except ValueError as error:
            complaints.append(f"{name}, line {number}: {error}")
            continue
        found = {key: value for key, value in values.items() if _is_metric(key)}
        if not found:
            continue
        given = values.get("global_step", math.nan)
        known = 0 <= given <= _MOST_STEPS
        unknown += not known
        step = int(given) if known else step + 1
        yield Row(step, next((values[s] for s in _SECONDS if s in values), math.nan), found)
    if unknown:
        complaints.append(f"{name}: {unknown} evaluations without a global_step")


def _values(head: Sequence[str], cells: Sequence[str]) -> dict[str, float]:
    """The filled cells of a row by column; the first of a repeated column counts."""
    values: dict[str, float] = {}
    for column, cell in zip(head, cells, strict=False):
        wanted = column == "global_step" or column in _SECONDS or _is_metric(column)
        if wanted and cell.strip() and column not in values:
            values[column] = float(cell)
    return values


def _is_metric(column: str) -> bool:
    return column.startswith(_PREFIXES) and not column.endswith("/num_examples")


def _record(path: Path, root: Path, evaluations: list[Row]) -> RunRecord:
    above = path.relative_to(root).parts[:-3]
    *_, directory, study, run, trial = Path(os.path.abspath(path)).parts
    workload, _, framework = run.rpartition("_")
    if framework not in ("jax", "pytorch"):
        workload, framework = run, ""
    metric, direction = next((m for w, m in METRICS.items() if workload.startswith(w)), _UNKNOWN)
    last = max(evaluations, key=lambda row: row.step, default=None)
    meta = _meta_data(path)
    return RunRecord(
        run_id=path.relative_to(root).as_posix(),
        workload=workload,
        optimizer=_TIMESTAMP.sub("", "/".join(above) or directory),
        seed=0,
        condition=Condition.TIME,
        budget=_longest_runtime(meta),
        metric=metric,
        direction=direction,
        status=Status.FINISHED,
        reason="",
        step=last.step if last else 0,
        train_seconds=last.train_seconds if last else 0.0,
        evaluations=evaluations,
        tags={
            schema.STUDY: study,
            schema.TRIAL: trial,
            FRAMEWORK: framework,
            "path": str(path),
            **{tag: str(meta[key]) for tag, key in _MACHINE.items() if meta.get(key)},
        },
    )


def _meta_data(path: Path) -> Mapping[str, object]:
    """The meta data of a trial; empty when there are none that can be read."""
    try:
        with (path / "meta_data_0.json").open("rb") as file:
            meta = json.loads(file.read(_MOST_BYTES).decode("utf-8-sig"))
        json.dumps(meta, ensure_ascii=False).encode()  # a ValueError for half of a surrogate pair
    except (OSError, ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _longest_runtime(meta: Mapping[str, object]) -> float:
    """The longest allowed runtime of a trial's workload in seconds; nan when not recorded."""
    value = meta.get("workload.max_allowed_runtime_sec")
    try:
        return float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def _complaints(record: RunRecord) -> Iterator[str]:
    if not record.workload.startswith(tuple(METRICS)):
        yield f"{record.workload} is not a workload of AlgoPerf; scored by its loss"
    if not record.evaluations:
        yield "no evaluations"
        return
    if not any(f"validation/{record.metric}" in row.metrics for row in record.evaluations):
        yield f"no column validation/{record.metric}"
    steps = [row.step for row in record.evaluations]
    if any(late <= early for early, late in itertools.pairwise(steps)):
        yield "evaluations out of order or repeated, as after a resume"
    seconds = [row.train_seconds for row in record.evaluations]
    if any(not math.isfinite(value) for value in seconds):
        yield "evaluations without a time"
    back = next((pair for pair in itertools.pairwise(seconds) if pair[1] < pair[0]), None)
    if back is not None:
        yield f"charged seconds go back from {back[0]:g} to {back[1]:g}; the larger value counts"


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key: ``trial_10`` comes after ``trial_9``."""
    return [
        (int(part or 0), "") if i % 2 else (0, part)
        for i, part in enumerate(re.split(r"(\d+)", name))
    ]
