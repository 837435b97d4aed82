"""Reads the runs of an experiment: from journals, else from MLflow.

Boundary: chooses the source of each run; ``journals`` and ``mlflow`` read it.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Status
from timetrial.tracking.read.journals import JournaledRun, read_journals
from timetrial.tracking.read.mlflow import records_of
from timetrial.tracking.read.sources import Source, check, journal_id
from timetrial.tracking.record import schema
from timetrial.tracking.record.journal import journals_in
from timetrial.tracking.store.listing import has_experiment, listed_runs
from timetrial.tracking.store.opening import Store

_log = logging.getLogger(__name__)


def read_experiment(
    store: Store, experiment: str, *, tags: Mapping[str, str] | None = None
) -> Source:
    """All runs of an experiment in order of start, with any status.

    A run with a journal below the store's root is read from it; its ``run_id`` is that of MLflow
    if known. All other runs are read from MLflow; while a store fails that was opened for writing,
    they are missing.

    Args:
        store: the store; its root holds the journals.
        experiment: name of the experiment.
        tags: required tags of a run, for example ``{"suite": "quick"}``. With ``config_hash``, runs
            of other configurations are not read, nor are problems with them found.

    Raises:
        TrackingError: the experiment does not exist, or the store fails.
    """
    paths, wanted = journals_in(store.root), dict(tags or {})
    config = wanted.get(schema.CONFIG_HASH)
    configs = None if config is None else [config]
    local, problems = read_journals(paths, experiment, configs=configs)
    if configs and not local and not has_experiment(store, experiment):
        local, problems = read_journals(paths, experiment)  # others tell that it exists
    unknown = local and not has_experiment(store, experiment)  # not mirrored yet
    listed = [] if unknown else listed_runs(store, experiment, _of_config(config))
    mirrored = {journal_id(run.data.tags): str(run.info.run_id) for run in listed}
    here = {run.contents.journal_id for run in local}
    elsewhere = records_of(store, [r for r in listed if journal_id(r.data.tags) not in here])
    started = {str(run.info.run_id): int(run.info.start_time) for run in listed}
    found = [(run.started_ms, _named(run, store, mirrored)) for run in local]
    found += [(started[record.run_id], record) for record in elsewhere.records]
    records = [
        record
        for _, record in sorted(found, key=lambda item: item[0])
        if wanted.items() <= record.tags.items()
    ]
    problems += [p for record in records for p in check(record)]
    lost = [problem for problem in elsewhere.problems if problem.lost]
    return Source(records, [*problems, *lost])


def _of_config(config: str | None) -> str:
    """The MLflow filter of the runs of a configuration."""
    if config is None or not re.fullmatch(r"[\w-]+", config, re.ASCII):
        return ""  # another text would need quotes
    return f"tags.`{schema.CONFIG_HASH}` = '{config}'"


def load_runs(
    store: Store, experiment: str, *, tags: Mapping[str, str] | None = None
) -> list[RunRecord]:
    """The records of ``read_experiment``; unreadable runs are logged as warnings.

    Raises:
        TrackingError: as for ``read_experiment``.
    """
    source = read_experiment(store, experiment, tags=tags)
    for problem in source.problems:
        if problem.lost:
            _log.warning("run %s", problem)
    return list(source.records)


def finished_configs(store: Store, experiment: str) -> set[str]:
    """The ``config_hash`` of every finished run; empty when the experiment does not exist.

    A run with a journal below the store's root is judged by it, all others by MLflow. Journals are
    read without their rows, and MLflow loads only runs without a journal here.

    Raises:
        TrackingError: the store fails, for readers.
    """
    local, _ = read_journals(journals_in(store.root), experiment, rows=False)
    here = {run.contents.journal_id for run in local}
    done = {
        run.record.tags[schema.CONFIG_HASH]
        for run in local
        if run.record.status == Status.FINISHED and schema.CONFIG_HASH in run.record.tags
    }
    if not has_experiment(store, experiment):
        return done
    finished = f"attributes.status = '{Status.FINISHED}'"
    runs = listed_runs(store, experiment, finished, left_out=_mirrored(local, store))
    elsewhere = [run.data.tags for run in runs if journal_id(run.data.tags) not in here]
    return done | {tags[schema.CONFIG_HASH] for tags in elsewhere if schema.CONFIG_HASH in tags}


def is_finished(store: Store, experiment: str, config_hash: str) -> bool:
    """True when the store has a finished run of a configuration; False while it fails.

    Raises:
        TrackingError: the experiment was deleted.
    """
    if not has_experiment(store, experiment):
        return False
    wanted = f"attributes.status = '{Status.FINISHED}' and tags.`{schema.CONFIG_HASH}`"
    return bool(listed_runs(store, experiment, f"{wanted} = '{config_hash}'"))


def _mirrored(runs: Sequence[JournaledRun], store: Store) -> list[tuple[int, str]]:
    """Start and id in the store of each run whose journal names the id."""
    known = [(run.started_ms, run.contents.sent.get(store.name, "")) for run in runs]
    return [(started, run_id) for started, run_id in known if run_id.isalnum()]


def _named(run: JournaledRun, store: Store, mirrored: Mapping[str, str]) -> RunRecord:
    """The record of a journal, with its id in MLflow if known."""
    known = mirrored.get(run.contents.journal_id) or run.contents.sent.get(store.name)
    return dataclasses.replace(run.record, run_id=known or run.contents.journal_id)
