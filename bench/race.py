"""The race: makes planned runs one after the other, then scores and reports them.

Boundary: order, progress and survival of runs; ``experiment.run`` makes one. Runs never overlap,
because runs that share cores have no valid timing.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from timetrial.bench import suite as suites
from timetrial.bench.experiment import Workshop, kill_like_ctrl_c, run
from timetrial.bench.invocation import program
from timetrial.bench.naming import label, run_name
from timetrial.bench.progress import Display, duration
from timetrial.bench.schedule import learning_rates, paper_learning_rates
from timetrial.bench.suite import Suite
from timetrial.bench.timing.calibration import calibrated_seconds
from timetrial.framework import config as configuration
from timetrial.framework.config import RunConfig, Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Status
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.read.mlflow import finished_configs, load_runs
from timetrial.tracking.read.sources import from_mlflow
from timetrial.tracking.record import schema
from timetrial.tracking.report import score_table_text, write_paper_report, write_report
from timetrial.tracking.scores.conditions import by_condition
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.store.listing import has_experiment
from timetrial.tracking.store.mirror import close_stale_runs
from timetrial.tracking.store.opening import Store, open_store
from timetrial.tracking.store.report_run import log_report
from timetrial.tracking.store.ui import run_address
from timetrial.tracking.store.views import write_views


def train(config: RunConfig) -> int:
    """Makes one run; the command ``timetrial train``."""
    workshop = Workshop()
    workshop.program(config)  # what it refuses, it refuses before anything is written
    store = open_store(config.tracking.uri, root=Path(config.tracking.root))
    with kill_like_ctrl_c(), Display() as display:
        display.race(total=1, skipped=0)
        result = run(config, store, workshop, watch=display.run(config))
        display.done(result, workshop.workload(config.workload).metric)
    for name_, value in sorted(result.evaluations[-1].metrics.items()):
        print(f"{name_:<40} {value:.6g}")
    print(f"recorded in {store.uri}, experiment {config.tracking.experiment}")
    print(ui_command_line(config.tracking))
    return 0


def show_plan(suite: Suite, tracking: Tracking) -> None:
    """Prints what a race would run; the command ``timetrial bench --plan``."""
    configs = [c for w in suite.workloads for c in suites.plan(suite, tracking, w)]
    print(headline(suite, configs))
    for config in configs:
        print(f"  {run_name(config):<48} {budget_text(config)}")


def budget_text(config: RunConfig) -> str:
    """The budget of a planned run in words."""
    if config.budget.steps is None:
        return "the time budget"
    more = "" if config.budget.also_seconds is None else ", and until the time budget is used up"
    return f"{config.budget.steps} steps{more}"


def headline(suite: Suite, configs: Sequence[RunConfig]) -> str:
    """A suite in one line, with its estimated length."""
    matrix = (
        f"{len(suite.workloads)} workloads x {len({label(c) for c in configs})} "
        f"optimizers x "
        f"{len(suite.seeds)} seeds"
    )
    conditions = " and ".join(f"{condition} budgets" for condition in suite.conditions)
    expected = duration(len(configs) * suite.seconds_per_run)
    return (
        f"suite {suite.name}: {matrix}, {conditions}: {len(configs)} runs, "
        f"about {expected} on 2 idle cores"
    )


def race(suite: Suite, tracking: Tracking) -> int:
    """Makes every run of the suite that is not recorded as finished, then scores and reports.

    A run that raises is recorded as FAILED and the race goes on; Ctrl-C ends it, and the same
    command continues it later. Returns the exit code: 1 when a run failed.
    """
    store = open_store(tracking.uri, root=Path(tracking.root))
    close_stale_runs(store, tracking.experiment)
    done = set(finished_configs(store, tracking.experiment))
    configs = planned(suite, tracking, store)
    skipped = sum(configuration.digest(config) in done for config in configs)
    print(headline(suite, configs))
    if skipped:
        print(
            f"{skipped} of {len(configs)} runs are recorded in {tracking.experiment!r} already "
            "and are not repeated"
        )
    failed: list[tuple[str, str]] = []
    with kill_like_ctrl_c(), Display(expected_seconds=suite.seconds_per_run) as display:
        display.race(len(configs), skipped)
        workshop = Workshop()
        for workload in suite.workloads:
            pace = None
            if Condition.TIME in suite.conditions:
                if not suite.calibrations:
                    config = suites.pacemaker(suite, tracking, workload)
                    tags = {schema.SETS_TIME_BUDGET: "true"}
                    failed += make_runs([config], done, suite, store, workshop, display, tags)
                pace = time_budget(suite, tracking, workload, store)
                if pace is None:  # nothing can be timed; the report shows what is missing
                    continue
            runs = suites.plan(suite, tracking, workload, pace)
            failed += make_runs(runs, done, suite, store, workshop, display, {})
    report(suite, tracking, store)
    for failed_run, error in failed:
        print(f"timetrial: FAILED {failed_run}: {error}", file=sys.stderr)
    return 1 if failed else 0


def planned(suite: Suite, tracking: Tracking, store: Store) -> list[RunConfig]:
    """All runs of a suite, with the time budgets that are recorded already."""
    return [
        config
        for workload in suite.workloads
        for config in suites.plan(
            suite, tracking, workload, time_budget(suite, tracking, workload, store)
        )
    ]


def time_budget(suite: Suite, tracking: Tracking, workload: str, store: Store) -> float | None:
    """Seconds of the time budget: of the suite's calibration, else of the pacemaker's run.

    None before the pacemaker has been run.
    """
    if Condition.TIME not in suite.conditions:
        return None
    pace = suites.pacemaker(suite, tracking, workload)
    file = suite.calibration(workload)
    if file is not None:
        return calibrated_seconds(Path(file), pace)
    digest = configuration.digest(pace)
    runs = load_runs(store, tracking.experiment, tags={schema.CONFIG_HASH: digest})
    finished = [run.train_seconds for run in runs if run.status == Status.FINISHED]
    return finished[0] if finished else None


def make_runs(
    configs: Sequence[RunConfig],
    done: set[str],
    suite: Suite,
    store: Store,
    workshop: Workshop,
    display: Display,
    tags: Mapping[str, str],
) -> list[tuple[str, str]]:
    """Makes the runs that are not done, in order; returns names and errors of those that raised."""
    failed = []
    for config in configs:
        digest = configuration.digest(config)
        if digest in done:
            continue
        watch = display.run(config)
        try:
            result = run(
                config,
                store,
                workshop,
                watch=watch,
                tags={schema.SUITE: suite.name, **tags},
                expected_steps=first_trial_steps(config, suite, store),
            )
        except UserError:
            raise
        except Exception as error:  # whatever one run dies of, the others go on
            failed.append((run_name(config), f"{type(error).__name__}: {error}"))
            display.failed(error)
        else:
            done.add(digest)
            display.done(result, workshop.workload(config.workload).metric)
    return failed


def first_trial_steps(config: RunConfig, suite: Suite, store: Store) -> int | None:
    """Steps that the first trial made within the time budget: what later trials are told."""
    needed = OPTIMIZERS[config.optimizer.name].needs_steps and config.budget.seconds is not None
    if not needed or config.seed == suite.seeds[0]:
        return None
    first = configuration.digest(dataclasses.replace(config, seed=suite.seeds[0]))
    runs = load_runs(store, config.tracking.experiment, tags={schema.CONFIG_HASH: first})
    return next((run.step for run in runs if run.status == Status.FINISHED), None)


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
    title = f"Timetrial: suite {suite.name}"
    try:
        page = write_report(
            [*scored, *study_trials(suite, tracking, store, studies)],
            directory,
            title=title,
            planned=plan,
            mixed_machines=mixed_machines,
            options=options,
            rates=learning_rates(configs, scored),
            run_url=run_address(store, tracking.experiment, mlflow_url),
        )
        log_report(store, tracking.experiment, suite.name, directory)
    except OSError as error:
        raise UserError(f"cannot write the report to {directory}: {error.strerror}") from error
    write_views(store, tracking.experiment, records)
    print()
    print(score_table_text(scored, planned=plan, mixed_machines=mixed_machines))
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
        page = write_paper_report(directory, rates=paper_learning_rates())
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
        shlex.quote(f"tracking.{key}={value}")
        for key, value in vars(tracking).items()
        if value is not None and value != getattr(default, key)
    ]
    return " ".join([f"{program()} ui", *([f"suite={suite.name}"] if suite else []), *given])
