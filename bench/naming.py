"""Names, tags, headers and summaries of runs.

Boundary: functions of configurations and results; they read the machine's description and the time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping

from timetrial.framework import config as configuration
from timetrial.framework.budget import TARGET_SHARE
from timetrial.framework.clock import Clock, charged
from timetrial.framework.config import RunConfig
from timetrial.framework.entries import Horizon, OptimizerEntry, WorkloadEntry
from timetrial.framework.records import RunResult
from timetrial.framework.source import shown_name
from timetrial.framework.workload import Workload
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.schedules import sampled
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import environment_tags
from timetrial.tracking.record.journal import RunHeader


def run_name(config: RunConfig) -> str:
    """Workload, optimizer and seed of a run, in words."""
    return f"{config.workload.name} {label(config)} seed {config.seed}"


def label(config: RunConfig) -> str:
    """The optimizer's name in tables, or the run's own label.

    ``adam``, ``velo[embedded]``; of a file without its directory, ``lion.py:make[0123abcd]``.
    """
    if config.label:
        return config.label
    name = shown_name(config.optimizer.name)
    variant = OPTIMIZERS[config.optimizer.name].variant(config.optimizer.settings)
    return f"{name}[{variant}]" if variant else name


def run_header(
    config: RunConfig, workload: Workload | WorkloadEntry, tags: Mapping[str, str]
) -> RunHeader:
    """The header of a run's journal: name, tags to group by, configuration, data sets.

    Args:
        config: configuration of the run.
        workload: its workload, or the entry of one that cannot be built.
        tags: further tags.
    """
    limit = config.budget.steps if config.budget.steps is not None else config.budget.seconds
    return RunHeader(
        experiment=config.tracking.experiment,
        run_name=run_name(config),
        params=configuration.flat(config),
        config_yaml=configuration.to_yaml(config),
        datasets=workload.datasets() if isinstance(workload, Workload) else {},
        tags={
            schema.WORKLOAD: config.workload.name,
            schema.OPTIMIZER: label(config),
            schema.SEED: str(config.seed),
            schema.CONDITION: config.budget.condition,
            schema.BUDGET: str(limit),
            schema.METRIC: workload.metric,
            schema.DIRECTION: workload.direction.value,
            schema.EVALUATED_AT: str(TARGET_SHARE),
            **environment_tags(),
            **tags,
        },
    )


def entry_tags(entry: OptimizerEntry, config: RunConfig, horizon: Horizon) -> dict[str, str]:
    """Tags that let a report draw an unregistered optimizer.

    A run with its own label, such as a tuned one, has no colour and sets no targets.
    """
    tags = {
        schema.OPTIMIZER_NAME: config.optimizer.name,
        schema.LEARNED: str(entry.learned).lower(),
        schema.SETS_TARGETS: str(entry.sets_targets and not config.label).lower(),
    }
    if entry.is_foreign:
        tags[schema.FOREIGN] = "true"
    if entry.color and not config.label:
        tags[schema.COLOR] = entry.color
    rates = entry.learning_rates and entry.learning_rates(config.optimizer.settings, horizon)
    if rates is not None:
        points = sampled(rates, horizon.steps or horizon.step_hint, 101 if callable(rates) else 2)
        tags[schema.LEARNING_RATES] = json.dumps(points, separators=(",", ":"))
    return tags


def lacking_settings(entry: OptimizerEntry, config: RunConfig) -> list[str]:
    """What an optimizer asks of the workload's settings, and the run does not have."""
    found, own = [], config.workload.settings
    for name, value in entry.workload_settings(config.optimizer.settings).items():
        if getattr(own, name, 0.0) != value:
            had = f"has {getattr(own, name)}" if hasattr(own, name) else "has no such setting"
            asked = f"{label(config)} asks for {name} = {value}"
            found.append(f"{asked}, and workload {config.workload.name} {had}")
    return found


def end_tags(result: RunResult | None) -> dict[str, str]:
    """Tags of a finished run that ends now; empty if it failed or was interrupted."""
    if result is None:
        return {}
    diverged = result.reason.name == "DIVERGED"
    tags = {
        schema.STOP_REASON: result.reason.name,
        schema.DIVERGED: str(diverged).lower(),
        schema.ENDED_MS: str(time.time_ns() // 1_000_000),
    }
    if result.not_finite:
        tags[schema.NOT_FINITE] = result.not_finite
    if result.compile_sources:
        tags[schema.COMPILE_SOURCES] = ", ".join(result.compile_sources)
    return tags | ({schema.SECONDS_SUSPECT: result.doubt} if result.doubt else {})


def system_metrics(machine: Mapping[str, float]) -> dict[str, float]:
    """Metrics of the machine's state under MLflow's prefix."""
    return {f"{schema.SYSTEM_PREFIX}{name}": value for name, value in machine.items()}


def summary(result: RunResult | None, clock: Clock, wall_seconds: float) -> dict[str, float]:
    """Metrics of the run as a whole: seconds by account, the machine, steps, the last evaluation.

    The accounts sum to ``time/wall_seconds``, measured independently of the clock; the charged
    ``time/train_seconds`` include ``time/data_wait_seconds``.
    """
    accounts = clock.accounts()
    values = {f"time/{name}_seconds": seconds for name, seconds in accounts.items()}
    values[schema.TRAIN_SECONDS] = charged(accounts)
    for name, seconds in clock.cpu_accounts().items():
        values[f"time/{name}{schema.CPU_SECONDS_SUFFIX}"] = seconds
    values[schema.WALL_SECONDS] = wall_seconds
    if clock.meter is not None:
        values |= system_metrics(clock.meter.summary())
    if result is not None:
        values["final/step"] = result.step
        values["data/stalled_updates"] = result.stalled_updates
        values |= result.memory.metrics() if result.memory is not None else {}
        for name, value in result.evaluations[-1].metrics.items():
            if math.isfinite(value):
                values[f"final/{name}"] = value
    return values
