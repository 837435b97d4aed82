"""One run: configuration in, recorded result out.

Boundary: the only module that combines workload, optimizer, trainer and tracker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from timetrial.bench.claims import AlreadyFinishedError, Owner, SupersededError, claimed
from timetrial.bench.naming import (
    end_tags,
    entry_tags,
    lacking_settings,
    run_header,
    run_name,
    summary,
    system_metrics,
)
from timetrial.bench.resuming import NEW, Continuation, clear, continuation, note_journal, place_tag
from timetrial.bench.timing.calibration import calibration_tags, usual_cpu
from timetrial.bench.timing.doubts import doubt_about
from timetrial.bench.workshop import Setup, Workshop, prepared
from timetrial.framework import callbacks as cb
from timetrial.framework import config as configuration
from timetrial.framework.budget import StopReason
from timetrial.framework.checkpoint import Checkpoints
from timetrial.framework.clock import Clock
from timetrial.framework.config import RunConfig
from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.errors import Interrupted, StorageError, reason_of
from timetrial.framework.gpus import gpus_in_use
from timetrial.framework.meter import Meter
from timetrial.framework.records import RunResult, Tracker
from timetrial.framework.saving import Checkpoint, check_maker, ending_of, maker, restore
from timetrial.framework.secrets import masked
from timetrial.framework.signals import errors_of_plugins, held, noted
from timetrial.framework.state import TrainState
from timetrial.framework.trainer import Earlier, Trainer
from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import host_tags, process_tags
from timetrial.tracking.record.evaluations_file import evaluations_in
from timetrial.tracking.record.journal import RunHeader
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.recording import (
    Recording,
    Unrecorded,
    resume_recording,
    start_recording,
)

_log = logging.getLogger(__name__)


def run(
    config: RunConfig,
    store: Store | None,
    workshop: Workshop,
    *,
    watch: cb.Watch | None = None,
    tags: Mapping[str, str] | None = None,
    expected_steps: int | None = None,
    callbacks: Sequence[cb.Callback] = (),
    directory: Path | None = None,
    again: bool = False,
    owner: Owner | None = None,
    aside: bool = False,
) -> RunResult:
    """Makes one run; records it in a journal, mirrored to the store, and saves it.

    Args:
        config: configuration of the run.
        store: store of the record; None where another host records the run.
        workshop: keeps workload and program for the next run.
        watch: progress hooks of the run.
        tags: further tags, such as the suite's name.
        expected_steps: number of steps that fit the time budget; measured if needed.
        callbacks: further callbacks, called after the default ones.
        directory: directory of the run's checkpoints; None, or a foreign optimizer, saves nothing.
        again: begin another run if the one in the directory is over; else its result is returned.
        owner: claim of the run that other machines respect.
        aside: send its start and its end to a local store beside other work, in a thread.

    Raises:
        TakenError: another process makes the run.
        SupersededError: another worker has taken it over; it is recorded as KILLED here.
        AlreadyFinishedError: the run is over, and its state was not kept.
        UserError: the checkpoint belongs to another configuration or to other devices.
        Interrupted: a signal came; the run is saved and recorded as KILLED.
    """
    directory = None if workshop.optimizers[config.optimizer.name].is_foreign else directory
    with contextlib.ExitStack() as stack:
        if directory is not None and store is not None:
            stack.enter_context(claimed(directory, run_name(config)))
        attempt = begun(config, workshop, directory, expected_steps, again=again)
        if isinstance(attempt.setup, Setup) and attempt.origin.over:
            return result_of(attempt.setup, attempt.origin)
        signalled = _first_of(stack.enter_context(noted()), owner)
        recording = recording_of(store, attempt, workshop, tags or {}, aside=aside)
        with ended(recording, attempt, owner) as results, errors_of_plugins("during the run"):
            results.append(trained(attempt, recording, watch, callbacks, signalled))
        if number := signalled():  # it came after the last update
            raise Interrupted(number)
    return results[0]


def _first_of(signalled: Callable[[], int], owner: Owner | None) -> Callable[[], int]:
    """Returns the function that gives the signal of this process, or of a lost claim."""
    return signalled if owner is None else lambda: signalled() or owner.stopped()


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt at a run: where it begins, and what it is made of.

    Attributes:
        config: configuration of the run.
        directory: directory of its checkpoints, or None.
        origin: where it continues.
        setup: its objects, or the error of building them.
        clock: its clock, with the accounts of earlier attempts.
        started: time of its start by ``time.perf_counter``, as if never interrupted.
    """

    config: RunConfig
    directory: Path | None
    origin: Continuation
    setup: Setup | Exception
    clock: Clock
    started: float


def begun(
    config: RunConfig,
    workshop: Workshop,
    directory: Path | None,
    expected_steps: int | None,
    *,
    again: bool,
) -> Attempt:
    """Finds where a run continues and builds its objects; the arguments are those of ``run``.

    Raises:
        UserError: the checkpoint belongs to another configuration or to other devices.
    """
    started = time.perf_counter()
    clock = Clock(meter=Meter(gpus=gpus_in_use()))
    origin = origin_of(config, directory, again=again)
    setup = prepared(config, workshop, origin.saved, expected_steps)
    if isinstance(setup, Setup):
        check_maker(origin.loaded, setup.program.devices)
    if origin.saved is not None:
        clock.resume(origin.saved.seconds, origin.saved.cpu_seconds, origin.saved.machine)
        started -= sum(origin.saved.seconds.values())
    return Attempt(config, directory, origin, setup, clock, started)


def trained(
    attempt: Attempt,
    recording: Recording | Unrecorded,
    watch: cb.Watch | None,
    callbacks: Sequence[cb.Callback],
    signalled: Callable[[], int],
) -> RunResult:
    """Trains with all callbacks of a recorded run.

    Raises:
        Exception: the error of building its objects.
    """
    setup, clock = attempt.setup, attempt.clock
    if watch is not None and attempt.origin.note:
        watch.note(attempt.origin.note)
    if isinstance(setup, Exception):
        raise setup
    chosen = [*default_callbacks(setup, recording, watch, clock.meter), *callbacks]
    chosen.append(EndIfInterrupted(recording, clock, attempt.started))
    if attempt.directory is not None:
        checkpoints = Checkpoints(attempt.directory, configuration.digest(attempt.config))
        chosen.append(saving(setup, checkpoints, clock, recording, chosen))
    chosen.append(recording.mirror)
    return fit(setup, chosen, clock, attempt.origin, signalled)


def origin_of(config: RunConfig, directory: Path | None, *, again: bool) -> Continuation:
    """Where a run continues; with ``again``, one that is over begins anew."""
    if directory is None:
        return NEW
    root = Path(config.tracking.root).absolute()
    origin = continuation(root, directory, configuration.digest(config))
    if origin.over and again:
        clear(directory)
        return NEW
    return origin


def recording_of(
    store: Store | None,
    attempt: Attempt,
    workshop: Workshop,
    tags: Mapping[str, str],
    *,
    aside: bool = False,
) -> Recording | Unrecorded:
    """Starts the record of a run, or continues it; keeps none without a store."""
    origin, directory = attempt.origin, attempt.directory
    place = place_tag(Path(attempt.config.tracking.root), directory)
    tags = {schema.CONFIG_HASH: configuration.digest(attempt.config), **place, **tags}
    if store is None:
        return Unrecorded()
    if origin.journal is None:
        with errors_of_plugins("while the run was described"):
            head = header(attempt.config, attempt.setup, workshop, tags)
        if directory is None:
            return start_recording(store, head, aside=aside)
        announce = functools.partial(note_journal, directory)
        return start_recording(store, head, resumable=True, announce=announce, aside=aside)
    tags = {schema.RESUMED_AT: str(origin.step), **host_tags(), **process_tags(), **tags}
    journal, offset = origin.journal.name, origin.offset
    return resume_recording(store, journal, offset, tags, aside=aside)


class EndIfInterrupted(cb.Callback):
    """Writes the end of an interrupted run, before it is saved or anything is sent.

    Args:
        recording: record of the run.
        clock: clock of the run.
        started: time of the run's start, by ``time.perf_counter``.
    """

    def __init__(self, recording: Recording | Unrecorded, clock: Clock, started: float) -> None:
        self._recording, self._clock, self._started = recording, clock, started

    def on_pause(self, info: cb.StepInfo, state: TrainState, last: bool) -> None:
        if last and info.ending is None:
            wall_seconds = time.perf_counter() - self._started
            self._recording.end(Status.KILLED, {}, summary(None, self._clock, wall_seconds))


def saving(
    setup: Setup,
    checkpoints: Checkpoints,
    clock: Clock,
    recording: Recording | Unrecorded,
    callbacks: Sequence[cb.Callback],
) -> Checkpoint:
    """The callback that saves a run."""
    return Checkpoint(
        checkpoints,
        clock,
        recording,
        maker(setup.program.devices),
        minutes=setup.config.tracking.checkpoint_minutes,
        notes=setup.notes(),
        callbacks=list(callbacks),
    )


@contextmanager
def ended(
    recording: Recording | Unrecorded, attempt: Attempt, owner: Owner | None = None
) -> Iterator[list[RunResult]]:
    """Ends the record of a run with its status; a failed one has its error and traceback.

    A run that another worker has taken over is KILLED, whatever its result.

    Yields:
        A list for the result; without a result the run failed or was interrupted.
    """
    results: list[RunResult] = []
    status, tags, files = Status.FAILED, {}, {}
    try:
        yield results
        if owner is not None and not owner.confirm():
            raise SupersededError("another worker has taken this run over")
        pruned = results[0].reason is StopReason.PRUNED
        status, tags = Status.KILLED if pruned else Status.FINISHED, end_tags(results[0])
    except (KeyboardInterrupt, StorageError, SupersededError):  # not the optimizer's fault
        status = Status.KILLED
        raise
    except Exception as error:
        tags = {schema.ERROR: reason_of(error)}
        files = {schema.TRACEBACK_ARTIFACT: masked("".join(traceback.format_exception(error)))}
        raise
    finally:
        wall_seconds = time.perf_counter() - attempt.started
        result = results[0] if results else None
        with held():
            recording.end(status, tags, summary(result, attempt.clock, wall_seconds), files)
        recording.send()


def fit(
    setup: Setup,
    callbacks: Sequence[cb.Callback],
    clock: Clock,
    origin: Continuation = NEW,
    signalled: Callable[[], int] = lambda: 0,
) -> RunResult:
    """Trains from the start, or from a checkpoint and the evaluations before it.

    Returns:
        The result, with the doubt about its charged seconds if the clock has a meter.
    """
    config, earlier = setup.config, Earlier()
    state = setup.program.init(config.seed)
    if origin.loaded is not None and origin.saved is not None:
        saved = origin.saved
        state = origin.loaded.state(state)
        restore(callbacks, saved.callbacks)
        earlier = Earlier(origin.evaluations, ending_of(saved), saved.stalled_updates)
    last_step = setup.entry.last_step(config.optimizer.settings, setup.horizon)
    trainer = Trainer(
        setup.program, config.budget, callbacks, config.seed, clock, earlier, last_step, signalled
    )
    result = trainer.fit(state)
    usual = usual_cpu(config.budget) if setup.program.compiled else None
    memory = setup.program.memory
    found = next((c.found for c in callbacks if isinstance(c, cb.StopIfDiverged)), "")
    doubt = doubt_about(clock, usual)
    return dataclasses.replace(result, doubt=doubt, memory=memory, not_finite=found)


def result_of(setup: Setup, origin: Continuation) -> RunResult:
    """The result of a run that is over and recorded, from its checkpoint and journal.

    Raises:
        AlreadyFinishedError: its checkpoint was not kept.
    """
    if origin.loaded is None or origin.contents is None:
        raise AlreadyFinishedError(
            f"{run_name(setup.config)} is recorded as finished in {origin.journal}"
        )
    saved, contents = origin.loaded.saved, origin.contents
    reason = ending_of(saved)
    assert reason is not None
    return RunResult(
        reason,
        saved.step,
        saved.seconds,
        evaluations_in(contents.rows),
        origin.loaded.state(setup.program.init(setup.config.seed)),
        saved.stalled_updates,
        contents.tags.get(schema.SECONDS_SUSPECT, ""),
        not_finite=contents.tags.get(schema.NOT_FINITE, ""),
    )


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
    config: RunConfig, setup: Setup | Exception, workshop: Workshop, tags: Mapping[str, str]
) -> RunHeader:
    """The header of a run's journal, with the tags and notes of its optimizer."""
    entry = workshop.workloads[config.workload.name]
    if isinstance(setup, Exception) and isinstance(entry, WorkloadEntry):
        return run_header(config, entry, tags)  # the workload itself may be what raises
    workload = workshop.workload(config.workload)
    if not isinstance(setup, Exception):
        config = setup.config
        notes = setup.entry.notes(config.optimizer.settings, setup.horizon)
        if "warning" in notes:
            _log.warning("%s", notes["warning"])
        if lacks := lacking_settings(setup.entry, config):
            _log.warning("%s", "; ".join(lacks))
            tags = {schema.LACKS: "; ".join(lacks), **tags}
        if not setup.program.compiled:
            _log.warning("JAX_DISABLE_JIT is set: seconds compare with those of no other run")
            tags = {schema.UNCOMPILED: "true", **tags}
        tags = {**calibration_tags(config.budget), **setup.told, **notes, **tags}
        tags = {**entry_tags(setup.entry, config, setup.horizon), **workload.notes(), **tags}
        tags[schema.DEVICE_COUNT] = str(setup.program.devices.count)
    return run_header(config, workload, tags)
