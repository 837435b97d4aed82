"""The command ``timetrial tune``: makes or continues a study, with one worker or several.

Boundary: order of trials, dead workers and the final summary; ``trial`` makes one trial.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import optuna

from timetrial.bench.begun import Begun, note
from timetrial.bench.launch.launchers import Chosen
from timetrial.bench.launch.places import check_reachable, check_shared
from timetrial.bench.sweeping import sweep
from timetrial.bench.syncing import deliver_again
from timetrial.bench.syncing import opened as opened_store
from timetrial.bench.tune import ledger, summary
from timetrial.bench.tune.settings import StudyPlan, load_plan
from timetrial.bench.tune.storage import Database, check_storage, open_storage
from timetrial.bench.tune.trial import make_trial
from timetrial.bench.workshop import Workshop
from timetrial.framework.errors import UserError
from timetrial.framework.signals import raise_interrupted
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.studies import close_trial_runs

POLL_SECONDS = 1.0
"""Pause between two queries of the trials of other workers, in seconds."""


def tune(
    overrides: Sequence[str],
    chosen: Chosen | None = None,
    export: Path | None = None,
    typed: Sequence[str] = (),
) -> int:
    """Makes the missing trials of a study, then summarises it.

    Args:
        overrides: the study and its run, as ``key=value`` words.
        chosen: launcher of several workers; None works in this process. The same command may run
            on other machines.
        export: file for the best configuration, as a run preset.
        typed: the words of the command, for ``timetrial`` without one.

    Returns:
        The exit code: 1 when a trial ended with an error or the study is not complete.

    Raises:
        UserError: bad input, before a trial is made.
    """
    plan = load_plan(overrides)
    if chosen is not None and chosen.launcher.leaves_machine:
        check_reachable(plan.config.tracking, chosen.name)
        check_shared(plan.storage, plan.config.tracking, chosen.name)
    if export is not None and not export.absolute().parent.is_dir():
        raise UserError(f"--export: expected a file in a directory that exists, got {export}")
    store, database, study = opened(plan)
    with database.lock():
        dead = ledger.settle(study, database, plan, retry_errors=True)
    found_dead(dead, plan, store)
    sweep(store.root)
    points = tuple(map(str, range(plan.trials)))
    experiment = plan.config.tracking.experiment
    note(store.root, Begun("study", plan.name, experiment, tuple(typed), points))
    print(summary.headline(study, plan, database))
    if _shares_cores(chosen) and plan.config.budget.seconds is not None:
        print(
            "timetrial: workers on one machine share its cores: their charged seconds are not "
            "comparable with those of single runs",
            file=sys.stderr,
        )
    with raise_interrupted():
        if chosen is None:
            work(plan, store, database, study, workers=1)
        else:
            beside = chosen.launcher.workers if _shares_cores(chosen) else 1
            chosen.launcher.launch(["tune", *overrides, "--worker", str(beside)], None)
    return finish(plan, store, database, study, export)


def _shares_cores(chosen: Chosen | None) -> bool:
    """True for several workers on the cores of one machine."""
    if chosen is None or chosen.launcher.leaves_machine:
        return False
    return chosen.launcher.workers > 1 and not getattr(chosen.settings, "gpus", 0)


def opened(plan: StudyPlan) -> tuple[Store, Database, optuna.Study]:
    """Opens or creates the stores of a plan and its study."""
    tracking = plan.config.tracking
    check_storage(plan.storage)
    store = opened_store(tracking)
    database = open_storage(plan.storage, plan.settings.heartbeat_seconds)
    with database.lock():
        study = ledger.open_study(plan, database)
    return store, database, study


def worker(overrides: Sequence[str], workers: int) -> int:
    """One of several workers on this machine; the command ``timetrial tune --worker``."""
    plan = load_plan(overrides)
    store, database, study = opened(plan)
    with raise_interrupted():
        work(plan, store, database, study, workers)
    return 0


def work(
    plan: StudyPlan, store: Store, database: Database, study: optuna.Study, workers: int
) -> None:
    """Makes trials until every point is spent; waits for other workers, which may still die."""
    workshop = Workshop()
    while True:
        with database.lock():
            dead = ledger.settle(study, database, plan)
            claimed = ledger.claim(study, database, plan)
            if claimed is None:  # others had the trials that were known here
                dead += ledger.settle(study, database, plan)
                claimed = ledger.claim(study, database, plan)
            busy = ledger.is_busy(study, database)
        found_dead(dead, plan, store)
        if claimed is not None:
            text = make_trial(claimed, study, plan, database, store, workshop, workers)
            print(f"trial {claimed.trial.number} (point {claimed.point}): {text}", flush=True)
        elif busy:
            time.sleep(POLL_SECONDS)
        else:
            return


def found_dead(numbers: Sequence[int], plan: StudyPlan, store: Store) -> None:
    """Marks the runs of dead workers as KILLED and prints a line."""
    if numbers:
        experiment = plan.config.tracking.experiment
        deliver_again(store, plan.config.tracking)  # of this host
        close_trial_runs(store, experiment, plan.name, numbers)
        listed = ", ".join(map(str, numbers))
        print(f"the worker of trial {listed} died; another attempt resumes it from its checkpoint")


def finish(
    plan: StudyPlan, store: Store, database: Database, study: optuna.Study, export: Path | None
) -> int:
    """Summarises a study, writes the best configuration and prints the outcome."""
    with database.lock():
        summary.record(study, plan, store)
    print(summary.closing(study, plan, database))
    if export is not None:
        summary.export(study, plan, export)
        print(f"best configuration written to {export}")
    attempts = ledger.by_point(study.get_trials(deepcopy=False))
    points = [attempts.get(point, []) for point in range(plan.trials)]
    missing = sum(not ledger.spent(tried) for tried in points)
    if missing:
        text = f"{missing} of {plan.trials} points are not done; the same command continues"
        print(f"timetrial: {text}", file=sys.stderr)
    errors = 0
    for tried in points:
        if tried and ledger.outcome(tried[-1]) == ledger.ERROR:
            errors += 1
            text = tried[-1].user_attrs[ledger.OUTCOME]
            print(f"timetrial: trial {tried[-1].number}: {text}", file=sys.stderr)
    return 1 if missing or errors else 0
