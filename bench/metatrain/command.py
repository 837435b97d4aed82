"""One piece of a meta-training, from the command line to the exit status.

Boundary: devices, signals and the lock; ``loop`` trains and ``recording`` records.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from timetrial.bench.metatrain.config import Command, devices, identity, read, start_weights
from timetrial.bench.metatrain.loop import Training
from timetrial.bench.metatrain.progress import TrainingDisplay
from timetrial.bench.metatrain.recording import MetatrainRecording, checkpoint_directory
from timetrial.bench.syncing import opened
from timetrial.framework.checkpoint import Checkpoints
from timetrial.framework.config import ConfigError
from timetrial.framework.errors import Interrupted, UserError
from timetrial.framework.files import make_private_directory, owner_only
from timetrial.framework.signals import noted
from timetrial.framework.types import Status
from timetrial.optimizers.metatraining.outer import Outer, init_state, place
from timetrial.optimizers.metatraining.settings import MetatrainSettings
from timetrial.optimizers.metatraining.vector import from_vector, to_vector
from timetrial.optimizers.metatraining.warm_start import warm_start
from timetrial.optimizers.velo.weights import Weights, save_weights
from timetrial.optimizers.velo.weights.formats import record_digest
from timetrial.tracking.store.opening import Store


def metatrain(overrides: Sequence[str], export: Path | None = None) -> int:
    """Trains one piece; the command ``timetrial metatrain``. Returns 0.

    The state's buffers are donated to each outer step, so an exception inside one would lose it.
    After a signal the loop ends between two steps and saves.

    Args:
        overrides: ``key=value`` words.
        export: file for the best meta-parameters so far, or None.

    Raises:
        UserError: bad input, a checkpoint of another training, or a training in progress elsewhere.
        Interrupted: a signal came; the training is saved.
    """
    settings, command = read(overrides)
    weights = start_weights(settings)
    if export is not None and not export.absolute().parent.is_dir():
        raise ConfigError(f"--export: expected a file in an existing directory, got {export}")
    count = devices(settings.pairs, command.cores)
    store = opened(command.tracking)
    with contextlib.suppress(RuntimeError):  # JAX is initialised already
        jax.config.update("jax_num_cpu_devices", count)
    # Later pieces reuse compiled programs; compilation takes minutes on two cores.
    jax.config.update("jax_compilation_cache_dir", str(command.directory.parent / "compiled"))
    make_private_directory(command.directory)
    with _only_one(command.directory), noted() as interrupted:
        training, complete = _piece(settings, command, store, weights, interrupted)
        signal = interrupted()
    if export is not None:
        gen_id = f"timetrial-metatrain-{command.name}-{identity(settings, weights)}"
        _export(export, training, gen_id)
    _print_state(training, settings, complete)
    if signal:
        raise Interrupted(signal)
    return 0


def _piece(
    settings: MetatrainSettings,
    command: Command,
    store: Store,
    weights: Weights | None,
    interrupted: Callable[[], int],
) -> tuple[Training, bool]:
    """Trains until the time limit or the end; returns the training and whether it is complete."""
    sizes = (settings.hidden_size, settings.bank_size)
    if weights is not None:
        sizes = (weights.hidden_size, weights.bank_size)
    digest = identity(settings, weights)
    loaded = Checkpoints(checkpoint_directory(command), digest).latest()
    start = warm_start(*sizes, settings.seed) if weights is None else weights.meta_params
    mesh = _mesh(settings.pairs)
    state = place(init_state(settings, to_vector(start), sizes), mesh)
    saved = None if loaded is None else loaded.saved
    if loaded is not None:
        state = loaded.state(state)
    recording = MetatrainRecording(settings, command, store, digest, saved)
    training = Training(settings, sizes, mesh, state, recording, saved.seconds if saved else {})
    end = float("inf") if command.minutes is None else time.monotonic() + 60.0 * command.minutes
    status, complete = Status.FAILED, False
    try:
        with TrainingDisplay(command.minutes) as display:
            complete = training.run(
                lambda: interrupted() > 0 or time.monotonic() > end,
                display.show,
                display.line,
                command.checkpoint_seconds,
            )
        status = Status.KILLED if interrupted() else Status.FINISHED
    except KeyboardInterrupt:
        status = Status.KILLED
        raise
    finally:
        recording.finish(status, _end_tags(training, complete), _summary(training))
    return training, complete


def _mesh(pairs: int) -> Mesh:
    """Mesh of the largest number of devices that divides the pairs."""
    found = jax.devices()
    count = max(n for n in range(1, len(found) + 1) if pairs % n == 0)
    return Mesh(np.array(found[:count]), ("pairs",))


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Locks the training against other processes; the lock ends with the process."""
    with open(directory / "lock", "a", opener=owner_only) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"the meta-training in {directory} is in progress in another process; wait for "
                "it, or give another name=NAME"
            ) from error
        yield


def _end_tags(training: Training, complete: bool) -> dict[str, str]:
    outer: Outer = training.state.opt_state
    return {
        "metatrain.complete": str(complete).lower(),
        "metatrain.best_step": str(int(outer.best_step)),
    }


def _summary(training: Training) -> Mapping[str, float]:
    seconds = {f"time/{name}_seconds": value for name, value in training.accounts.seconds.items()}
    return {**seconds, "final/step": float(training.step)}


def _export(path: Path, training: Training, gen_id: str) -> None:
    """Writes the best meta-parameters as a container, and its sha256 beside it."""
    outer: Outer = training.state.opt_state
    best = from_vector(np.asarray(outer.best), *training.sizes)
    save_weights(path, best, gen_id, int(outer.best_step))
    digest = record_digest(path)
    print(f"{path}: {path.stat().st_size:,} bytes, sha256 {digest}")


def _print_state(training: Training, settings: MetatrainSettings, complete: bool) -> None:
    outer: Outer = training.state.opt_state
    seconds, evaluations = training.accounts.seconds, training.evaluations
    inner, cpu = 1e3 * float(outer.unrolled), seconds.get("cpu", 0.0)
    print(
        f"outer step {training.step} of {settings.steps}, {inner / 1e6:.2f} M inner steps in "
        f"{cpu / 60:.1f} CPU-minutes, {len(evaluations)} validations"
    )
    if evaluations:
        first = evaluations[0].metrics["validation/score"]
        print(
            f"validation score: {first:.4f} at the start, best {float(outer.best_score):.4f} "
            f"at outer step {int(outer.best_step)}"
        )
    if not complete:
        print("the same command continues")
