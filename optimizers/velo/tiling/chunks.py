"""Applies a function to tiles, a few at a time on CPUs, all at once on other devices.

Boundary: control flow only; the function is the caller's.

A CPU is fastest when the intermediate values of a few tiles stay in its cache; a GPU when one
kernel sees all tiles.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from timetrial.optimizers.velo.tiling.kernels import Kernel, launch

PyTree = Any
State = TypeVar("State")
Found = TypeVar("Found")


def over_tiles(
    function: Callable[[State, PyTree], tuple[State, Found]],
    state: State,
    inputs: PyTree,
    *,
    chunk: int,
    live: jax.Array | None = None,
    kernel: Kernel | None = None,
) -> tuple[State, Found]:
    """Applies a function that treats every tile by itself.

    Args:
        function: maps the state and the inputs of some tiles to their new state and to further
            results; all arrays have a leading axis of tiles.
        state: arrays to update, in place where the compiler can.
        inputs: arrays to read.
        chunk: tiles to take at a time on a CPU; divides their number.
        live: scalar bool, always true, which the compiler cannot prove. Given, the arithmetic of a
            chunk is one branch, on one core, which nothing is merged with. ``None``: XLA's CPU
            compiler may divide its operations among cores; only for functions without a state,
            which would be copied before each chunk.
        kernel: Pallas kernel of the same function, used instead of it.

    Returns:
        The new state and the further results of all tiles.
    """
    if kernel is not None:
        return launch(kernel, state, inputs, jax.eval_shape(function, state, inputs)[1])
    tiles = jax.tree.leaves((state, inputs))[0].shape[0]
    if jax.default_backend() != "cpu":
        made: tuple[State, Found] = jax.lax.optimization_barrier(function(state, inputs))
        return made
    if tiles == chunk:
        return function(state, inputs) if live is None else _apart(function, state, inputs, live)
    return _in_chunks(function, state, inputs, tiles, chunk, apart=live is not None)


def at_once(
    function: Callable[[State, PyTree], State],
    state: State,
    inputs: PyTree,
    *,
    live: jax.Array,
    kernel: Kernel | None = None,
) -> State:
    """Applies a function that works element by element to all tiles, on all cores of a CPU.

    Args:
        function: maps the state and the inputs to the new state.
        state: arrays to update, in place where the compiler can.
        inputs: arrays to read.
        live: scalar bool, always true, which the compiler cannot prove.
        kernel: Pallas kernel of the same function, used instead of it.
    """
    made: State
    if kernel is not None:
        made, _ = launch(kernel, state, inputs, ())
    elif jax.default_backend() == "cpu":
        made = _loop_of_one(function, state, inputs, live)
    else:
        made = jax.lax.optimization_barrier(function(state, inputs))
    return made


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _loop_of_one(
    function: Callable[[State, PyTree], State], state: State, inputs: PyTree, live: jax.Array
) -> State:
    """Calls the function as the body of a loop of one turn.

    Unlike a branch, XLA's CPU compiler divides the operations of a loop among cores. It would move
    what does not depend on the turn out of the loop; a selection by the turn prevents that.
    """

    def body(turn: jax.Array, state: State) -> State:
        here = jax.tree.map(lambda x: jnp.where(turn >= 0, x, jnp.zeros_like(x)), inputs)
        return function(state, here)

    done: State = jax.lax.fori_loop(0, live.astype(jnp.int32), body, state)
    return done


@_loop_of_one.defjvp
def _derivative(function: Any, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """That of the function: JAX transposes no loop whose turns it cannot count."""
    made: tuple[Any, Any] = jax.jvp(function, primals[:2], tangents[:2])
    return made


def _in_chunks(
    function: Callable[[State, PyTree], tuple[State, Found]],
    state: State,
    inputs: PyTree,
    tiles: int,
    chunk: int,
    *,
    apart: bool,
) -> tuple[State, Found]:
    shapes = jax.eval_shape(lambda s, x: function(*_slice((s, x), 0, chunk))[1], state, inputs)
    found = jax.tree.map(lambda x: jnp.zeros((tiles, *x.shape[1:]), x.dtype), shapes)

    def body(i: jax.Array, carry: tuple[State, Found]) -> tuple[State, Found]:
        state, found = carry
        some, more = _slice((state, inputs), i * chunk, chunk)
        new: tuple[State, Found] = jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, i * chunk, 0),
            (state, found),
            _apart(function, some, more, i >= 0) if apart else function(some, more),
        )
        return new

    done: tuple[State, Found] = jax.lax.fori_loop(0, tiles // chunk, body, (state, found))
    return done


def _slice(tree: PyTree, first: Any, chunk: int) -> PyTree:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, chunk, 0), tree)


def _apart(
    function: Callable[[State, PyTree], tuple[State, Found]],
    state: State,
    inputs: PyTree,
    live: jax.Array,
) -> tuple[State, Found]:
    """Calls the function as the branch of a conditional.

    XLA's CPU compiler drops optimization barriers before it fuses. Without a boundary it merges
    the slices with the arithmetic, which is then not vectorised (7 times slower, measured), or
    copies the arithmetic into every consumer.
    """

    def otherwise() -> tuple[State, Found]:
        shapes = jax.eval_shape(function, state, inputs)
        zeros: tuple[State, Found] = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return zeros

    made: tuple[State, Found] = jax.lax.cond(live, lambda: function(state, inputs), otherwise)
    return made
