"""One run: configuration in, recorded result out.

Boundary: the only module that combines workload, optimizer, trainer and tracker.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from timetrial.bench.naming import end_tags, entry_tags, run_header, summary, system_metrics
from timetrial.bench.timing.calibration import calibration_tags, usual_cpu
from timetrial.bench.timing.doubts import doubt_about
from timetrial.bench.timing.estimate import estimate_steps
from timetrial.framework import callbacks as cb
from timetrial.framework import config as configuration
from timetrial.framework.budget import StopReason
from timetrial.framework.checkpoint import Checkpoint, Saved, load
from timetrial.framework.clock import Clock
from timetrial.framework.config import Choice, ConfigError, RunConfig
from timetrial.framework.devices import Train, of_run
from timetrial.framework.entries import Entry, Horizon, OptimizerEntry
from timetrial.framework.errors import UserError
from timetrial.framework.gpus import gpus_in_use
from timetrial.framework.hosts import first_hosts
from timetrial.framework.meter import Meter
from timetrial.framework.records import Row, RunResult, Tracker
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.types import Status
from timetrial.framework.workload import Workload
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import host_tags, process_tags
from timetrial.tracking.record.journal import RunHeader
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.recording import (
    Recording,
    Unrecorded,
    resume_recording,
    start_recording,
)
from timetrial.workloads import WORKLOADS

_log = logging.getLogger(__name__)


class Workshop:
    """Builds workloads and compiled programs, and keeps the last of each for the next run.

    Runs that differ only in the seed share one compiled program. Suites make such runs one after
    the other. Memory never holds more than one program.

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
        self._program: tuple[tuple[Choice, Choice, Horizon, Train], Program] | None = None

    def workload(self, choice: Choice) -> Workload:
        """The workload of a configuration."""
        if self._workload is None or self._workload[0] != choice:
            with settings_errors("workload"):
                self._workload = (choice, self.workloads[choice.name].make(choice.settings))
        return self._workload[1]

    def horizon(self, config: RunConfig) -> Horizon:
        """Expected length of a run, in steps."""
        steps = config.budget.steps or config.budget.expected_steps
        return Horizon(step_hint=self.workload(config.workload).step_hint, steps=steps)

    def program(self, config: RunConfig) -> Program:
        """The program of a configuration; the last one, already compiled, if it fits."""
        workload, horizon = self.workload(config.workload), self.horizon(config)
        key = (config.workload, config.optimizer, horizon, config.train)
        if self._program is None or self._program[0] != key or config.budget.charge_compile:
            entry = self.optimizers[config.optimizer.name]
            with settings_errors("optimizer"):
                tx = entry.make(config.optimizer.settings, horizon)
            known = self._program if self._program and self._program[0][3] == config.train else None
            if known is not None and known[1].workload is workload:
                program = known[1].with_optimizer(tx, entry.eval_params)
            else:
                devices = of_run(config.train, workload.devices)
                parts = config.train.microbatches
                program = Program(workload, tx, entry.eval_params, devices, parts)
            self._program = (key, program)
        return self._program[1]


@contextmanager
def settings_errors(what: str) -> Iterator[None]:
    """Turns a ValueError from building into a ConfigError."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run ready to start: its configuration and the objects built from it.

    Attributes:
        config: includes the number of steps the optimizer is built for, if it needs one.
        workload, entry, horizon, program: built from the configuration.
        told: tags with the source of the number of steps the optimizer is built for.
    """

    config: RunConfig
    workload: Workload
    entry: OptimizerEntry
    horizon: Horizon
    program: Program
    told: Mapping[str, str]

    def notes(self) -> dict[str, str]:
        """Notes of a checkpoint, so that a resumed run is told the same."""
        return {**self.told, _TOLD: str(self.config.budget.expected_steps or "")}


def run(
    config: RunConfig,
    store: Store | None,
    workshop: Workshop,
    *,
    watch: cb.Watch | None = None,
    tags: Mapping[str, str] | None = None,
    expected_steps: int | None = None,
    callbacks: Sequence[cb.Callback] = (),
    checkpoint: Path | None = None,
    ending: Callable[[], int] = lambda: 0,
) -> RunResult:
    """Makes one run; records it in a journal and mirrors the journal to the store.

    Args:
        config: configuration of the run.
        store: store of the record; None where another host records the run.
        workshop: keeps workload and program for the next run.
        watch: progress hooks of the run.
        tags: further tags, such as the suite's name.
        expected_steps: number of steps that fit the time budget; measured if needed.
        callbacks: further callbacks, called after the default ones.
        checkpoint: file to save to at every evaluation and to resume from; None saves nothing.
        ending: as for ``Trainer``.

    Raises:
        UserError: the checkpoint cannot be read or belongs to another configuration.
    """
    started = time.perf_counter()
    digest = configuration.digest(config)
    saved = load(checkpoint, digest) if checkpoint and checkpoint.exists() else None
    tags = {schema.CONFIG_HASH: digest, **(tags or {})}
    clock = Clock(meter=Meter(gpus=gpus_in_use()))
    if saved is not None:
        clock.resume(saved.seconds, saved.cpu_seconds, saved.machine)
        started -= sum(saved.seconds.values())
    workload = workshop.workload(config.workload)
    setup = prepared(config, workshop, saved, expected_steps)
    head = functools.partial(header, config, setup, workload, tags)
    recording = recording_of(store, saved, tags, head, resumable=checkpoint is not None)
    with ended(recording, clock, started) as results:
        if isinstance(setup, Exception):
            raise setup
        chosen = [*default_callbacks(setup, recording, watch, clock.meter), *callbacks]
        if checkpoint is not None:
            chosen.append(Checkpoint(checkpoint, digest, clock, recording, setup.notes()))
        chosen.append(recording.mirror)
        results.append(fit(setup, chosen, clock, saved, recording.earlier, ending))
    return results[0]


def recording_of(
    store: Store | None,
    saved: Saved | None,
    tags: Mapping[str, str],
    head: Callable[[], RunHeader],
    *,
    resumable: bool,
) -> Recording | Unrecorded:
    """Starts the record of a run, or continues it from a checkpoint; keeps none without a store."""
    if store is None:
        return Unrecorded()
    if saved is None:
        return start_recording(store, head(), resumable=resumable)
    tags = {schema.RESUMED_AT: str(saved.step), **host_tags(), **process_tags(), **tags}
    return resume_recording(store, saved.journal, saved.offset, tags)


@contextmanager
def ended(
    recording: Recording | Unrecorded, clock: Clock, started: float
) -> Iterator[list[RunResult]]:
    """Ends the record of a run with its status.

    Yields:
        A list for the result; without a result the run failed or was interrupted.
    """
    results: list[RunResult] = []
    status = Status.FAILED
    try:
        yield results
        pruned = results[0].reason is StopReason.PRUNED
        status = Status.KILLED if pruned else Status.FINISHED
    except KeyboardInterrupt:
        status = Status.KILLED
        raise
    finally:
        wall_seconds = time.perf_counter() - started
        result = results[0] if results else None
        recording.finish(status, end_tags(result), summary(result, clock, wall_seconds))


def fit(
    setup: Setup,
    callbacks: Sequence[cb.Callback],
    clock: Clock,
    saved: Saved | None = None,
    earlier: Sequence[Row] = (),
    ending: Callable[[], int] = lambda: 0,
) -> RunResult:
    """Trains from the start, or from a checkpoint and the evaluations before it.

    Returns:
        The result, with the doubt about its charged seconds if the clock has a meter.
    """
    config = setup.config
    state = setup.program.init(config.seed)
    if saved is not None:
        state = saved.state(state)
    last_step = setup.entry.last_step(config.optimizer.settings, setup.horizon)
    trainer = Trainer(
        setup.program, config.budget, callbacks, config.seed, clock, earlier, last_step, ending
    )
    result = trainer.fit(state)
    usual = usual_cpu(config.budget) if setup.program.compiled else None
    memory = setup.program.memory
    found = next((c.found for c in callbacks if isinstance(c, cb.StopIfDiverged)), "")
    doubt = doubt_about(clock, usual)
    return dataclasses.replace(result, doubt=doubt, memory=memory, not_finite=found)


_TOLD = "expected_steps"  # note of a checkpoint: the number of steps the optimizer is built for


def prepared(
    config: RunConfig, workshop: Workshop, saved: Saved | None, expected_steps: int | None
) -> Setup | Exception:
    """The objects of a run, or the error of building them, which the run records.

    Raises:
        UserError: the configuration is wrong; it leaves no run.
    """
    try:
        return prepare(config, workshop, saved, expected_steps)
    except UserError:
        raise
    except Exception as error:
        return error


def prepare(
    config: RunConfig, workshop: Workshop, saved: Saved | None, expected_steps: int | None
) -> Setup:
    """Builds the objects of a run.

    Args:
        config: configuration of the run.
        workshop: keeps workload and program for the next run.
        saved: checkpoint to resume from; its number of steps is used again.
        expected_steps: as for ``run``.
    """
    entry = workshop.optimizers[config.optimizer.name]
    told: Mapping[str, str] = {}
    if saved is not None:
        told = {key: text for key, text in saved.notes.items() if key != _TOLD}
        expected_steps = int(saved.notes[_TOLD]) if saved.notes[_TOLD] else None
    elif lacks_steps(entry, config):
        expected_steps, told = tell_steps(config, workshop, expected_steps)
    else:
        expected_steps = config.budget.expected_steps
    budget = dataclasses.replace(config.budget, expected_steps=expected_steps)
    config = dataclasses.replace(config, budget=budget)
    program, horizon = workshop.program(config), workshop.horizon(config)
    return Setup(config, program.workload, entry, horizon, program, told)


def lacks_steps(entry: OptimizerEntry, config: RunConfig) -> bool:
    """True when the optimizer needs a number of steps that the configuration does not give."""
    budget = config.budget
    return entry.needs_steps and budget.seconds is not None and budget.expected_steps is None


def tell_steps(
    config: RunConfig, workshop: Workshop, expected_steps: int | None
) -> tuple[int, dict[str, str]]:
    """Number of steps that fit the time budget, measured unless given; and tags with its source."""
    if expected_steps is not None:
        return expected_steps, {schema.EXPECTED_STEPS_SOURCE: "steps of the first trial"}
    estimate = estimate_steps(guessed_program(config, workshop), config.budget.seconds or 0.0)
    rates = ", ".join(f"{seconds:.6g}" for seconds in estimate.step_seconds)
    return first_hosts(estimate.steps), {
        schema.EXPECTED_STEPS_SOURCE: f"measured seconds per step: {rates}"
    }


def guessed_program(config: RunConfig, workshop: Workshop) -> Program:
    """The program of a configuration, built for the step hint where the steps are unknown."""
    budget = config.budget
    if lacks_steps(workshop.optimizers[config.optimizer.name], config):
        budget = dataclasses.replace(budget, expected_steps=workshop.horizon(config).step_hint)
    return workshop.program(dataclasses.replace(config, budget=budget))


def default_callbacks(
    setup: Setup, tracker: Tracker, watch: cb.Watch | None = None, meter: Meter | None = None
) -> list[cb.Callback]:
    """The callbacks of every run, in the order of their calls; a meter's metrics are tracked."""
    config, workload = setup.config, setup.workload
    chosen: list[cb.Callback] = [cb.StopIfDiverged()]
    if config.stop.target is not None:
        metric = f"{config.stop.split}/{workload.metric}"
        chosen.append(cb.StopAtTarget(metric, config.stop.target, workload.direction))
    machine = dict if meter is None else lambda: system_metrics(meter.latest())
    note = watch.note if watch is not None else lambda line: None
    chosen.append(cb.CheckMemory(lambda: setup.program.memory, note))
    chosen += [cb.FeedRemainingFraction(), cb.Track(tracker, machine)]
    if watch is not None:
        chosen.append(watch)
    return chosen


def header(
    config: RunConfig, setup: Setup | Exception, workload: Workload, tags: Mapping[str, str]
) -> RunHeader:
    """The header of a run's journal, with the tags and notes of its optimizer."""
    if not isinstance(setup, Exception):
        config = setup.config
        notes = setup.entry.notes(config.optimizer.settings, setup.horizon)
        if "warning" in notes:
            _log.warning("%s", notes["warning"])
        if not setup.program.compiled:
            _log.warning("JAX_DISABLE_JIT is set: seconds compare with those of no other run")
            tags = {schema.UNCOMPILED: "true", **tags}
        tags = {**calibration_tags(config.budget), **setup.told, **notes, **tags}
        tags = {**entry_tags(setup.entry, config, setup.horizon), **workload.notes(), **tags}
        tags[schema.DEVICE_COUNT] = str(setup.program.devices.count)
    return run_header(config, workload, tags)
