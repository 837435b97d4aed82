"""The runs of a suite, their time budgets, and the plan in words.

Boundary: reads the recorded seconds of reference runs; ``bench.race`` makes the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from timetrial.bench import suite as suites
from timetrial.bench.naming import label, run_name
from timetrial.bench.progress import duration
from timetrial.bench.suite import Suite
from timetrial.framework import config as configuration
from timetrial.framework.config import RunConfig, Tracking
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Status
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.scores.targets import diverged
from timetrial.tracking.store.opening import Store


def show_plan(suite: Suite, tracking: Tracking) -> None:
    """Prints the runs of a race; the command ``timetrial bench --plan``."""
    configs = [c for w in suite.workloads for c in suites.plan(suite, tracking, w)]
    print(headline(suite, configs))
    for config in configs:
        print(f"  {run_name(config):<48} {budget_text(config)}")


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


def budget_text(config: RunConfig) -> str:
    """The budget of a planned run in words."""
    if config.budget.steps is None:
        return "the time budget"
    more = "" if config.budget.also_seconds is None else ", and until the time budget is used up"
    return f"{config.budget.steps} steps{more}"


def planned(suite: Suite, tracking: Tracking, store: Store) -> list[RunConfig]:
    """All runs of a suite, with the time budgets known so far."""
    return [
        config
        for workload in suite.workloads
        for config in suites.plan(
            suite, tracking, workload, time_budget(suite, tracking, workload, store)
        )
    ]


def time_budget(suite: Suite, tracking: Tracking, workload: str, store: Store) -> float | None:
    """Charged seconds of the time budget: from the suite's calibration, else the reference run.

    None before the reference run has finished, or when it diverged.
    """
    if Condition.TIME not in suite.conditions:
        return None
    pace = suites.pacemaker(suite, tracking, workload)
    file = suite.calibration(workload)
    if file is not None:
        return configuration.calibrated_seconds(Path(file), pace.workload, f"calibration {file}")
    digest = configuration.digest(pace)
    runs = load_runs(store, tracking.experiment, tags={schema.CONFIG_HASH: digest})
    return next((run.train_seconds for run in runs if sets_budgets(run)), None)


def sets_budgets(record: RunRecord) -> bool:
    """True when a run may tell other runs their seconds or steps: finished, and not diverged."""
    return record.status == Status.FINISHED and not diverged(record)
