"""The per-parameter network: names and shapes of its weights, and its output.

Boundary: arithmetic on the inputs of one group of tensors; knows nothing of how they are made.

Moudgil, Knyazev and Belilovsky, "Celo2: Towards Learned Optimization Free Lunch", 2026,
https://arxiv.org/abs/2602.19142; the inputs are those of Metz et al., "VeLO: Training Versatile
Learned Optimizers by Scaling Up", 2022, https://arxiv.org/abs/2211.09760.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

WIDTHS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
"""Inputs by block; block j has the weights ``w0__j``."""

HIDDEN = 8
"""Hidden units of both layers."""

OUTPUTS = 3
"""Outputs of the stored network. Celo2 uses the first alone."""

SHAPES: Mapping[str, tuple[int, ...]] = {
    **{f"w0__{j}": (width, HIDDEN) for j, width in enumerate(WIDTHS)},
    "b0": (HIDDEN,),
    "w1": (HIDDEN, HIDDEN),
    "b1": (HIDDEN,),
    "w2": (HIDDEN, OUTPUTS),
    "b2": (OUTPUTS,),
}
"""Shape of every tensor of weights, 347 numbers in all."""

NORMALISER = 1e-9
"""Added to the mean square by which inputs and outputs are divided."""


class Network(NamedTuple):
    """The weights that matter, float32: 329 of the 347 numbers.

    Attributes:
        w0: (30, 8) weights of the inputs, in order of blocks.
        b0: (8,).
        w1: (8, 8), from the first to the second layer.
        b1: (8,).
        w2: (8,) weights of the first output.
        b2: scalar.
    """

    w0: jax.Array
    b0: jax.Array
    w1: jax.Array
    b1: jax.Array
    w2: jax.Array
    b2: jax.Array


def read_network(meta_params: Any) -> Network:
    """The network in a tree of meta-parameters, ``{"ff_mod_stack": {"~": {name: array}}}``.

    Args:
        meta_params: real arrays of the shapes in ``SHAPES``; they may be traced.

    Raises:
        ValueError: the tree has other names, shapes or types; the message says which.
    """
    found = _arrays(meta_params)
    w0 = jnp.concatenate([found[f"w0__{j}"] for j in range(len(WIDTHS))])
    return Network(w0, found["b0"], found["w1"], found["b1"], found["w2"][:, 0], found["b2"][0])


def _arrays(meta_params: Any) -> dict[str, jax.Array]:
    """The tensors of weights by name, float32, checked."""
    tree = meta_params
    for key in ("ff_mod_stack", "~"):
        if not isinstance(tree, Mapping) or list(tree) != [key]:
            raise _error('{"ff_mod_stack": {"~": {name: array}}}', _outline(meta_params))
        tree = tree[key]
    if not isinstance(tree, Mapping):
        raise _error('{"ff_mod_stack": {"~": {name: array}}}', _outline(meta_params))
    missing = [name for name in SHAPES if name not in tree]
    unexpected = [str(name) for name in tree if name not in SHAPES]
    if missing or unexpected:
        got = f"missing {_some(missing)}, unexpected {_some(unexpected)}"
        raise _error(f"the {len(SHAPES)} tensors b0, b1, b2, w0__0 to w0__13, w1, w2", got)
    arrays = {}
    for name, shape in SHAPES.items():
        if jnp.shape(tree[name]) != shape:
            raise _error(f"{name} of shape {shape}", f"shape {jnp.shape(tree[name])}")
        x = jnp.asarray(tree[name])
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise _error(f"{name} of floating-point numbers", str(x.dtype))
        arrays[name] = x.astype(jnp.float32)
    return arrays


def _error(expected: str, got: str) -> ValueError:
    return ValueError(f"celo2: meta_params: expected {expected}, got {got}")


def _outline(tree: Any) -> str:
    """The type of a tree, or its first keys, two levels deep."""
    if not isinstance(tree, Mapping):
        return type(tree).__name__
    inner = (f"{key!r}: {_keys(value)}" for key, value in list(tree.items())[:3])
    return f"{{{', '.join(inner)}{', ...' if len(tree) > 3 else ''}}}"


def _keys(value: Any) -> str:
    if not isinstance(value, Mapping):
        return type(value).__name__
    return f"a map with {_some([repr(key) for key in value])}"


def _some(names: Sequence[str]) -> str:
    """At most four names as messages show them, and how many there are."""
    shown = ", ".join(name[:40] for name in names[:4])
    return (shown + (f", ... ({len(names)} in all)" if len(names) > 4 else "")) or "none"
