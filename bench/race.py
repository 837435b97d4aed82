"""The race: makes planned runs one after the other, then scores and reports them.

Boundary: order, progress and survival of runs; ``experiment.run`` makes one. Runs never overlap,
because runs that share cores have no valid timing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench import suite as suites
from bench.experiment import Workshop, kill_like_ctrl_c, run
from bench.progress import Display, duration, name
from bench.suite import Suite
from framework import config as configuration
from framework.config import RunConfig, Tracking
from framework.errors import UserError
from tracking import schema
from tracking.query import finished_configs, load_runs
from tracking.recovery import close_stale_runs
from tracking.report import score_table_text, write_report
from tracking.store import Store, open_store
from tracking.views import write_views


def train(config: RunConfig) -> int:
    """Makes one run; the command ``timetrial train``."""
    store = open_store(config.tracking.uri, root=Path(config.tracking.root))
    with kill_like_ctrl_c(), Display() as display:
        display.race(total=1, skipped=0)
        workshop = Workshop()
        result = run(config, store, workshop, watch=display.run(config))
        display.done(result, workshop.workload(config.workload).metric)
    for name_, value in sorted(result.evaluations[-1].metrics.items()):
        print(f"{name_:<40} {value:.6g}")
    print(f"recorded in {store.uri}, experiment {config.tracking.experiment}")
    print(ui_command_line(config.tracking))
    return 0


def show_plan(suite: Suite, tracking: Tracking) -> None:
    """Prints what a race would run; the command ``timetrial bench --plan``."""
    configs = suites.plan(suite, tracking)
    print(headline(suite, len(configs)))
    for config in configs:
        print(f"  {name(config):<45} {config.budget.steps} steps")


def headline(suite: Suite, runs: int) -> str:
    """A suite in one line, with its estimated length."""
    matrix = (
        f"{len(suite.workloads)} workloads x {len(suite.optimizer_names())} optimizers x "
        f"{len(suite.seeds)} seeds"
    )
    expected = duration(runs * suite.seconds_per_run)
    return f"suite {suite.name}: {matrix} = {runs} runs, about {expected} on 2 cores"


def race(suite: Suite, tracking: Tracking) -> int:
    """Makes every run of the suite that is not recorded as finished, then scores and reports.

    A run that raises is recorded as FAILED and the race goes on; Ctrl-C ends it, and the same
    command continues it later. Returns the exit code: 1 when a run failed.
    """
    store = open_store(tracking.uri, root=Path(tracking.root))
    configs = suites.plan(suite, tracking)
    close_stale_runs(store, tracking.experiment)
    done = finished_configs(store, tracking.experiment)
    todo = [config for config in configs if configuration.digest(config) not in done]
    print(headline(suite, len(configs)))
    if len(todo) < len(configs):
        print(
            f"{len(configs) - len(todo)} of {len(configs)} runs are recorded in "
            f"{tracking.experiment!r} already and not repeated"
        )
    with kill_like_ctrl_c(), Display(expected_seconds=suite.seconds_per_run) as display:
        display.race(len(configs), len(configs) - len(todo))
        failed = make_runs(todo, suite, store, display)
    report(suite, tracking, store)
    for run_name, error in failed:
        print(f"timetrial: FAILED {run_name}: {error}", file=sys.stderr)
    return 1 if failed else 0


def make_runs(
    configs: Sequence[RunConfig], suite: Suite, store: Store, display: Display
) -> list[tuple[str, str]]:
    """Makes the runs in order; returns the names and errors of those that raised."""
    workshop, failed = Workshop(), []
    for config in configs:
        watch = display.run(config)
        try:
            result = run(config, store, workshop, watch=watch, tags={schema.SUITE: suite.name})
        except UserError:
            raise
        except Exception as error:  # whatever one run dies of, the others go on
            failed.append((name(config), f"{type(error).__name__}: {error}"))
            display.failed(error)
        else:
            display.done(result, workshop.workload(config.workload).metric)
    return failed


def report(suite: Suite, tracking: Tracking, store: Store | None = None) -> int:
    """Scores the recorded runs, writes the report and prints the score table and where it is."""
    store = store or open_store(tracking.uri, root=Path(tracking.root), create=False)
    configs = suites.plan(suite, tracking)
    identities = {configuration.digest(config) for config in configs}
    recorded = load_runs(store, tracking.experiment)
    records = [run for run in recorded if run.tags[schema.CONFIG_HASH] in identities]
    if not records:
        raise UserError(
            f"experiment {tracking.experiment!r} in {store.uri} holds no runs of suite "
            f"{suite.name}; make them with: timetrial bench suite={suite.name}"
        )
    directory = Path(tracking.root).absolute() / "reports" / suite.name
    page = write_report(
        records,
        directory,
        title=f"Timetrial: suite {suite.name}",
        planned=[(c.workload.name, c.optimizer.name, c.seed, c.budget.condition) for c in configs],
    )
    write_views(store, tracking.experiment, records)
    print()
    print(score_table_text(records))
    if len(records) < len(recorded):
        others = len(recorded) - len(records)
        print(f"\n{others} other runs in {tracking.experiment!r} do not belong to this suite")
    print(f"\nreport   {page}")
    print(f"MLflow   {ui_command_line(tracking, suite)}")
    return 0


def ui_command_line(tracking: Tracking, suite: Suite | None = None) -> str:
    """The one command that opens MLflow at the right view."""
    default = Tracking(experiment=f"timetrial-{suite.name}") if suite else Tracking()
    given = [
        f"tracking.{key}={value}"
        for key, value in vars(tracking).items()
        if value is not None and value != getattr(default, key)
    ]
    if not given and suite:
        return f"make ui suite={suite.name}"
    return " ".join(["timetrial ui", *([f"suite={suite.name}"] if suite else []), *given])
