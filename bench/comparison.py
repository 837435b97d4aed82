"""``timetrial.compare``: races optimizers on one workload from Python, and reports them.

Boundary: arguments in, a table and a page out; ``experiment`` makes a run, ``tracking.report``
writes the page.
"""

from __future__ import annotations

import dataclasses
import html
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import optax
import pandas as pd

from timetrial.bench.claims import AlreadyFinishedError
from timetrial.bench.experiment import run
from timetrial.bench.library import chosen_optimizer, chosen_workload, store_at
from timetrial.bench.naming import label, run_name
from timetrial.bench.progress import Display
from timetrial.bench.report import write_page
from timetrial.bench.resuming import run_directory
from timetrial.bench.schedule import learning_rates
from timetrial.bench.workshop import Workshop, guessed_program
from timetrial.framework import config as configuration
from timetrial.framework.budget import Budget
from timetrial.framework.config import Choice, ConfigError, RunConfig, Tracking
from timetrial.framework.entries import OptimizerEntry
from timetrial.framework.errors import StorageError, reason_of
from timetrial.framework.paths import expanded, own_name
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction, Split, Status
from timetrial.framework.workload import Workload
from timetrial.tracking.read.runs import finished_configs, load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.report import ReportOptions
from timetrial.tracking.store.opening import Store

COMPARISON: Final = "comparison"
"""Tag with the identity of the comparison that made a run."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The outcome of ``compare``; notebooks show it as a table.

    Attributes:
        table: one row per optimizer, the best first: mean, lowest and highest value over the seeds
            of the deciding metric at the end, the training loss, updates, charged seconds, and the
            number of finished runs.
        report: path of ``report.html``.
        runs: the recorded runs, of any status.
        failures: error by name of a run that raised.
    """

    table: pd.DataFrame
    report: Path
    runs: Sequence[RunRecord]
    failures: Mapping[str, str]

    @property
    def notes(self) -> list[str]:
        """Failed runs, and the number of runs whose seconds are suspect, one line each."""
        lines = [f"FAILED {name}: {error}" for name, error in self.failures.items()]
        timed = [run for run in self.runs if run.condition == Condition.TIME]
        found = [run.tags.get(schema.SECONDS_SUSPECT, "") for run in timed]
        doubts = [doubt for doubt in found if doubt]
        if doubts:
            lines.append(f"seconds suspect in {len(doubts)} of {len(self.runs)} runs: {doubts[0]}")
        return lines

    def __str__(self) -> str:
        table = self.table.to_string(float_format=_short)
        return "\n".join([table, *self.notes, f"report {self.report}"])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(line)}</p>" for line in self.notes)
        link = f'<a href="{html.escape(self.report.as_uri())}">{html.escape(str(self.report))}</a>'
        return f"{self.table.to_html(float_format=_short)}{notes}<p>report: {link}</p>"


def compare(
    optimizers: Mapping[str, optax.GradientTransformation | OptimizerEntry | str],
    workload: Workload | str,
    budget: Budget | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    include_suspect: bool = False,
    experiment: str = "comparison",
    root: str | Path = "runs",
    uri: str | None = None,
) -> Comparison:
    """Races optimizers on one workload: records every run, writes the report, returns a table.

    A run is identified by its settings. Those of an object are unknown, so its runs are made anew
    at every call. With workload and optimizer given by name, a finished run is not repeated, and an
    interrupted one continues. A run that raises is recorded as FAILED; the others go on.

    Args:
        optimizers: by name in tables and plots, each an optax transformation, an
            ``OptimizerEntry``, or the name of an optimizer (``timetrial list``), also
            ``path/to/file.py:make``.
        workload: a ``Workload``, as ``supervised`` makes one of a flax model, or a name.
        budget: steps or charged seconds of each run; the workload's step hint by default.
        seeds: one run of each optimizer per seed, each in [0, 2**32).
        settings: settings by name in ``optimizers``, where that is a name or an entry.
        include_suspect: score runs under a time budget whose seconds are suspect, too, as those
            beside other processes are.
        experiment: MLflow experiment; its report is in ``reports`` below ``root``.
        root: directory for local files.
        uri: MLflow tracking URI; ``MLFLOW_TRACKING_URI`` by default, else a database in ``root``.

    Raises:
        UserError: an unknown name, settings that do not fit, or a store that cannot be opened.
    """
    tracking = Tracking(uri, experiment, str(root))
    task, workloads = chosen_workload(workload)
    workshop = Workshop(workloads, {})
    limit = budget or Budget(steps=workshop.workload(task).step_hint)
    base = [_config(task, limit, seed, tracking) for seed in dict.fromkeys(seeds)]
    plan = _planned(optimizers, base, settings or {}, by_name=isinstance(workload, str))
    for each in plan[:: len(base)]:
        workshop.optimizers = each.entries
        guessed_program(each.config, workshop)  # raises before anything is written
    store = store_at(uri, root, create=True)
    identity = uuid.uuid4().hex
    failures = _made(plan, workshop, store, identity)
    records = _records(plan, load_runs(store, experiment), identity)
    return _reported(plan, workshop.workload(task), records, failures, include_suspect)


def _reported(
    plan: Sequence[_Planned],
    workload: Workload,
    records: Sequence[RunRecord],
    failures: Mapping[str, str],
    include_suspect: bool,
) -> Comparison:
    """Writes the report of a comparison."""
    configs = [each.config for each in plan]
    options = ReportOptions(
        title=f"Timetrial: {workload.name}",
        planned=[(workload.name, label(c), c.seed, c.budget.condition) for c in configs],
        rates=learning_rates([], records),
        include_suspect=include_suspect,
    )
    page = write_page(records, _directory(configs[0].tracking), options)
    table = table_of(records, workload.metric, workload.direction)
    return Comparison(table, page, records, failures)


def table_of(records: Sequence[RunRecord], metric: str, direction: Direction) -> pd.DataFrame:
    """The table of a comparison, the best optimizer first.

    Args:
        records: its runs, of any status; values are those of finished ones.
        metric: the deciding metric, on the validation split.
        direction: its direction.
    """
    decisive, loss = f"{Split.VALIDATION}/{metric}", f"{Split.TRAIN}/loss"
    rows: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(record.optimizer for record in records):
        runs = [r for r in records if r.optimizer == name and r.status == Status.FINISHED]
        last = [r.evaluations[-1].metrics for r in runs if r.evaluations]
        values = [metrics.get(decisive, math.nan) for metrics in last] or [math.nan]
        losses = [metrics.get(loss, math.nan) for metrics in last] or [math.nan]
        rows[name] = {
            decisive: float(np.mean(values)),
            "lowest": min(values),
            "highest": max(values),
            loss: float(np.mean(losses)),
            "steps": float(np.mean([r.step for r in runs])) if runs else math.nan,
            "charged seconds": float(np.mean([r.train_seconds for r in runs]))
            if runs
            else math.nan,
            "finished runs": len(runs),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "optimizer"
    return table.sort_values(decisive, ascending=direction is Direction.MINIMIZE, kind="stable")


@dataclasses.dataclass(frozen=True)
class _Planned:
    """One run of a comparison.

    Attributes:
        config: its configuration.
        entries: optimizer entries that contain its optimizer.
        is_known: whether its configuration says all of it.
    """

    config: RunConfig
    entries: Mapping[str, OptimizerEntry]
    is_known: bool

    @property
    def identity(self) -> str:
        """Digest of its configuration."""
        return configuration.digest(self.config)


def _config(task: Choice, budget: Budget, seed: int, tracking: Tracking) -> RunConfig:
    """The configuration of a run, without its optimizer."""
    try:
        return RunConfig(task, Choice("", None), budget, seed, tracking=tracking)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _planned(
    optimizers: Mapping[str, Any],
    base: Sequence[RunConfig],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    by_name: bool,
) -> list[_Planned]:
    """The runs of a comparison, seeds innermost, so that they share a compiled program.

    Args:
        optimizers: as given by the caller.
        base: configurations without an optimizer, one per seed.
        settings: as given by the caller.
        by_name: whether the workload is given by its name.
    """
    for what, given in (("optimizers", optimizers), ("seeds", base)):
        if not given:
            raise ConfigError(f"{what}: expected at least one, got none")
    for name in settings:
        if name not in optimizers:
            raise ConfigError(configuration.unknown("optimizer in settings", name, optimizers))
    plan = []
    for name, given in optimizers.items():
        method, entries, shown = chosen_optimizer(
            given, name, settings.get(name, {}), any_name=True
        )
        known = by_name and isinstance(given, str)
        own = "" if given == name else shown
        for config in base:
            chosen = dataclasses.replace(config, optimizer=method, label=own)
            plan.append(_Planned(chosen, entries, known))
    return plan


def _made(
    plan: Sequence[_Planned], workshop: Workshop, store: Store, identity: str
) -> dict[str, str]:
    """Makes the runs that are not recorded; returns the error by name of each that raised."""
    failures: dict[str, str] = {}
    done = finished_configs(store, plan[0].config.tracking.experiment)
    due = [each for each in plan if not (each.is_known and each.identity in done)]
    with Display() as display:
        display.race(len(plan), len(plan) - len(due))
        for each in due:
            workshop.optimizers = each.entries
            try:
                result = run(
                    each.config,
                    store,
                    workshop,
                    watch=display.run(each.config),
                    tags={COMPARISON: identity},
                    directory=run_directory(each.config) if each.is_known else None,
                )
            except AlreadyFinishedError:
                continue
            except StorageError:
                raise
            except Exception as error:  # one failed run does not end the comparison
                failures[run_name(each.config)] = reason_of(error)
                display.failed(error)
            else:
                display.done(result, workshop.workload(each.config.workload).metric)
    return failures


def _records(
    plan: Sequence[_Planned], recorded: Sequence[RunRecord], identity: str
) -> list[RunRecord]:
    """The runs of this comparison: those it made, and finished ones that it did not repeat."""
    records = [run for run in recorded if run.tags.get(COMPARISON) == identity]
    made = {run.tags.get(schema.CONFIG_HASH) for run in records}
    for each in plan:
        if each.is_known and each.identity not in made:
            found = [run for run in recorded if run.tags.get(schema.CONFIG_HASH) == each.identity]
            records += [run for run in found if run.status == Status.FINISHED][-1:]
    return records


def _short(value: float) -> str:
    return f"{value:.5g}"


def _directory(tracking: Tracking) -> Path:
    """Directory of the report."""
    return Path(expanded(tracking.root)).absolute() / "reports" / own_name(tracking.experiment)
