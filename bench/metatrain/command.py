"""One piece of a meta-training, from the command line to the exit status.

Boundary: opens the store, the checkpoint and the devices, and closes them; ``loop`` trains.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import jax
import numpy as np
from jax.sharding import Mesh

from timetrial.bench.metatrain.config import Command, devices, identity, read, start_weights
from timetrial.bench.metatrain.loop import Training
from timetrial.bench.metatrain.progress import Progress
from timetrial.framework import config as configuration
from timetrial.framework.checkpoint import Saved, load
from timetrial.framework.config import ConfigError
from timetrial.framework.errors import UserError
from timetrial.framework.records import Row
from timetrial.framework.types import Condition, Status
from timetrial.optimizers.metatraining.outer import Outer, init_state, place
from timetrial.optimizers.metatraining.pairs import Sizes
from timetrial.optimizers.metatraining.settings import MetatrainSettings
from timetrial.optimizers.metatraining.vector import from_vector, to_vector
from timetrial.optimizers.metatraining.warm_start import warm_start
from timetrial.optimizers.velo.weights import Weights, save_weights
from timetrial.optimizers.velo.weights.formats import record_digest
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import environment_tags
from timetrial.tracking.record.evaluations_file import evaluations_in
from timetrial.tracking.record.journal import RunHeader, read_journal
from timetrial.tracking.record.tracker import JournalTracker, resume_run, start_run
from timetrial.tracking.store.mirror import Mirror
from timetrial.tracking.store.opening import Store, open_store

INTERRUPTED = 130


def metatrain(overrides: Sequence[str], export: Path | None = None) -> int:
    """Runs a piece; the command ``timetrial metatrain``. Returns 0, or 130 when interrupted.

    Args:
        overrides: ``key=value`` words.
        export: where to write the best meta-parameters so far, if anywhere.

    Raises:
        UserError: bad input, a checkpoint of another training, or one that is in use.
    """
    settings, command = read(overrides)
    weights = start_weights(settings)
    if export is not None and not export.absolute().parent.is_dir():
        raise ConfigError(f"--export: expected a file in an existing directory, got {export}")
    count = devices(settings.pairs, command.cores)
    with contextlib.suppress(RuntimeError):  # where JAX runs already, it keeps its devices
        jax.config.update("jax_num_cpu_devices", count)
    # Pieces after the first need not compile again, which takes minutes on two cores.
    jax.config.update("jax_compilation_cache_dir", str(command.directory.parent / "compiled"))
    command.directory.mkdir(parents=True, exist_ok=True)
    with _only_one(command.directory), _flag_on_signals() as interrupted:
        training, complete = _piece(settings, command, weights, interrupted)
    if export is not None:
        _export(export, training, settings, command, weights)
    _tell(training, settings, complete)
    return INTERRUPTED if interrupted() else 0


def _piece(
    settings: MetatrainSettings,
    command: Command,
    weights: Weights | None,
    interrupted: Callable[[], bool],
) -> tuple[Training, bool]:
    """Trains for as long as the command says; returns the training and whether it is complete."""
    sizes = _sizes(settings, weights)
    who = identity(settings, weights)
    path = command.directory / "checkpoint"
    saved = load(path, who) if path.exists() else None
    start = warm_start(*sizes, settings.seed) if weights is None else weights.meta_params
    mesh = _mesh(settings.pairs)
    state = place(init_state(settings, to_vector(start), sizes), mesh)
    if saved is not None:
        state = saved.state(state)
    store = open_store(command.tracking.uri, root=Path(command.tracking.root))
    tracker, evaluations = _journal(store, _run_header(settings, command, who), saved)
    seconds = saved.seconds if saved else {}
    mirror = Mirror(store, tracker.path, until=lambda: training.saved_offset)
    training = Training(
        settings, sizes, who, path, state, tracker, seconds, evaluations, mesh, mirror.flush
    )
    mirror.flush()  # the run shows in MLflow from the start
    deadline = _deadline(command.minutes)
    status, complete = Status.FAILED, False
    try:
        with Progress(command.minutes) as progress:
            complete = training.run(
                lambda: interrupted() or time.monotonic() > deadline,
                progress.show,
                progress.say,
                command.checkpoint_seconds,
            )
        status = Status.KILLED if interrupted() else Status.FINISHED
    except KeyboardInterrupt:
        status = Status.KILLED
        raise
    finally:
        tracker.finish(status, _end_tags(training, complete), _summary(training))
        mirror.close()
    return training, complete


def _journal(
    store: Store, header: RunHeader, saved: Saved | None
) -> tuple[JournalTracker, list[Row]]:
    """The journal of the training and the validations in it; pieces go on in the same one."""
    if saved is None:
        return start_run(store.journals, header), []
    path = store.journals / saved.journal
    tags = {**header.tags, schema.RESUMED_AT: str(saved.step)}
    rows = read_journal(path, until=saved.offset, evaluations_only=True).rows
    return resume_run(path, saved.offset, tags), evaluations_in(rows)


def _deadline(minutes: float | None) -> float:
    return float("inf") if minutes is None else time.monotonic() + 60.0 * minutes


def _sizes(settings: MetatrainSettings, weights: Weights | None) -> Sizes:
    if weights is None:
        return settings.hidden_size, settings.bank_size
    return weights.hidden_size, weights.bank_size


def _mesh(pairs: int) -> Mesh:
    """As many of the devices as divide the pairs."""
    found = jax.devices()
    count = max(n for n in range(1, len(found) + 1) if pairs % n == 0)
    return Mesh(np.array(found[:count]), ("pairs",))


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Holds the training against other processes; the lock ends with the process."""
    with (directory / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"the meta-training in {directory} is in progress in another process; wait for "
                "it, or give another name=NAME"
            ) from error
        yield


@contextlib.contextmanager
def _flag_on_signals() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C and SIGTERM let the outer step in progress end; a second one does not."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        print("timetrial: saving; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_header(settings: MetatrainSettings, command: Command, who: str) -> RunHeader:
    tree = {**dataclasses.asdict(settings), **dataclasses.asdict(command)}
    params = {
        key: json.dumps(value) if isinstance(value, tuple | dict) else str(value)
        for key, value in tree.items()
    }
    tags = {
        schema.WORKLOAD: "metatraining",
        schema.OPTIMIZER: command.name,
        schema.SEED: str(settings.seed),
        schema.CONDITION: Condition.STEP,
        schema.BUDGET: str(settings.steps),
        schema.METRIC: "score",
        schema.DIRECTION: "minimize",
        schema.CONFIG_HASH: who,
        **environment_tags(),
    }
    return RunHeader(
        experiment=command.tracking.experiment,
        run_name=f"metatrain {command.name} seed {settings.seed}",
        tags=tags,
        params=params,
        config_yaml=configuration.yaml_of(json.loads(json.dumps(tree))),
    )


def _end_tags(training: Training, complete: bool) -> dict[str, str]:
    outer: Outer = training.state.opt_state
    return {
        "metatrain.complete": str(complete).lower(),
        "metatrain.best_step": str(int(outer.best_step)),
    }


def _summary(training: Training) -> Mapping[str, float]:
    seconds = {f"time/{name}_seconds": value for name, value in training.accounts.seconds.items()}
    return {**seconds, "final/step": float(training.step)}


def _export(
    path: Path,
    training: Training,
    settings: MetatrainSettings,
    command: Command,
    weights: Weights | None,
) -> None:
    """Writes the best meta-parameters as a container, and its sha256 beside it."""
    outer: Outer = training.state.opt_state
    best = from_vector(np.asarray(outer.best), *_sizes(settings, weights))
    gen_id = f"timetrial-metatrain-{command.name}-{identity(settings, weights)}"
    save_weights(path, best, gen_id, int(outer.best_step))
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    record_digest(path, digest)
    print(f"{path}: {len(data):,} bytes, sha256 {digest}")


def _tell(training: Training, settings: MetatrainSettings, complete: bool) -> None:
    outer: Outer = training.state.opt_state
    seconds = training.accounts.seconds
    inner, cpu = 1e3 * float(outer.unrolled), seconds.get("cpu", 0.0)
    print(
        f"outer step {training.step} of {settings.steps}, {inner / 1e6:.2f} M inner steps in "
        f"{cpu / 60:.1f} CPU-minutes, {len(training.evaluations)} validations"
    )
    if training.evaluations:
        first = training.evaluations[0].metrics["validation/score"]
        print(
            f"validation score: {first:.4f} at the start, best {float(outer.best_score):.4f} "
            f"at outer step {int(outer.best_step)}"
        )
    if not complete:
        print("the same command continues")
