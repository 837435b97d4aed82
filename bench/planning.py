"""The runs of a suite, their time budgets, and the plan in words.

Boundary: reads the recorded seconds of reference runs; ``bench.race`` makes the runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax

from timetrial.bench import suite as suites
from timetrial.bench.launch.pool import Pool
from timetrial.bench.naming import label, run_name
from timetrial.bench.progress import duration
from timetrial.bench.suite import Suite
from timetrial.framework import config as configuration
from timetrial.framework.config import Choice, RunConfig, Tracking
from timetrial.framework.entries import Horizon
from timetrial.framework.memory import bytes_of, in_words
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Status
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.velo.weights import has_google_weights
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.scores.targets import diverged
from timetrial.tracking.store.opening import Store
from timetrial.workloads import WORKLOADS


def show_plan(suite: Suite, tracking: Tracking) -> int:
    """Prints the runs of a race; the command ``timetrial bench --plan``.

    Returns:
        The exit code: 1 when something is missing that the runs need.
    """
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
    sizes = [state_bytes(config.workload, config.optimizer) or 0 for config in configs]
    if any(sizes):
        print("state: parameters and optimizer; a run says what else it needs before it starts")
        kept = sum(sizes) if tracking.final_checkpoint else 0
        print(
            f"disk: up to {in_words(kept + 2 * max(sizes))} of checkpoints in {tracking.root}; "
            f"tracking.final_checkpoint=false needs {in_words(2 * max(sizes))}"
        )
    missing = obstacles(suite)
    for reason in missing:
        print(f"missing: {reason}")
    return 1 if missing else 0


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


def obstacles(suite: Suite) -> list[str]:
    """What is missing on this machine for the runs of a suite, one line each."""
    found = {name: WORKLOADS[name].unavailable() for name in suite.workloads}
    reasons = [f"workload {name}: {reason}" for name, reason in found.items() if reason]
    if "gpu" in suite.needs and jax.default_backend() == "cpu":
        reasons.append("a GPU; needs=[] runs the suite without")
    if "google_weights" in suite.needs and not has_google_weights():
        reasons.append("Google's weights of VeLO, which timetrial fetch velo gets")
    return reasons


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
        print(f"left out: {name}: {reason}")


def budget_text(config: RunConfig, seconds: float | None) -> str:
    """The budget of a planned run in words; ``seconds`` are those of its preset, if any."""
    if config.budget.steps is None:
        own = seconds is not None and config.budget.calibration is None
        return f"{seconds:g} charged seconds" if own else "the time budget"
    more = "" if config.budget.also_seconds is None else ", and until the time budget is used up"
    return f"{config.budget.steps} steps{more}"


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
    suite: Suite, tracking: Tracking, workload: str, store: Store, pool: Pool | None = None
) -> float | None:
    """Charged seconds of the time budget: of calibration, preset or reference run, in this order.

    A repeated reference run counts by its first credible record, else by its first one. None before
    the reference run has finished, or when it diverged.

    Args:
        suite: the suite.
        tracking: experiment of the runs.
        workload: one of the suite's.
        store: store of the record.
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
