"""Checkpoints: the full state of a run in one file, for resuming in another process.

Boundary: one file per run, written atomically; the caller chooses the runs.

Checkpoints are written just before an evaluation. A resumed run starts with an evaluation, like
every run, and repeats that one with the same result. Update t draws from ``fold_in(key, t)`` and
the order of the data is a function of (seed, step): the resumed run is bitwise the uninterrupted
one. Recorded rows stay in the journal; a checkpoint holds the journal's name and an offset.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from timetrial.framework.callbacks import Callback, StepInfo
from timetrial.framework.clock import Clock
from timetrial.framework.errors import UserError
from timetrial.framework.files import write_atomically
from timetrial.framework.types import Metrics, TrainState

FORMAT = 2
"""Version of the file format."""


class JournaledTracker(Protocol):
    """Tracker of a run with a journal."""

    @property
    def path(self) -> Path:
        """Path of the journal."""

    @property
    def last_row_offset(self) -> int:
        """Offset of the last logged row in the journal, in bytes."""

    def saved(self, offset: int) -> None:
        """Notes that a checkpoint holds the run up to this offset."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint as read back.

    Attributes:
        leaves: arrays of the state, by path in the state.
        seconds: seconds by account of the clock.
        journal: file name of the run's journal.
        offset: size of the journal at this moment, in bytes.
        notes: data of the caller, returned unchanged.
        cpu_seconds: CPU seconds by account of the clock; empty in older files.
        machine: sums of the clock's meter; empty in older files.
    """

    leaves: Mapping[str, np.ndarray]
    seconds: Mapping[str, float]
    journal: str
    offset: int
    notes: Mapping[str, str]
    cpu_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    machine: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def step(self) -> int:
        """Updates made."""
        return int(self.leaves[".step"])

    def state(self, like: TrainState) -> TrainState:
        """The saved state.

        Args:
            like: fresh state of the same run; gives structure, shapes, types and devices.

        Raises:
            UserError: the saved state belongs to another model or optimizer.
        """
        with_paths, structure = jax.tree_util.tree_flatten_with_path(like)
        expected = {jax.tree_util.keystr(path): leaf for path, leaf in with_paths}
        for name in sorted({*expected, *self.leaves}):
            want = _described(expected.get(name))
            got = _described(self.leaves.get(name))
            if want != got:
                raise UserError(
                    f"checkpoint of another model or optimizer: expected {name} to be {want}, "
                    f"got {got}"
                )
        restored = [_restored(self.leaves[name], leaf) for name, leaf in expected.items()]
        state: TrainState = jax.tree_util.tree_unflatten(structure, restored)
        return state


def save(path: Path, state: TrainState, saved: Saved, identity: str) -> None:
    """Writes a checkpoint atomically: a reader sees the previous one or this one.

    Of several hosts all call it and the first writes; divided arrays are gathered one at a time.

    Args:
        path: the file; a missing directory is made.
        state: state of the run; ``saved.leaves`` is ignored.
        saved: all other contents.
        identity: digest of the configuration; ``load`` raises for any other.
    """
    meta = {
        "format": FORMAT,
        "identity": identity,
        "seconds": dict(saved.seconds),
        "journal": saved.journal,
        "offset": saved.offset,
        "notes": dict(saved.notes),
        "cpu_seconds": dict(saved.cpu_seconds),
        "machine": dict(saved.machine),
    }
    leaves = {
        jax.tree_util.keystr(key): _on_host(_data(leaf))
        for key, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
    }
    if jax.process_index() > 0:
        return
    content = serialization.msgpack_serialize({"meta": json.dumps(meta), "leaves": leaves})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def load(path: Path, identity: str) -> Saved:
    """Reads a checkpoint.

    Raises:
        UserError: the file is unreadable or belongs to another run.
    """
    try:
        content: Any = serialization.msgpack_restore(path.read_bytes())
        meta = json.loads(content["meta"])
        if meta["format"] != FORMAT:
            raise ValueError(f"it has format {meta['format']}")
        saved = Saved(
            leaves=content["leaves"],
            seconds=meta["seconds"],
            journal=meta["journal"],
            offset=meta["offset"],
            notes=meta["notes"],
            cpu_seconds=meta.get("cpu_seconds", {}),
            machine=meta.get("machine", {}),
        )
    except Exception as error:  # decoders raise many types for a damaged file
        raise UserError(
            f"checkpoint {path}: expected one of format {FORMAT}, got one that cannot be read "
            f"({type(error).__name__}: {error}); without the file the run starts anew"
        ) from error
    if meta["identity"] != identity:
        raise UserError(
            f"checkpoint {path}: expected one of configuration {identity}, "
            f"got one of {meta['identity']}; without the file the run starts anew"
        )
    return saved


class Checkpoint(Callback):
    """Saves the run at each evaluation without a stop reason; comes after ``Track``.

    Args:
        path: the file.
        identity: digest of the configuration.
        clock: clock of the run; a resumed run continues its accounts.
        tracker: tracker of the run; its last row is the evaluation.
        notes: data of the caller, returned unchanged.
    """

    def __init__(
        self,
        path: Path,
        identity: str,
        clock: Clock,
        tracker: JournaledTracker,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self._path = path
        self._identity = identity
        self._clock = clock
        self._tracker = tracker
        self._notes = dict(notes or {})

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> None:
        if info.ending is not None:
            return
        # The last row is this evaluation; a resumed run repeats it.
        offset = self._tracker.last_row_offset
        name = self._tracker.path.name
        saved = Saved(
            *({}, self._clock.accounts(), name, offset, self._notes),
            cpu_seconds=self._clock.cpu_accounts(),
            machine=self._clock.machine(),
        )
        with self._clock.charge("checkpoint"):
            save(self._path, state, saved, self._identity)
        self._tracker.saved(offset)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _described(leaf: Any) -> str:
    """Shape and type of an array as text; ``nothing`` for None."""
    if leaf is None:
        return "nothing"
    data = _data(leaf)
    return f"{data.dtype}{list(data.shape)}"


def _on_host(leaf: Any) -> np.ndarray | None:
    """The whole array; None on hosts other than the first, which only help to gather it."""
    whole: np.ndarray
    if getattr(leaf, "is_fully_addressable", True):
        whole = np.asarray(leaf)
    elif leaf.is_fully_replicated:
        whole = np.asarray(leaf.addressable_data(0))
    else:
        from jax.experimental import multihost_utils

        whole = np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return whole if jax.process_index() == 0 else None


def _restored(saved: np.ndarray, like: jax.Array) -> jax.Array:
    """The array on the device; a copy, because the buffers of the state are donated."""
    if not like.is_fully_addressable:
        return _restored_part(saved, like)
    array: jax.Array = jnp.array(saved, copy=True)
    if _is_key(like):
        array = jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))
    placed: jax.Array = jax.device_put(array, like.sharding)
    return placed


def _restored_part(saved: np.ndarray, like: jax.Array) -> jax.Array:
    """The array on the devices of several hosts; each puts its own part there."""
    if _is_key(like):  # a key is small and everywhere
        wrapped = jax.jit(jax.random.wrap_key_data, out_shardings=like.sharding)
        key: jax.Array = wrapped(saved)
        return key
    return jax.make_array_from_callback(
        saved.shape, like.sharding, lambda part: np.array(saved[part])
    )
