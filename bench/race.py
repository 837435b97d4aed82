"""The race: makes planned runs one after the other, then scores and reports them.

Boundary: order, progress and failures of runs; ``experiment.run`` makes one. Runs never overlap,
because timings on shared cores are not valid.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence

from timetrial.bench import suite as suites
from timetrial.bench.begun import Begun, forget, note
from timetrial.bench.claims import TakenError, is_taken
from timetrial.bench.experiment import run
from timetrial.bench.launch.graph import Plan
from timetrial.bench.making import Maker
from timetrial.bench.naming import run_name
from timetrial.bench.obstacles import obstacles
from timetrial.bench.planning import (
    begun_race,
    headline,
    planned,
    print_left_out,
    runs_of,
    suspect_digests,
    time_budget,
)
from timetrial.bench.progress import Display
from timetrial.bench.report import report, ui_command_line
from timetrial.bench.resuming import is_over, run_directory, tidy
from timetrial.bench.suite import Suite
from timetrial.bench.syncing import deliver_again, opened
from timetrial.bench.terminal import say
from timetrial.bench.workshop import Workshop, guessed_program
from timetrial.framework import config as configuration
from timetrial.framework.config import RunConfig, Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.records import Row, RunRecord, RunResult
from timetrial.framework.signals import raise_interrupted
from timetrial.framework.types import Condition, Status
from timetrial.tracking.read.runs import finished_configs, load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.store.opening import Store

POLL_SECONDS = 1.0
"""Pause between two looks at runs of other processes, in seconds."""

NO_TIME_BUDGET = "its reference run failed or diverged, and only a finished one sets the seconds"


def train(config: RunConfig, *, again: bool = False, typed: Sequence[str] = ()) -> int:
    """Makes one run, or continues it; the command ``timetrial train``.

    Args:
        config: configuration of the run.
        again: make it once more if it is recorded as finished.
        typed: the words of the command, for ``timetrial`` without one.
    """
    workshop, tracking = Workshop(), config.tracking
    guessed_program(config, workshop)  # raises bad settings before anything is written
    store = opened(tracking)
    digest = configuration.digest(config)
    begun = Begun("run", run_name(config), tracking.experiment, tuple(typed), (digest,))
    record = None if again else finished_run(store, config)
    if record is not None:
        forget(store.root, begun)  # of a command that was killed at its end
        print(
            f"{run_name(config)} is recorded as finished already, {record.step} steps, in run "
            f"{record.run_id}; --again makes it once more"
        )
        show_evaluation(record.evaluations[-1])
        return 0
    note(store.root, begun)
    with raise_interrupted(), Display() as display:
        display.race(total=1, skipped=0)
        directory = run_directory(config)
        watch = display.run(config)
        result = run(config, store, workshop, watch=watch, directory=directory, again=again)
        tidy(config, directory)
        display.done(result, workshop.workload(config.workload).metric)
    forget(store.root, begun)
    show_result(result, store, tracking)
    return 0


def finished_run(store: Store, config: RunConfig) -> RunRecord | None:
    """The last finished run of a configuration in its experiment, None without."""
    runs = runs_of(store, config.tracking, configuration.digest(config))
    finished = [run for run in runs if run.status == Status.FINISHED and run.evaluations]
    return finished[-1] if finished else None


def show_evaluation(evaluation: Row) -> None:
    """Prints the metrics of an evaluation."""
    for name, value in sorted(evaluation.metrics.items()):
        print(f"{name:<40} {value:.6g}")


def show_result(result: RunResult, store: Store, tracking: Tracking) -> None:
    """Prints the last evaluation of a run and its place of record."""
    show_evaluation(result.evaluations[-1])
    print(f"recorded in {store.journals}, experiment {tracking.experiment}")
    print(ui_command_line(tracking))


def race(
    suite: Suite,
    tracking: Tracking,
    *,
    repeat_suspect: bool = True,
    include_suspect: bool = False,
    typed: Sequence[str] = (),
) -> int:
    """Makes every run of the suite that is not recorded as finished, then scores and reports.

    A run that raises is recorded as FAILED and the race continues. Ctrl-C ends the race; the same
    command continues it later.

    Args:
        suite: the suite.
        tracking: store and experiment of the runs.
        repeat_suspect: at the end, make runs under a time budget once more if their seconds are
            suspect.
        include_suspect: score runs whose seconds are suspect, too.
        typed: the words of the command, for ``timetrial`` without one.

    Returns:
        The exit code: 1 when a run failed.
    """
    if missing := obstacles(suite):
        raise UserError(f"suite {suite.name} cannot run here: {'; '.join(missing)}")
    store = opened(tracking)
    done = finished_configs(store, tracking.experiment)
    configs = planned(suite, tracking, store)
    note(store.root, begun_race(suite, tracking, configs, typed))
    skipped = sum(configuration.digest(config) in done for config in configs)
    say(headline(suite, configs))
    print_left_out(suite)
    if skipped:
        say(
            f"{skipped} of {len(configs)} runs are recorded in {tracking.experiment!r} already "
            "and are not repeated"
        )
    expected = sum(suite.expected_seconds(c.workload.name) for c in configs) / len(configs)
    with raise_interrupted(), Display(expected_seconds=expected) as display:
        display.race(len(configs), skipped)
        maker = Maker(store, Workshop(), display, aside=True)
        failed = make_all(Course(suite, tracking, done, maker), repeat_suspect)
    deliver_again(store, tracking)
    report(suite, tracking, store, include_suspect=include_suspect)
    for failed_run, error in failed:
        print(f"timetrial: FAILED {failed_run}: {error}", file=sys.stderr)
    return 1 if failed else 0


@dataclasses.dataclass(frozen=True)
class Course:
    """What the runs of one race share.

    Attributes:
        suite: the suite.
        tracking: store and experiment of the runs.
        done: digests of the configurations that need no further run; grows.
        maker: makes the runs, with the open store and the display of the race.
        again: make runs that are over once more.
    """

    suite: Suite
    tracking: Tracking
    done: set[str]
    maker: Maker
    again: bool = False

    @property
    def store(self) -> Store:
        """The store, open."""
        return self.maker.store

    @property
    def display(self) -> Display:
        """Progress of the race."""
        return self.maker.display


def make_all(course: Course, repeat_suspect: bool) -> list[tuple[str, str]]:
    """Makes the missing runs, and suspect ones once more; names and errors of failed ones."""
    try:
        failed = make_planned(course)
        if repeat_suspect and Condition.TIME in course.suite.conditions:
            failed += make_suspect_again(course)
    finally:
        course.store.connection.settle()
    return failed


def make_planned(course: Course) -> list[tuple[str, str]]:
    """Makes the missing runs of a suite, reference runs first; names and errors of failed ones."""
    suite, tracking, store = course.suite, course.tracking, course.store
    failed: list[tuple[str, str]] = []
    for workload in suite.workloads:
        pace = None
        if Condition.TIME in suite.conditions:
            config = suites.pacemaker(suite, tracking, workload)
            if suites.sets_pace(suite, config):
                if reference_is_due(suite, config, course.done, store):
                    course.done.discard(configuration.digest(config))
                failed += make_runs(course, [config], {schema.SETS_TIME_BUDGET: "true"})
            pace = time_budget(suite, tracking, workload, store)
            if pace is None:  # the report lists missing runs
                failed.append((f"{workload}, time budgets", NO_TIME_BUDGET))
                continue
        failed += make_runs(course, suites.plan(suite, tracking, workload, pace))
    return failed


def reference_is_due(suite: Suite, config: RunConfig, done: set[str], store: Store) -> bool:
    """True for a suspect reference run whose seconds no finished run has taken as its budget."""
    digest, tracking = configuration.digest(config), config.tracking
    if digest not in done or digest not in suspect_digests(runs_of(store, tracking, digest)):
        return False
    workload = config.workload.name
    seconds = time_budget(suite, tracking, workload, store)
    others = {configuration.digest(c) for c in suites.plan(suite, tracking, workload, seconds)}
    return not (others - {digest}) & done


def make_suspect_again(course: Course) -> list[tuple[str, str]]:
    """Makes runs under a time budget once more if their seconds are suspect.

    Reference runs are not among them: other runs have taken their seconds already.
    """
    suite, tracking, store = course.suite, course.tracking, course.store
    suspects = suspect_digests(load_runs(store, tracking.experiment))
    due = dataclasses.replace(course, done=course.done - suspects, again=True)
    failed: list[tuple[str, str]] = []
    for workload in suite.workloads:
        seconds = time_budget(suite, tracking, workload, store)
        plan = suites.plan(suite, tracking, workload, seconds)
        again = [
            config
            for config in plan
            if config.budget.limit_seconds is not None and configuration.digest(config) in suspects
        ]
        if again:
            course.display.again(len(again))
            told = f"{workload}: runs with suspect seconds are made again: {len(again)}"
            course.display.line(told)
            failed += make_runs(due, again, plan=plan)
    return failed


def make_runs(
    course: Course,
    configs: Sequence[RunConfig],
    tags: Mapping[str, str] | None = None,
    plan: Sequence[RunConfig] = (),
) -> list[tuple[str, str]]:
    """Makes the missing runs in order; returns names and errors of failed ones.

    A run that sets the seconds or steps of others is repeated at once if its seconds are suspect.

    Args:
        course: what the runs share.
        configs: the runs to make; those that are done are left out.
        tags: further tags of these runs.
        plan: the runs of the suite on their workload, if they are not all in ``configs``.
    """
    tags = {schema.SUITE: course.suite.name, **(tags or {})}
    failed: list[tuple[str, str]] = []
    due = [config for config in configs if configuration.digest(config) not in course.done]
    known, taken = Plan(plan or configs), set[str]()
    while due:
        left = [
            config
            for config in due
            if is_made_elsewhere(course, config, taken)
            or not make_planned_run(course, config, known, tags, failed)
        ]
        taken |= {configuration.digest(config) for config in left}
        due = [config for config in left if configuration.digest(config) not in course.done]
        if due and len(due) == len(left):
            time.sleep(POLL_SECONDS)
    return failed


def is_made_elsewhere(course: Course, config: RunConfig, taken: set[str]) -> bool:
    """True while another process makes a run, and once it has made it.

    Args:
        course: what the runs share; a run that is made is done.
        config: the run.
        taken: digests of runs that another process had before.
    """
    digest, directory = configuration.digest(config), run_directory(config)
    if is_taken(directory):
        if digest not in taken:
            course.display.line(f"{run_name(config)}: another process makes it")
        return True
    if digest not in taken or course.again or not is_over(course.store.root, directory):
        return False
    course.done.add(digest)
    course.display.elsewhere(config)
    return True


def make_planned_run(
    course: Course,
    config: RunConfig,
    plan: Plan,
    tags: Mapping[str, str],
    failed: list[tuple[str, str]],
) -> bool:
    """Makes or continues one run of a race; False when another process has it.

    Args:
        course: what the runs share.
        config: the run.
        plan: the runs of the suite on its workload.
        tags: tags of the run.
        failed: grows by name and error of a failed run.
    """
    digest = configuration.digest(config)
    try:
        made = course.maker.make(config, tags, plan.first_trials(config), again=course.again)
    except TakenError:
        return False
    if made.error:
        failed.append((run_name(config), made.error))
    else:
        course.done.add(digest)
    return True
