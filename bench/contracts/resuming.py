"""A state that went through a checkpoint, for the contract checks.

Boundary: writes into a temporary directory, and removes it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.bench.contracts import require
from timetrial.framework.checkpoint import Checkpoints, Loaded, Saved
from timetrial.framework.state import TrainState


def from_disk(state: TrainState, like: TrainState) -> TrainState:
    """Saves a state, and reads it into the place of a fresh one."""
    with tempfile.TemporaryDirectory() as directory:
        checkpoints = Checkpoints(Path(directory) / "run", "contract")
        checkpoints.save(state, Saved(int(state.step), {}))
        checkpoints.close()
        loaded = checkpoints.latest()
        require(isinstance(loaded, Loaded), "a whole checkpoint", loaded)
        assert loaded is not None
        return loaded.state(like)


def require_equal(state: TrainState, other: TrainState, when: str = "after a checkpoint") -> None:
    """Raises ContractError unless two states are equal to the last bit."""
    found = jax.tree_util.tree_flatten_with_path(state)[0]
    for (path, one), two in zip(found, jax.tree.leaves(other), strict=True):
        same = np.array_equal(_numbers(one), _numbers(two))
        require(same, f"the same {jax.tree_util.keystr(path)} {when}", "another one")


def _numbers(leaf: jax.Array) -> np.ndarray:
    key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    data = np.asarray(jax.random.key_data(leaf) if key else leaf)
    return data.reshape(-1).view(np.uint8)  # NaN equals itself
