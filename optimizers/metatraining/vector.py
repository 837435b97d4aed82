"""Meta-parameters as one vector, scaled so that one size of perturbation fits all entries.

Pure: order and scale of numbers; no file, no arithmetic of the optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.velo import layout
from timetrial.optimizers.velo.network import MetaParameters, read_meta_parameters


def scales(hidden_size: int, bank_size: int) -> dict[layout.Path, float]:
    """Size of one unit of the vector in each tensor.

    The MLP of a tensor is 100 times the mean of K bank entries: noise of size s in each entry
    changes it by 100 s / sqrt(K). A unit of a bank entry is therefore sqrt(K) / 100, which changes
    effective weights by about one, as in other tensors. Step sizes are of the order of 10; their
    unit is 5.
    """
    units = {"ff_mod_stack": math.sqrt(bank_size) / 100.0, "step_size": 5.0}
    paths = layout.shapes(hidden_size, bank_size)
    return {path: units.get(path[0], units.get(path[1], 1.0)) for path in paths}


def to_vector(meta_params: Mapping[str, Any]) -> jax.Array:
    """The vector of a set of meta-parameters, float32, (8 H^2 + 100 H + H K + 160 K + 1,)."""
    flat = layout.flatten(meta_params)
    scale = scales(*layout.sizes({path: leaf.shape for path, leaf in flat.items()}))
    parts = [np.asarray(leaf, np.float32).ravel() / scale[path] for path, leaf in flat.items()]
    return jnp.asarray(np.concatenate(parts), jnp.float32)


def from_vector(vector: Any, hidden_size: int, bank_size: int) -> dict[str, Any]:
    """The inverse of ``to_vector``, for NumPy, JAX and traced arrays."""
    shapes, scale = layout.shapes(hidden_size, bank_size), scales(hidden_size, bank_size)
    flat, first = {}, 0
    for path, shape in shapes.items():
        last = first + math.prod(shape)
        flat[path] = vector[first:last].reshape(shape) * np.float32(scale[path])
        first = last
    return layout.nest(flat)


def meta_parameters(vector: jax.Array, hidden_size: int, bank_size: int) -> MetaParameters:
    """The vector as the network's meta-parameters."""
    return read_meta_parameters(from_vector(vector, hidden_size, bank_size))
