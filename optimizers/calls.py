"""Arguments and results of ``update`` that the learned optimizers share.

Boundary: checks and casts; computes no step.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Call(NamedTuple):
    """Arguments of one call of ``update``, checked; gradients and parameters as leaves."""

    grads: list[jax.Array]
    params: list[jax.Array]
    loss: jax.Array
    remaining: jax.Array | None


def read_call(
    owner: str,
    grads: PyTree,
    params: PyTree,
    value: Any,
    weight_decay: float,
    remaining_fraction: Any = None,
) -> Call:
    """Checks the arguments of ``update`` and adds the weight decay.

    Args:
        owner: name of the optimizer, for messages.
        grads: of the parameters.
        params: the parameters.
        value: the training loss of the gradients.
        weight_decay: w >= 0 adds ``w * p`` to gradients and ``w * sum(p**2)`` to the loss.
        remaining_fraction: share of the training left, or ``None``.

    Raises:
        ValueError: an argument is missing, or has the wrong structure, shape or type.
    """
    require_params(owner, params)
    loss = _scalar(owner, "value", value, "the training loss of the gradients")
    remaining = None
    if remaining_fraction is not None:
        remaining = _scalar(owner, "remaining_fraction", remaining_fraction, "the training left")
    p, g = float_leaves(owner, params, "params"), matching_leaves(owner, grads, params)
    if weight_decay > 0:
        loss = loss + sum(weight_decay * jnp.sum(x.astype(jnp.float32) ** 2) for x in p)
        g = [
            y.astype(jnp.float32) + weight_decay * x.astype(jnp.float32)
            for x, y in zip(p, g, strict=True)
        ]
    return Call(g, p, loss, remaining)


def require_params(owner: str, params: PyTree) -> None:
    """Raises a ValueError where the parameters are missing."""
    if params is None:
        raise ValueError(
            f"{owner}: update needs params, got None; call update(grads, state, params)"
        )


def rounded(param: jax.Array, change: jax.Array) -> jax.Array:
    """The change once the new parameter is rounded to the parameter's dtype."""
    if param.dtype in (jnp.float32, jnp.float64):
        return change.astype(param.dtype)
    new = (param.astype(jnp.float32) + change).astype(param.dtype)
    return new - param


def float_leaves(owner: str, tree: PyTree, name: str) -> list[jax.Array]:
    """Leaves of a tree, as arrays.

    Raises:
        ValueError: a leaf has no floating-point numbers.
    """
    leaves = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            where = name + jax.tree_util.keystr(path)
            raise ValueError(f"{owner}: {where}: expected floating-point numbers, got {leaf.dtype}")
        leaves.append(leaf)
    return leaves


def matching_leaves(owner: str, grads: PyTree, params: PyTree) -> list[jax.Array]:
    """Leaves of the gradients, as arrays.

    Raises:
        ValueError: their tree is not that of the parameters, or they are no floating-point numbers.
    """
    found, expected = str(jax.tree.structure(grads)), str(jax.tree.structure(params))
    if found != expected:
        raise ValueError(
            f"{owner}: expected gradients with the structure of the parameters, {expected}, "
            f"got {found}"
        )
    return float_leaves(owner, grads, "grads")


def _scalar(owner: str, name: str, value: Any, meaning: str) -> jax.Array:
    if value is None:
        raise ValueError(
            f"{owner}: update needs {name}=, {meaning}: "
            f"call update(grads, state, params, {name}=...)"
        )
    if jnp.shape(value) != ():
        raise ValueError(f"{owner}: {name}: expected a scalar, got shape {jnp.shape(value)}")
    return jnp.asarray(value, jnp.float32)


def check_numbers(owner: str, weight_decay: float, **steps: int) -> None:
    """Checks a weight decay, and numbers of steps by name.

    Raises:
        ValueError: an argument is out of range.
    """
    for name, number in steps.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{owner}: {name}: expected a whole number >= 1, got {number!r}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(
            f"{owner}: weight_decay: expected a finite number >= 0, got {weight_decay}"
        )
