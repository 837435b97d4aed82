"""What commands left below a tracking root, compared with what an undisturbed command leaves.

Boundary: tests only; reads journals, checkpoints, the MLflow database and directories.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from timetrial.bench.resuming import continuation
from timetrial.framework.records import Row
from timetrial.tracking.record import schema
from timetrial.tracking.record.journal import JournalContents, journals_in, read_journal
from timetrial.tracking.store.writer import points_of

TIMED = ("time/", "data/stalled_updates")
"""Metrics that depend on the speed of the machine: present alike, with other values."""

PACKED = "packed"
"""File of a checkpoint with its small arrays; the workload here has no others."""

OWN_TAGS = {schema.PID, schema.PROCESS_START, schema.RESUMED_AT, schema.JOURNAL, schema.JOURNAL_ID}
OWN_TAGS |= {
    schema.SECONDS_SUSPECT,
    schema.TRIAL,
    schema.CONCURRENT_RUNS,
    schema.STARTED_MS,
    schema.ENDED_MS,
    schema.END_TAGS,
    schema.COMPILE_SOURCES,
    schema.GIT_COMMIT,  # of the code, which may be committed meanwhile
    schema.GIT_DIRTY,
    "mlflow.runName",
}


def faults(root: Path, reference: Path) -> list[str]:
    """What is lost, doubled, changed or left over below a root; empty if nothing is."""
    made, expected = finished(root), finished(reference)
    found: list[str] = []
    for what, want, got in (
        ("finished configurations", sorted(expected), sorted(made)),
        ("files", files(reference), files(root)),
        ("scores", scores(reference), scores(root)),
        ("trials", trials(reference), trials(root)),
    ):
        if want != got:
            found.append(f"{what}: expected {_less(want, got)}, got {_less(got, want)}")
    for key in made.keys() & expected.keys():
        if len(made[key]) != 1:
            found.append(f"{key}: {len(made[key])} finished journals")
            continue
        found += [f"{key}: {text}" for text in _run_faults(made[key][0], expected[key][0])]
        found += [f"{key}: {text}" for text in _checkpoint_faults(root, reference, made[key][0])]
    return [*found, *store_faults(root)]


def finished(root: Path) -> dict[str, list[JournalContents]]:
    """Finished runs by configuration."""
    found: dict[str, list[JournalContents]] = {}
    for path in journals_in(root):
        contents = read_journal(path)
        if contents.end is not None and contents.end.status == "FINISHED":
            found.setdefault(contents.tags[schema.CONFIG_HASH], []).append(contents)
    return found


def _run_faults(made: JournalContents, expected: JournalContents) -> Iterator[str]:
    assert made.end is not None
    assert expected.end is not None
    for what, want, got in (
        ("rows", _numbers(expected.rows), _numbers(made.rows)),
        ("summary", _known(expected.end.summary), _known(made.end.summary)),
        ("tags", _tags(expected), _tags(made)),
        ("parameters", _params(expected), _params(made)),
    ):
        if want != got:
            yield f"{what}: expected {_less(want, got)}, got {_less(got, want)}"
    seconds = [row.train_seconds for row in made.rows]
    stamps = [row.timestamp_ms for row in made.rows]
    if seconds != sorted(seconds) or stamps != sorted(set(stamps)):
        yield "charged seconds or times of its rows go back"


def _numbers(rows: Sequence[Row]) -> list[tuple[int, dict[str, str]]]:
    return [(row.step, _known(row.metrics)) for row in rows]


def _known(metrics: Any) -> dict[str, str]:
    """Metrics bit by bit, of timed ones the names only; the machine's state may be unknown."""
    return {
        key: "" if key.startswith(TIMED) else float(value).hex()
        for key, value in metrics.items()
        if not key.startswith(schema.SYSTEM_PREFIX)
    }


def _tags(contents: JournalContents) -> dict[str, str]:
    return {k: v for k, v in contents.tags.items() if k not in OWN_TAGS}


def _params(contents: JournalContents) -> dict[str, str]:
    return {k: v for k, v in contents.header.params.items() if k != "tracking.root"}


def _checkpoint_faults(root: Path, reference: Path, made: JournalContents) -> Iterator[str]:
    place = made.tags[schema.CHECKPOINTS]
    digest = made.tags[schema.CONFIG_HASH]
    got, want = (continuation(where, where / place, digest) for where in (root, reference))
    if got.loaded is None or want.loaded is None:
        if (got.loaded is None) != (want.loaded is None):
            yield f"final checkpoint: expected {want.loaded}, got {got.loaded}"
        return
    now, then = got.loaded.saved, want.loaded.saved
    if (now.step, now.ending, now.callbacks) != (then.step, then.ending, then.callbacks):
        yield f"final checkpoint: expected {then}, got {now}"
    if (got.loaded.path / PACKED).read_bytes() != (want.loaded.path / PACKED).read_bytes():
        yield "final checkpoint: other parameters or optimizer state"
    if not got.over:
        yield "its directory says that it is not over"


def store_faults(root: Path) -> Iterator[str]:
    """Differences between the MLflow database and the journals; runs without an end."""
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        runs = dict(database.execute("select run_uuid, status from runs"))
        tags = collections.defaultdict(dict)
        for run, key, text in database.execute("select run_uuid, key, value from tags"):
            tags[run][key] = text
        points = collections.defaultdict(collections.Counter)
        for run, key, step, number, is_nan in database.execute(
            "select run_uuid, key, step, value, is_nan from metrics"
        ):
            if key != schema.MEAN_SECONDS:  # written by the report
                points[run][key, step, "nan" if is_nan else float(number).hex()] += 1
    journals = {c.journal_id: c for c in map(read_journal, journals_in(root))}
    named = [tags[run].get(schema.JOURNAL_ID, "") for run in runs]
    for name, count in collections.Counter(named).items():
        if name and count > 1:
            yield f"journal {name} has {count} runs in MLflow"
    if missing := journals.keys() - set(named):
        yield f"journals without a run in MLflow: {missing}"
    for run, status in runs.items():
        if status not in ("FINISHED", "FAILED", "KILLED"):
            yield f"run {run} is {status}"
        if max(points[run].values(), default=1) > 1:
            yield f"run {run}: doubled points {[p for p, n in points[run].items() if n > 1][:4]}"
        contents = journals.get(tags[run].get(schema.JOURNAL_ID, ""))
        if contents is None or contents.end is None or contents.end.status != "FINISHED":
            continue
        if status != "FINISHED":
            yield f"run {run} is {status}, its journal FINISHED"
        rows = [(p.key, p.step, _hex(p.value)) for p in points_of(contents.rows, None)]
        last = contents.rows[-1].step
        rows += [(key, last, _hex(value)) for key, value in contents.end.summary.items()]
        if different := set(rows) ^ set(points[run]):
            yield f"run {run}: other points than its journal: {sorted(different)[:4]}"
        if not contents.sent:
            yield f"run {run} is not marked as sent"
        for name in (schema.CONFIG_ARTIFACT, schema.EVALUATIONS_ARTIFACT):
            if not (root / "artifacts" / run / "artifacts" / name).is_file():
                yield f"run {run} has no {name}"


def _hex(value: float) -> str:
    return "nan" if math.isnan(value) else float(value).hex()


def files(root: Path) -> dict[str, int]:
    """Files and directories below a root, with digits of identities left out, and their numbers.

    Runs of processes that died before their first checkpoint may leave a journal, its run and
    their artifacts, ended as KILLED; these are not counted.
    """
    dead = {c.journal_id for c in map(read_journal, journals_in(root)) if _is_killed(c)}
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        query = f"select run_uuid, value from tags where key = '{schema.JOURNAL_ID}'"
        gone = dead | {run for run, journal in database.execute(query) if journal in dead}
    names: collections.Counter[str] = collections.Counter()
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if any(part in name for part in gone) or name.endswith((".db-wal", ".db-shm")):
            continue
        name = re.sub(r"[0-9a-f]{32}", "ID", name)
        names[re.sub(r"(checkpoints/[^/]+/[^/]+)/\d+", r"\1/N", name)] += 1
    return dict(sorted(names.items()))


def _is_killed(contents: JournalContents) -> bool:
    return contents.end is not None and contents.end.status == "KILLED"


def scores(root: Path) -> dict[str, str]:
    """The tables of a report that hold no seconds."""
    names = ("scores", "final_quality", "targets", "null_test")
    return {
        path.name: path.read_text()
        for name in names
        for path in sorted(root.glob(f"reports/*/{name}.csv"))
    }


def trials(root: Path) -> dict[int, str]:
    """Parameters and value of every completed trial of a study, by point; "twice" for two."""
    path = root / "studies.db"
    if not path.exists():
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    found: dict[int, str] = {}
    for trial in optuna.load_study(study_name=None, storage=storage).trials:
        if not trial.state.is_finished():
            found[-1 - trial.number] = trial.state.name
        if trial.state is optuna.trial.TrialState.COMPLETE:
            point = trial.user_attrs["point"]
            text = json.dumps([trial.params, trial.value], sort_keys=True)
            found[point] = "twice" if point in found else text
    storage.remove_session()
    storage.engine.dispose()
    return found


def _less(one: Any, other: Any) -> Any:
    """The parts of one that the other has not, for messages."""
    if isinstance(one, dict) and isinstance(other, dict):
        shown = [(k, v) for k, v in one.items() if k not in other or other[k] != v]
    elif isinstance(one, list) and isinstance(other, list):
        shown = [v for v in one if v not in other] or one[:3]
    else:
        shown = one
    return str(shown)[:600]
