"""Train, load and score from Python: the functions of the public API.

Boundary: arguments in, recorded runs and tables out; ``experiment`` makes a run, ``tracking`` reads
and scores it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optax
import pandas as pd

from timetrial.bench.experiment import run
from timetrial.bench.workshop import Workshop, guessed_program
from timetrial.framework import config as configuration
from timetrial.framework.budget import Budget
from timetrial.framework.callbacks import Callback
from timetrial.framework.config import Choice, ConfigError, RunConfig, Tracking
from timetrial.framework.entries import Entry, OptimizerEntry
from timetrial.framework.paths import expanded, expanded_uri
from timetrial.framework.records import RunRecord, RunResult
from timetrial.framework.types import Split
from timetrial.framework.workload import Workload
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.read import runs as recorded
from timetrial.tracking.report.standings import standings
from timetrial.tracking.scores.conditions import by_condition
from timetrial.tracking.store.opening import Store, open_store
from timetrial.workloads import WORKLOADS


@dataclasses.dataclass(frozen=True)
class Passed:
    """Placeholder for the settings of an object passed by the caller.

    Attributes:
        code: module and name of its code; its settings are unknown.
    """

    code: str


def train(
    workload: Workload | str,
    optimizer: optax.GradientTransformation | OptimizerEntry | str,
    budget: Budget | None = None,
    *,
    name: str = "",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    experiment: str = "timetrial",
    root: str | Path = "runs",
    uri: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunResult:
    """Makes one run, records it and returns its result: reason, evaluations and last state.

    Settings of objects are unknown and not recorded: other settings need another name.

    Args:
        workload: a ``Workload``, or the name of one (``timetrial list``).
        optimizer: an optax transformation, an ``OptimizerEntry``, or the name of an optimizer.
        budget: steps or charged seconds; the workload's step hint by default.
        name: name in MLflow, tables and plots; needed unless the optimizer is given by its name.
        settings: settings of an optimizer given as a name or an entry.
        seed: initialisation and order of the data, in [0, 2**32).
        experiment: MLflow experiment.
        root: directory for local files.
        uri: MLflow tracking URI; ``MLFLOW_TRACKING_URI`` by default, else a database in ``root``.
        callbacks: further callbacks.

    Raises:
        UserError: an unknown name, settings that do not fit, or a store that cannot be opened.
    """
    task, workloads = chosen_workload(workload)
    method, optimizers, label = chosen_optimizer(optimizer, name, settings or {})
    workshop = Workshop(workloads, optimizers)
    budget = Budget(steps=workshop.workload(task).step_hint) if budget is None else budget
    tracking = Tracking(uri, experiment, str(root))
    config = RunConfig(task, method, budget, seed, label, tracking=tracking)
    guessed_program(config, workshop)  # raises bad settings before anything is written
    return run(config, store_at(uri, root, create=True), workshop, callbacks=callbacks)


def load_runs(
    experiment: str = "timetrial",
    *,
    root: str | Path = "runs",
    uri: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[RunRecord]:
    """Reads the runs of an experiment, of any status, in order of their start.

    Args:
        experiment: MLflow experiment.
        root: directory for local files, as in ``train``.
        uri: MLflow tracking URI, as in ``train``.
        tags: only runs that have all of these, for example ``{"suite": "quick"}``.

    Raises:
        UserError: no such store or experiment.
    """
    return recorded.load_runs(store_at(uri, root, create=False), experiment, tags=tags)


def score(
    runs: Sequence[RunRecord],
    *,
    split: Split = Split.VALIDATION,
    mixed_machines: bool = False,
    include_suspect: bool = False,
) -> pd.DataFrame:
    """Scores runs by the rules of the paper, as the report does.

    A score is the mean height of the performance profile of the times to target: 1 means fastest
    on every workload, 0 means never close to the fastest.

    Args:
        runs: runs of several optimizers on the same workloads.
        split: split of the deciding metric.
        mixed_machines: score seconds of different machines, too.
        include_suspect: score runs whose seconds are suspect, too.

    Returns:
        Index optimizer, one column per kind of budget (``time``, ``step``) that has a score.
    """
    found = standings(
        by_condition(runs), mixed_machines=mixed_machines, include_suspect=include_suspect
    )
    return pd.DataFrame({str(s.condition): s.scores for s in found if s.split == split})


def store_at(uri: str | None, root: str | Path, *, create: bool) -> Store:
    """The store of an address or directory as given by a caller."""
    uri = None if uri is None else expanded_uri(uri)
    return open_store(uri, root=Path(expanded(str(root))), create=create)


def chosen_workload(given: Workload | str) -> tuple[Choice, Mapping[str, Entry[Workload]]]:
    """The choice of a configuration, and the entries that contain it."""
    if isinstance(given, str):
        if given not in WORKLOADS:
            raise ConfigError(configuration.unknown("workload", given, WORKLOADS))
        return Choice(given, WORKLOADS[given].settings()), WORKLOADS
    choice = Choice(given.name, Passed(f"{type(given).__module__}.{type(given).__qualname__}"))
    return choice, {given.name: Entry("passed as an object", Passed, lambda settings: given)}


def chosen_optimizer(
    given: optax.GradientTransformation | OptimizerEntry | str,
    name: str,
    settings: Mapping[str, Any],
    *,
    any_name: bool = False,
) -> tuple[Choice, Mapping[str, OptimizerEntry], str]:
    """The choice of a configuration, the entries that contain it, and the label of the run.

    Args:
        given: an optax transformation, an ``OptimizerEntry``, or the name of an optimizer.
        name: name of an object, or another name of a registered optimizer.
        settings: settings of a name or an entry.
        any_name: whether an object may have the name of a registered optimizer.
    """
    if isinstance(given, str):
        if given not in OPTIMIZERS:
            raise ConfigError(configuration.unknown("optimizer", given, OPTIMIZERS))
        found = configuration.convert(dict(settings), OPTIMIZERS[given].settings, "settings")
        return Choice(given, found), OPTIMIZERS, name
    if not name or (name in OPTIMIZERS and not any_name):
        raise ConfigError(
            "name: expected an unused name for an optimizer that is passed as an object, as in "
            f"name='mine', got {name!r}"
        )
    if isinstance(given, OptimizerEntry):
        found = configuration.convert(dict(settings), given.settings, "settings")
        variant = given.variant(found)
        return Choice(name, found), {name: given}, f"{name}[{variant}]" if variant else name
    if settings:
        raise ConfigError("settings: expected none with an optax transformation, which has its own")
    entry = OptimizerEntry("passed as an object", Passed, lambda settings, horizon: given)
    code = f"{given.init.__module__}.{given.init.__qualname__}"
    return Choice(name, Passed(code)), {name: entry}, name
