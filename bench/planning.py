"""The runs of a suite, their time budgets, and the plan in words.

Boundary: reads the recorded seconds of reference runs; ``bench.race`` makes the runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax

from timetrial.bench import lengths
from timetrial.bench import suite as suites
from timetrial.bench.begun import Begun, run_key
from timetrial.bench.costs import Crew, Planned, cost_lines
from timetrial.bench.launch.graph import ordered
from timetrial.bench.launch.launchers import Chosen
from timetrial.bench.launch.pool import Pool
from timetrial.bench.naming import label, run_name
from timetrial.bench.obstacles import obstacles
from timetrial.bench.progress import duration
from timetrial.bench.suite import Suite
from timetrial.bench.terminal import say
from timetrial.framework import config as configuration
from timetrial.framework.budget import Budget
from timetrial.framework.calibration import Calibration, load_calibration
from timetrial.framework.config import Choice, ConfigError, RunConfig, Tracking
from timetrial.framework.entries import Horizon
from timetrial.framework.memory import bytes_of, in_words
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Status
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.scores.targets import diverged
from timetrial.tracking.store.opening import Store
from timetrial.workloads import WORKLOADS


def show_plan(
    suite: Suite, tracking: Tracking, crew: Crew | None = None, price: float | None = None
) -> int:
    """Prints the runs of a race and their costs; the command ``timetrial bench --plan``.

    Args:
        suite: the suite.
        tracking: store and experiment of the runs.
        crew: workers of the launcher; None is one on this machine.
        price: money per GPU-hour, or per machine-hour on CPUs; None if unknown.

    Returns:
        The exit code: 1 when something is missing that the runs need.
    """
    crew = crew or Crew()
    configs = [c for w in suite.workloads for c in suites.plan(suite, tracking, w)]
    print(headline(suite, configs))
    print_left_out(suite)
    references = {w: suites.pacemaker(suite, tracking, w) for w in suite.workloads}
    for config in configs:
        expected = suite.expected_seconds(config.workload.name)
        about = f"about {duration(expected)}" if expected else ""
        size = state_bytes(config.workload, config.optimizer)
        state = f"state {in_words(size)}" if size else ""
        budget = budget_text(config, references[config.workload.name].budget.seconds)
        print(f"  {run_name(config):<44} {budget:<24} {about:<16} {state}".rstrip())
    show_disk(configs, tracking, crew.workers)
    for line in cost_lines(
        planned_lengths(suite, tracking), crew, machine=suite.machine, price=price
    ):
        print(line)
    missing = obstacles(suite)
    for reason in missing:
        print(f"missing: {reason}")
    return 1 if missing else 0


def crew_of(chosen: Chosen, *, needs_gpu: bool) -> Crew:
    """The workers of a launcher.

    Args:
        chosen: the launcher.
        needs_gpu: every run needs a GPU; a worker without GPUs of its own then has one.
    """
    launcher = chosen.launcher
    gpus = getattr(chosen.settings, "gpus", 0) or int(needs_gpu)
    return Crew(chosen.name, max(1, launcher.workers), gpus, not launcher.leaves_machine)


def show_disk(configs: Sequence[RunConfig], tracking: Tracking, workers: int) -> None:
    """Prints what the checkpoints of runs need, where it is known before they start.

    Args:
        configs: the runs.
        tracking: place of the runs.
        workers: number of runs at once, >= 1.
    """
    sizes = sorted(state_bytes(config.workload, config.optimizer) or 0 for config in configs)
    if not any(sizes):
        return
    print("state: parameters and optimizer; a run says what else it needs before it starts")
    kept = sum(sizes) if tracking.final_checkpoint else 0
    running = 2 * sum(sizes[-workers:])
    print(
        f"disk: up to {in_words(kept + running)} of checkpoints in {tracking.root}; "
        f"tracking.final_checkpoint=false needs {in_words(running)}"
    )


def planned_lengths(suite: Suite, tracking: Tracking) -> list[Planned]:
    """The runs of a suite in order, each with its expected wall time.

    All runs of a workload wait for the reference run where it sets the time budget.
    """
    store = lengths.readable_store(tracking)
    found = lengths.recorded(store)
    known = {length.digest for length in found if length.experiment == tracking.experiment}
    runs: list[Planned] = []
    for workload in dict.fromkeys(suite.workloads):
        limit = _known_seconds(suite, tracking, workload, store)
        calibration = _calibration(suite, tracking, workload)
        steps = ordered(suite, tracking, workload, limit or 1.0)
        positions = {step.digest: len(runs) + i for i, step in enumerate(steps)}
        references = [positions[s.digest] for s in steps if schema.SETS_TIME_BUDGET in s.tags]
        of_label: dict[tuple[str, Budget], lengths.Expected] = {}
        for step in steps:
            own, key = positions[step.digest], (label(step.config), step.config.budget)
            if key not in of_label:  # seeds do not change the length
                of_label[key] = lengths.expected(
                    step.config,
                    found,
                    calibration,
                    suite.expected_seconds(workload),
                    limit_is_known=limit is not None,
                )
            before = [*references, *([positions[step.after]] if step.after else [])]
            after = tuple(sorted({position for position in before if position != own}))
            runs.append(Planned(of_label[key], after, step.digest in known))
    return runs


def _known_seconds(
    suite: Suite, tracking: Tracking, workload: str, store: Store | None
) -> float | None:
    """The time budget of a workload as far as it is known; a store that fails knows none."""
    try:
        return time_budget(suite, tracking, workload, store)
    except TrackingError:
        return None


def _calibration(suite: Suite, tracking: Tracking, workload: str) -> Calibration | None:
    """The calibration of a workload; None where it has none that fits."""
    file = suite.calibration(workload)
    if file is None:
        return None
    reference = suites.pacemaker(suite, tracking, workload)
    try:
        configuration.calibrated_seconds(Path(file), reference.workload, file)
        return load_calibration(Path(file))
    except ConfigError:  # only time budgets need it
        return None


@functools.lru_cache(maxsize=256)
def state_bytes(workload: Choice, optimizer: Choice) -> int | None:
    """Bytes of parameters, model state and optimizer state; None for small workloads."""
    build = WORKLOADS[workload.name].without_data
    if build is None or OPTIMIZERS[optimizer.name].is_foreign:
        return None
    made = build(workload.settings)
    horizon = Horizon(made.step_hint, made.step_hint, made.roles)
    tx = OPTIMIZERS[optimizer.name].make(optimizer.settings, horizon)
    model = jax.eval_shape(made.init, jax.random.key(0))
    return bytes_of((model, jax.eval_shape(tx.init, model[0])))


def headline(suite: Suite, configs: Sequence[RunConfig]) -> str:
    """A suite in one line, with its estimated length."""
    matrix = (
        f"{len(suite.workloads)} workloads x {len({label(c) for c in configs})} "
        f"optimizers x "
        f"{len(suite.seeds)} seeds"
    )
    conditions = " and ".join(f"{condition} budgets" for condition in suite.conditions)
    expected = duration(sum(suite.expected_seconds(c.workload.name) for c in configs))
    return (
        f"suite {suite.name}: {matrix}, {conditions}: {len(configs)} runs, "
        f"about {expected} on {suite.machine}"
    )


def print_left_out(suite: Suite) -> None:
    """Prints a line for each optimizer that cannot run here."""
    for name, reason in suite.left_out().items():
        say(f"left out: {name}: {reason}")


def budget_text(config: RunConfig, seconds: float | None) -> str:
    """The budget of a planned run in words; ``seconds`` are those of its preset, if any."""
    if config.budget.steps is None:
        own = seconds is not None and config.budget.calibration is None
        return f"{seconds:g} charged seconds" if own else "the time budget"
    more = "" if config.budget.also_seconds is None else ", and until the time budget is used up"
    return f"{config.budget.steps} steps{more}"


def begun_race(
    suite: Suite, tracking: Tracking, configs: Sequence[RunConfig], typed: Sequence[str]
) -> Begun:
    """The note of a race that begins; arguments as for ``planned`` and ``race``."""
    keys = [run_key(run_name(config), config.budget.condition) for config in configs]
    return Begun("race", suite.name, tracking.experiment, tuple(typed), tuple(keys))


def planned(
    suite: Suite, tracking: Tracking, store: Store, pool: Pool | None = None
) -> list[RunConfig]:
    """All runs of a suite, with the time budgets known so far; ``pool`` as in ``time_budget``."""
    return [
        config
        for workload in suite.workloads
        for config in suites.plan(
            suite, tracking, workload, time_budget(suite, tracking, workload, store, pool)
        )
    ]


def time_budget(
    suite: Suite,
    tracking: Tracking,
    workload: str,
    store: Store | None,
    pool: Pool | None = None,
) -> float | None:
    """Charged seconds of the time budget: of calibration, preset or reference run, in this order.

    A repeated reference run counts by its first credible record, else by its first one. None before
    the reference run has finished, when it diverged, or without a store.

    Args:
        suite: the suite.
        tracking: experiment of the runs.
        workload: one of the suite's.
        store: store of the record, or None.
        pool: only a reference run of this pool sets the seconds; None takes that of any machine.

    Raises:
        ConfigError: the pool has no calibration of the workload, and a reference run is needed.
    """
    if Condition.TIME not in suite.conditions:
        return None
    pace = suites.pacemaker(suite, tracking, workload)
    file = suite.calibration(workload)
    if file is not None:
        return configuration.calibrated_seconds(Path(file), pace.workload, f"calibration {file}")
    if pace.budget.seconds is not None:
        return pace.budget.seconds
    if store is None:
        return None
    tags = {} if pool is None else pool.identity(workload)
    runs = runs_of(store, tracking, configuration.digest(pace), tags)
    usable = sorted(filter(sets_budgets, runs), key=is_suspect)
    return usable[0].train_seconds if usable else None


def runs_of(
    store: Store, tracking: Tracking, digest: str, tags: Mapping[str, str] | None = None
) -> list[RunRecord]:
    """The recorded runs of one configuration in order of start; reads no other runs.

    Args:
        store: store of the record.
        tracking: experiment of the runs.
        digest: identity of the configuration.
        tags: further tags that a run must have.
    """
    tags = {**(tags or {}), schema.CONFIG_HASH: digest}
    return load_runs(store, tracking.experiment, tags=tags)


def sets_budgets(record: RunRecord) -> bool:
    """True when a run may tell other runs their seconds or steps: finished, and not diverged."""
    return record.status == Status.FINISHED and not diverged(record)


def is_suspect(record: RunRecord) -> bool:
    """True when the seconds of a run are not credible, whatever its kind of budget."""
    return schema.SECONDS_SUSPECT in record.tags


def suspect_digests(records: Iterable[RunRecord]) -> set[str]:
    """Identities of the configurations whose finished runs are all suspect; diverged ones are not.

    Args:
        records: recorded runs of an experiment.
    """
    ended = [r for r in records if r.status == Status.FINISHED and schema.CONFIG_HASH in r.tags]
    found = {r.tags[schema.CONFIG_HASH] for r in ended if is_suspect(r) and not diverged(r)}
    return found - {r.tags[schema.CONFIG_HASH] for r in ended if not is_suspect(r)}
