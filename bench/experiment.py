"""One run: a configuration goes in, a recorded result comes out.

Boundary: the one place where workload, optimizer, trainer and tracker meet.
"""

from __future__ import annotations

import dataclasses
import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from timetrial.bench.naming import end_tags, label, run_name, summary
from timetrial.bench.signals import Interrupted
from timetrial.bench.timing.calibration import calibration_tags
from timetrial.bench.timing.estimate import estimate_steps
from timetrial.framework import callbacks as cb
from timetrial.framework import config as configuration
from timetrial.framework.budget import StopReason
from timetrial.framework.checkpoint import Checkpoint, Recorder, Saved, load
from timetrial.framework.clock import Clock
from timetrial.framework.config import Choice, ConfigError, RunConfig
from timetrial.framework.entries import Entry, Horizon, OptimizerEntry
from timetrial.framework.errors import UserError
from timetrial.framework.records import RunResult, Tracker
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.types import Status
from timetrial.framework.workload import Workload
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import environment_tags
from timetrial.tracking.record.journal import RunHeader
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.tracker import MlflowTracker
from timetrial.workloads import WORKLOADS

_log = logging.getLogger(__name__)


class Workshop:
    """Builds workloads and compiled programs, and keeps the last of each for the next run.

    Runs that differ in nothing but the seed share one compiled program; a suite orders its runs
    so that this is the usual case, and memory never holds more than one program.

    Args:
        workloads: workload entries by name.
        optimizers: optimizer entries by name.
    """

    def __init__(
        self,
        workloads: Mapping[str, Entry[Workload]] = WORKLOADS,
        optimizers: Mapping[str, OptimizerEntry] = OPTIMIZERS,
    ) -> None:
        self.workloads = workloads
        self.optimizers = optimizers
        self._workload: tuple[Choice, Workload] | None = None
        self._program: tuple[tuple[Choice, Choice, Horizon], Program] | None = None

    def workload(self, choice: Choice) -> Workload:
        """The workload of a configuration."""
        if self._workload is None or self._workload[0] != choice:
            with settings_errors("workload"):
                self._workload = (choice, self.workloads[choice.name].make(choice.settings))
        return self._workload[1]

    def horizon(self, config: RunConfig) -> Horizon:
        """How long the run of a configuration is expected to be."""
        steps = config.budget.steps or config.budget.expected_steps
        return Horizon(step_hint=self.workload(config.workload).step_hint, steps=steps)

    def program(self, config: RunConfig) -> Program:
        """The program of a configuration; compiled when it has been used before."""
        workload, horizon = self.workload(config.workload), self.horizon(config)
        key = (config.workload, config.optimizer, horizon)
        if self._program is None or self._program[0] != key or config.budget.charge_compile:
            with settings_errors("optimizer"):
                tx = self.optimizers[config.optimizer.name].make(config.optimizer.settings, horizon)
            known = self._program[1] if self._program else None
            if known is not None and known.workload is workload:
                self._program = (key, known.with_optimizer(tx))
            else:
                self._program = (key, Program(workload, tx))
        return self._program[1]


@contextmanager
def settings_errors(what: str) -> Iterator[None]:
    """Settings that only the data or the model can refuse are an error of the configuration."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from error


def run(
    config: RunConfig,
    store: Store,
    workshop: Workshop,
    *,
    watch: cb.Watch | None = None,
    tags: Mapping[str, str] | None = None,
    expected_steps: int | None = None,
    callbacks: Sequence[cb.Callback] = (),
    checkpoint: Path | None = None,
) -> RunResult:
    """Makes one run and records it, with a status that is true to what happened.

    Args:
        config: what to run.
        store: where to record it.
        workshop: keeps what the next run can reuse.
        watch: told how far the run is.
        tags: further tags, such as the suite's name.
        expected_steps: steps that a time budget allows, where they are known from an earlier
            trial; measured when the optimizer needs them and nobody has said.
        callbacks: further callbacks, asked after all others.
        checkpoint: file that the run is saved to at every evaluation, and goes on from where it
            exists; the caller removes it. None saves nothing.

    Raises:
        UserError: the checkpoint cannot be read or is one of another configuration.
    """
    started = time.perf_counter()
    clock = Clock()
    workload = workshop.workload(config.workload)
    requested = configuration.digest(config)
    saved = load(checkpoint, requested) if checkpoint and checkpoint.exists() else None
    before = sum(saved.seconds.values()) if saved else 0.0
    if saved is not None:
        clock.resume(saved.seconds)
    with recorded_as_failed(
        config, store, workload, {schema.CONFIG_HASH: requested, **(tags or {})}
    ):
        config, told = told_before(config, saved) or tell_steps(config, workshop, expected_steps)
        program = workshop.program(config)
    notes = workshop.optimizers[config.optimizer.name].notes(
        config.optimizer.settings, workshop.horizon(config)
    )
    if "warning" in notes:
        _log.warning("%s", notes["warning"])
    calibrated = calibration_tags(config.budget)
    all_tags = {schema.CONFIG_HASH: requested, **calibrated, **told, **notes, **(tags or {})}
    if saved is not None:
        all_tags[schema.RESUMED_AT] = str(int(saved.leaves[".step"]))
    recorder = Recorder(
        MlflowTracker(store, run_header(config, workload, all_tags)),
        rows=saved.rows if saved else (),
        keep=checkpoint is not None,
    )
    earlier = saved.evaluations if saved else ()
    status, result = Status.FAILED, None
    try:
        chosen = [*default_callbacks(config, workshop, recorder, watch), *callbacks]
        if checkpoint is not None:
            kept = {**told, _TOLD: str(config.budget.expected_steps or "")}
            chosen.append(Checkpoint(checkpoint, requested, clock, recorder, earlier, kept))
        trainer = Trainer(
            program, config.budget, chosen, config.seed, clock=clock, evaluations=earlier
        )
        state = program.init(config.seed)
        result = trainer.fit(saved.state(state) if saved else state)
        status = Status.KILLED if result.reason is StopReason.PRUNED else Status.FINISHED
        return result
    except KeyboardInterrupt:
        status = Status.KILLED
        raise
    finally:
        recorder.finish(
            status,
            end_tags(result),
            summary(result, clock.accounts(), time.perf_counter() - started + before),
        )


@contextmanager
def recorded_as_failed(
    config: RunConfig, store: Store, workload: Workload, tags: Mapping[str, str]
) -> Iterator[None]:
    """A run whose optimizer cannot even be made is a failed one, not one that never was.

    Settings that it refuses are the user's mistake and leave no run behind.
    """
    try:
        yield
    except UserError:
        raise
    except Exception:
        MlflowTracker(store, run_header(config, workload, tags)).finish(Status.FAILED, {}, {})
        raise


_TOLD = "expected_steps"  # note of a checkpoint: what an optimizer was told of


def told_before(config: RunConfig, saved: Saved | None) -> tuple[RunConfig, dict[str, str]] | None:
    """What ``tell_steps`` gave when the run that is resumed began; None when none is resumed."""
    if saved is None:
        return None
    notes = dict(saved.notes)
    steps = notes.pop(_TOLD)
    told = dataclasses.replace(config.budget, expected_steps=int(steps) if steps else None)
    return dataclasses.replace(config, budget=told), notes


def tell_steps(
    config: RunConfig, workshop: Workshop, expected_steps: int | None
) -> tuple[RunConfig, dict[str, str]]:
    """The configuration with the steps that a time budget allows, and tags that say whence.

    Only an optimizer that needs them gets them. What the user has set stays.
    """
    budget = config.budget
    needed = workshop.optimizers[config.optimizer.name].needs_steps
    if not needed or budget.seconds is None or budget.expected_steps is not None:
        return config, {}
    tags = {schema.EXPECTED_STEPS_SOURCE: "steps of the first trial"}
    if expected_steps is None:
        guess = dataclasses.replace(budget, expected_steps=workshop.horizon(config).step_hint)
        program = workshop.program(dataclasses.replace(config, budget=guess))
        estimate = estimate_steps(program, budget.seconds)
        expected_steps = estimate.steps
        rates = ", ".join(f"{seconds:.6g}" for seconds in estimate.step_seconds)
        tags = {schema.EXPECTED_STEPS_SOURCE: f"measured seconds per step: {rates}"}
    told = dataclasses.replace(budget, expected_steps=expected_steps)
    return dataclasses.replace(config, budget=told), tags


def default_callbacks(
    config: RunConfig, workshop: Workshop, tracker: Tracker, watch: cb.Watch | None = None
) -> list[cb.Callback]:
    """The callbacks of every run, in the order in which they are asked."""
    chosen: list[cb.Callback] = [cb.StopIfDiverged()]
    if config.stop.target is not None:
        workload = workshop.workload(config.workload)
        metric = f"{config.stop.split}/{workload.metric}"
        chosen.append(cb.StopAtTarget(metric, config.stop.target, workload.direction))
    last_step = workshop.optimizers[config.optimizer.name].last_step(
        config.optimizer.settings, workshop.horizon(config)
    )
    if last_step is not None:
        chosen.append(cb.StopAtStep(last_step))
    chosen += [cb.StopAtBudget(), cb.FeedRemainingFraction(), cb.Track(tracker)]
    if watch is not None:
        chosen.append(watch)
    return chosen


def run_header(config: RunConfig, workload: Workload, tags: Mapping[str, str]) -> RunHeader:
    """How a run is recorded: name, tags to group by, the whole configuration, its data."""
    limit = config.budget.steps if config.budget.steps is not None else config.budget.seconds
    return RunHeader(
        experiment=config.tracking.experiment,
        run_name=run_name(config),
        params=configuration.flat(config),
        config_yaml=configuration.to_yaml(config),
        datasets=workload.datasets(),
        tags={
            schema.WORKLOAD: config.workload.name,
            schema.OPTIMIZER: label(config),
            schema.SEED: str(config.seed),
            schema.CONDITION: config.budget.condition,
            schema.BUDGET: str(limit),
            schema.METRIC: workload.metric,
            schema.DIRECTION: workload.direction.value,
            **environment_tags(),
            **tags,
        },
    )


@contextmanager
def kill_like_ctrl_c() -> Iterator[None]:
    """Inside, SIGTERM ends a run as Ctrl-C does: recorded as KILLED, nothing lost."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
