"""Scores recorded runs and writes reports: the command ``timetrial report``.

Boundary: chooses the runs and prints what came of them; ``tracking.report`` writes the files.
"""

from __future__ import annotations

from pathlib import Path

from timetrial.bench import suite as suites
from timetrial.bench.naming import label
from timetrial.bench.planning import planned
from timetrial.bench.schedule import learning_rates, paper_learning_rates
from timetrial.bench.suite import Suite
from timetrial.framework import config as configuration
from timetrial.framework.config import RunConfig, Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition
from timetrial.tracking.read.mlflow import load_runs
from timetrial.tracking.read.sources import from_mlflow
from timetrial.tracking.record import schema
from timetrial.tracking.report import (
    ReportOptions,
    score_table_text,
    write_paper_report,
    write_report,
)
from timetrial.tracking.scores.conditions import by_condition
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.store.listing import has_experiment
from timetrial.tracking.store.opening import Store, open_store
from timetrial.tracking.store.report_run import log_report
from timetrial.tracking.store.ui import run_address
from timetrial.tracking.store.views import write_views


def report(
    suite: Suite,
    tracking: Tracking,
    store: Store | None = None,
    *,
    mixed_machines: bool = False,
    options: Bootstrap | None = None,
    studies: str = schema.STUDIES,
    mlflow_url: str = "",
) -> int:
    """Scores the recorded runs, writes the report and prints the score table and where it is.

    Args:
        suite: which runs.
        tracking: where they are recorded.
        store: the same, where it is open already.
        mixed_machines: score seconds of runs from different machines, too.
        options: how intervals are made.
        studies: experiment with the trials of tuning studies, beside the suite's own.
        mlflow_url: where the web interface is served, for links to the runs.
    """
    store = store or open_store(tracking.uri, root=Path(tracking.root), create=False)
    configs = planned(suite, tracking, store)
    identities = {configuration.digest(config) for config in configs}
    recorded = load_runs(store, tracking.experiment)
    records = [run for run in recorded if run.tags[schema.CONFIG_HASH] in identities]
    if not records:
        raise UserError(
            f"experiment {tracking.experiment!r} in {store.uri} holds no runs of suite "
            f"{suite.name}; make them with: timetrial bench suite={suite.name}"
        )
    directory = Path(tracking.root).absolute() / "reports" / suite.name
    scored = by_condition(records)
    plan = [
        (c.workload.name, label(c), c.seed, condition)
        for c in configs
        for condition in served_conditions(c, suite)
    ]
    report_options = ReportOptions(
        title=f"Timetrial: suite {suite.name}",
        planned=plan,
        mixed_machines=mixed_machines,
        bootstrap=options or Bootstrap(),
        rates=learning_rates(configs, scored),
        run_url=run_address(store, tracking.experiment, mlflow_url),
    )
    try:
        page = write_report(
            [*scored, *study_trials(suite, tracking, store, studies)],
            directory,
            report_options,
        )
        log_report(store, tracking.experiment, suite.name, directory)
    except OSError as error:
        raise UserError(f"cannot write the report to {directory}: {error.strerror}") from error
    write_views(store, tracking.experiment, records)
    print()
    print(score_table_text(scored, report_options))
    if len(records) < len(recorded):
        others = len(recorded) - len(records)
        print(f"\n{others} other runs in {tracking.experiment!r} do not belong to this suite")
    print(f"\nreport   {page}")
    print(f"MLflow   {ui_command_line(tracking, suite)}")
    return 0


def study_trials(
    suite: Suite, tracking: Tracking, store: Store, experiment: str
) -> list[RunRecord]:
    """Trials of tuning studies on the suite's workloads, of its experiment and of another one."""
    found = {
        run.run_id: run
        for name in (tracking.experiment, experiment)
        if has_experiment(store, name)
        for run in from_mlflow(store, name, filter_string=f"tags.{schema.STUDY} LIKE '%'").records
    }
    return [run for run in found.values() if run.workload in suite.workloads]


def paper_report(tracking: Tracking) -> int:
    """Writes the report of the paper's own tables; it needs no recorded run."""
    directory = Path(tracking.root).absolute() / "reports" / "paper"
    try:
        page = write_paper_report(directory, ReportOptions(rates=paper_learning_rates()))
    except OSError as error:
        raise UserError(f"cannot write the report to {directory}: {error.strerror}") from error
    print(f"report   {page}")
    return 0


def served_conditions(config: RunConfig, suite: Suite) -> list[Condition]:
    """The conditions that a planned run gives a result for."""
    pace = configuration.digest(suites.pacemaker(suite, config.tracking, config.workload.name))
    has_pacemaker = Condition.TIME in suite.conditions and not suite.calibrations
    sets_pace = has_pacemaker and configuration.digest(config) == pace
    if config.budget.also_seconds is not None or sets_pace:
        return [Condition.STEP, Condition.TIME]
    return [config.budget.condition]


def ui_command_line(tracking: Tracking, suite: Suite | None = None) -> str:
    """The one command that opens MLflow at the right view."""
    default = Tracking(experiment=f"timetrial-{suite.name if suite else 'quick'}")
    given = [
        f"tracking.{key}={value}"
        for key, value in vars(tracking).items()
        if value is not None and value != getattr(default, key)
    ]
    if not given and suite:
        return f"make ui suite={suite.name}"
    return " ".join(["timetrial ui", *([f"suite={suite.name}"] if suite else []), *given])
