"""Reads runs from places: a directory, a CSV file of times, an MLflow address.

Boundary: detects the kind of a place and combines places; other modules read them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from timetrial.framework.errors import UserError
from timetrial.framework.paths import user_path
from timetrial.framework.records import RunRecord
from timetrial.tracking.read.algoperf_logs import read_algoperf_logs
from timetrial.tracking.read.journals import from_journals
from timetrial.tracking.read.mlflow import from_mlflow
from timetrial.tracking.read.sources import Problem, Source, journal_id
from timetrial.tracking.read.times_csv import records_from_times
from timetrial.tracking.record import schema
from timetrial.tracking.record.journal import journals_in
from timetrial.tracking.store.listing import experiment_names
from timetrial.tracking.store.opening import ALLOWED_URIS, Store, open_store


def read_place(place: str, experiment: str | None = None) -> Source:
    """The runs of one place.

    Args:
        place: a directory of AlgoPerf's logs, a tracking root (its journals, else its
            ``mlflow.db``), a CSV file of times to target, or an MLflow tracking URI.
        experiment: name of the MLflow experiment; None selects the only one.

    Raises:
        UserError: the place does not exist or holds no run.
    """
    if "://" in place:
        return _from_store(place, experiment)
    path = user_path(place)
    if os.path.isdir(path):
        return _from_directory(path, experiment)
    if os.path.isfile(path):
        return records_from_times(path)
    raise UserError(
        f"{place}: expected a directory of runs or of AlgoPerf's logs, a CSV file of times, or an "
        f"MLflow address ({ALLOWED_URIS}); there is no such file or directory"
    )


def gather(
    places: Sequence[str], experiment: str | None = None
) -> tuple[list[RunRecord], list[tuple[str, Problem]]]:
    """The combined runs of several places, and all problems with their places.

    A run in two places is read once. Runs of different places with the same condition, workload,
    optimizer and study (or seed) are kept and listed as a problem.

    Raises:
        UserError: as for ``read_place``, or a place has no readable run.
    """
    records: list[RunRecord] = []
    problems: list[tuple[str, Problem]] = []
    homes: dict[str, str] = {}
    names: dict[tuple[str, ...], str] = {}
    for place in dict.fromkeys(places):
        source = read_place(place, experiment)
        problems += [(place, problem) for problem in source.problems]
        if not source.records:
            listed = "; ".join(map(str, source.problems))
            raise UserError(f"{place}: expected at least one run that can be read; {listed}")
        here = [(homes.setdefault(_identity(run), place), run) for run in source.records]
        new = [run for home, run in here if home == place]
        again = Counter(home for home, _ in here if home != place)
        problems += [
            (place, Problem(f"{number} runs", f"read from {home} already", lost=True))
            for home, number in again.items()
        ]
        owners = {name: names.setdefault(name, place) for name in map(_name, new)}
        problems += [
            (place, Problem(_shown(name), f"also in {owner}; scored as one"))
            for name, owner in owners.items()
            if owner != place
        ]
        records += new
    return records, problems


def _from_directory(path: Path, experiment: str | None) -> Source:
    if any(path.glob("*.jsonl")) or journals_in(path):
        return from_journals(path)
    database = path / "mlflow.db"
    if database.is_file():
        return _from_store(f"sqlite:///{database.absolute()}", experiment)
    return read_algoperf_logs(path)


def _from_store(uri: str, experiment: str | None) -> Source:
    store = open_store(uri, create=False)
    return from_mlflow(store, experiment or _only_experiment(store))


def _only_experiment(store: Store) -> str:
    names = experiment_names(store)
    if len(names) != 1:
        raise UserError(
            f"{store.uri}: expected the name of one experiment (--experiment), got none; it holds "
            f"{', '.join(names) or 'no experiment'}"
        )
    return names[0]


def _identity(record: RunRecord) -> str:
    """Identity of a run, equal in all places."""
    path = record.tags.get("path")
    return os.path.realpath(path) if path else journal_id(record.tags) or record.run_id


def _name(record: RunRecord) -> tuple[str, ...]:
    study = record.tags.get(schema.STUDY, f"seed {record.seed}")
    return record.optimizer, record.workload, study, record.condition


def _shown(name: Sequence[str]) -> str:
    optimizer, workload, study, condition = name
    return f"{optimizer} on {workload}, {study}, {condition} condition"
