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

from timetrial.bench.metatrain.config import Command, devices, identity, read
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
from timetrial.optimizers.metatraining.stage import MakeStage, Stage
from timetrial.optimizers.metatraining.stages import stages_of
from timetrial.optimizers.weights.files import record_digest
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
    if export is not None and not export.absolute().parent.is_dir():
        raise ConfigError(f"--export: expected a file in an existing directory, got {export}")
    count = devices(settings.pairs, command.cores)
    first, *others = stages_of(settings)
    store = opened(command.tracking)
    with contextlib.suppress(RuntimeError):  # JAX is initialised already
        jax.config.update("jax_num_cpu_devices", count)
    # Later pieces reuse compiled programs; compilation takes minutes on two cores.
    jax.config.update("jax_compilation_cache_dir", str(command.directory.parent / "compiled"))
    make_private_directory(command.directory)
    with _only_one(command.directory), noted() as interrupted:
        training, complete = _pieces(first, others, command, store, interrupted)
        signal = interrupted()
    if export is not None:
        _export(export, training, command.name)
    _print_state(training, complete)
    if signal:
        raise Interrupted(signal)
    return 0


def _pieces(
    first: MakeStage,
    others: Sequence[MakeStage],
    command: Command,
    store: Store,
    interrupted: Callable[[], int],
) -> tuple[Training, bool]:
    """Trains stage by stage until the time limit or the end.

    Returns:
        The training of the last stage reached, and whether all stages are complete.
    """
    end = float("inf") if command.minutes is None else time.monotonic() + 60.0 * command.minutes
    training, complete = _piece(first(None), command, store, interrupted, end)
    for make_stage in others:
        if not complete or interrupted():
            return training, False
        best = np.asarray(training.state.opt_state.best)
        training, complete = _piece(make_stage(best), command, store, interrupted, end)
    return training, complete


def _piece(
    stage: Stage,
    command: Command,
    store: Store,
    interrupted: Callable[[], int],
    end: float = float("inf"),
) -> tuple[Training, bool]:
    """Trains one stage until a moment of ``time.monotonic``; returns whether it is complete."""
    digest = identity(stage)
    loaded = Checkpoints(checkpoint_directory(command, stage), digest).latest()
    mesh = _mesh(stage.settings.pairs)
    state = place(init_state(stage), mesh)
    saved = None if loaded is None else loaded.saved
    if loaded is not None:
        state = loaded.state(state)
    recording = MetatrainRecording(stage, command, store, digest, saved)
    training = Training(stage, mesh, state, recording, saved.seconds if saved else {})
    status, complete = Status.FAILED, False
    left = None if end == float("inf") else max(0.0, end - time.monotonic()) / 60.0
    try:
        with TrainingDisplay(left) as display:
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


def _export(path: Path, training: Training, name: str) -> None:
    """Writes the best meta-parameters as a container, and its sha256 beside it."""
    outer: Outer = training.state.opt_state
    gen_id = f"timetrial-metatrain-{name}-{identity(training.stage)}"
    training.stage.save(path, np.asarray(outer.best), gen_id, int(outer.best_step))
    digest = record_digest(path)
    print(f"{path}: {path.stat().st_size:,} bytes, sha256 {digest}")


def _print_state(training: Training, complete: bool) -> None:
    outer: Outer = training.state.opt_state
    seconds, evaluations = training.accounts.seconds, training.evaluations
    inner, cpu = 1e3 * float(outer.unrolled), seconds.get("cpu", 0.0)
    stage = f"stage {training.stage.name}: " if training.stage.name else ""
    print(
        f"{stage}outer step {training.step} of {training.stage.settings.steps}, "
        f"{inner / 1e6:.2f} M inner steps in "
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
