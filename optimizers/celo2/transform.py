"""Celo2 as an optax transformation.

Boundary: arguments and results of an update; ``update`` does the arithmetic.

**What it returns.** A direction that points along the gradient, with a root mean square of 1 in
every matrix of the last two axes, every vector and every scalar. So the learning rate behind it is
the root mean square of the change, and a scalar moves by plus or minus the learning rate.

**Zero gradients.** A tensor whose gradient is exactly zero moves too: parameters and constant
inputs are normalised like all others. Mask tensors that shall not move.

**Not a number.** There is no guard. A NaN gradient makes its tensor NaN for good. Gradients are
clipped to [-1000, 1000].

**Matrices.** The last two axes are the matrix of normalisation and orthogonalization, as in
(height, width, in, out). Row and column statistics are over the two largest axes.

**State.** 4 float32 per parameter (7 for vectors and scalars), in tiles of matrices and of vectors
and in stacks of equal tensors; ``tensor_averages`` gives them by tensor. Leaves without elements
stay as they are.

Moudgil, Knyazev and Belilovsky, "Celo2: Towards Learned Optimization Free Lunch", 2026,
https://arxiv.org/abs/2602.19142.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from timetrial.optimizers import calls
from timetrial.optimizers.celo2.averages import (
    MatrixState,
    TileState,
    VectorState,
    accumulate_vectors,
    clipped,
    init_matrices,
    init_vectors,
)
from timetrial.optimizers.celo2.matrices import apart, true_of
from timetrial.optimizers.celo2.network import NORMALISER, Network, read_network
from timetrial.optimizers.celo2.orthogonal import orthogonalized
from timetrial.optimizers.celo2.stacks import Plan, Stack, by_last_axes, make_plan
from timetrial.optimizers.celo2.tiled import tile_directions
from timetrial.optimizers.celo2.update import matrix_directions, vector_direction
from timetrial.optimizers.velo.tiling.segments import rows_of
from timetrial.optimizers.velo.tiling.tiles import Group

PyTree = Any


class Celo2State(NamedTuple):
    """State of ``scale_by_celo2``, float32 for parameters of any dtype.

    Attributes:
        tiles: averages of each group of matrices that are stored as tiles.
        matrices: averages of each stack of other tensors of rank >= 2.
        vectors: averages of all vectors and scalars; None where there are none.
    """

    tiles: tuple[TileState, ...]
    matrices: tuple[MatrixState, ...]
    vectors: VectorState | None


def scale_by_celo2(meta_params: Any, orthogonalize: bool = True) -> optax.GradientTransformation:
    """The learned direction of Celo2; the module's docstring describes it.

    ``update(grads, state, params)`` needs the parameters. The direction is positive where the
    gradient is; chain it with ``optax.scale_by_learning_rate``. Decay of weights, schedules and
    masks are ordinary optax around it. It has the dtype of the parameters.

    Args:
        meta_params: the learned weights, ``{"ff_mod_stack": {"~": {name: array}}}`` with the names
            and shapes of ``network.SHAPES``. Concrete or traced.
        orthogonalize: apply Newton-Schulz steps to the network's output, for rank >= 2.

    Raises:
        ValueError: ``meta_params`` is no set of Celo2's weights.
    """
    network = read_network(meta_params)

    def init(params: PyTree) -> Celo2State:
        plan = _plan(calls.float_leaves("celo2", params, "params"))
        tiles = tuple(one.init_state() for one in plan.groups)
        matrices = tuple(init_matrices(sum(s.counts), s.shape) for s in plan.stacks)
        vectors = None if plan.tiles is None else init_vectors(plan.tiles.tiles, plan.tiles.tile[1])
        return Celo2State(tiles, matrices, vectors)

    def update(
        grads: PyTree, state: Celo2State, params: PyTree = None
    ) -> tuple[PyTree, Celo2State]:
        p, g = _read_call(grads, params)
        plan = _plan(p)
        made, tiles = _update_tiles(network, plan, state.tiles, g, p, orthogonalize)
        matrices = []
        for stack, old in zip(plan.stacks, state.matrices, strict=True):
            found, new = _update_stack(network, stack, old, g, p, orthogonalize)
            matrices.append(new)
            made.update(zip(stack.leaves, found, strict=True))
        vectors = state.vectors
        if plan.tiles is not None and vectors is not None:
            found, vectors = _update_vectors(network, plan, plan.tiles, vectors, g, p)
            made.update(zip(plan.vectors, found, strict=True))
        leaves = [made.get(i, jnp.zeros_like(x)).astype(x.dtype) for i, x in enumerate(p)]
        updates = jax.tree.unflatten(jax.tree.structure(params), leaves)
        return updates, Celo2State(tiles, tuple(matrices), vectors)

    return optax.GradientTransformation(init, update)


def _update_tiles(
    network: Network,
    plan: Plan,
    states: Sequence[TileState],
    grads: Sequence[jax.Array],
    params: Sequence[jax.Array],
    orthogonalize: bool,
) -> tuple[dict[int, jax.Array], tuple[TileState, ...]]:
    """The float32 directions of the tiled tensors by leaf, and their new averages."""
    g, p = ([x[i] for i in plan.tiled] for x in (grads, params))
    made: dict[int, jax.Array] = {}
    new = []
    for one, old in zip(plan.groups, states, strict=True):
        packed = (one.pack(g), one.pack(p))
        x, state = tile_directions(network, one, old, *packed, normalise=not orthogonalize)
        new.append(state)
        leaves = [plan.tiled[v.leaf] for v in one.group.views]
        made.update(zip(leaves, one.group.unpack(x), strict=True))
    if orthogonalize:
        raw = [made.get(i, x) for i, x in enumerate(grads)]
        for stack in by_last_axes([x.shape for x in raw], plan.tiled):
            x = _normalised(orthogonalized(stack.pack(raw)))
            made.update(zip(stack.leaves, stack.unpack(x), strict=True))
    return made, tuple(new)


def _update_stack(
    network: Network,
    stack: Stack,
    state: MatrixState,
    grads: Sequence[jax.Array],
    params: Sequence[jax.Array],
    orthogonalize: bool,
) -> tuple[list[jax.Array], MatrixState]:
    """The float32 directions of the tensors of a stack, and its new averages."""
    g = clipped(stack.pack(grads))
    x, state = matrix_directions(network, state, g, stack.pack(params))
    if orthogonalize:
        x = orthogonalized(x)
    return stack.unpack(_normalised(x)), state


def _normalised(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(NORMALISER + jnp.mean(x * x, (-2, -1), keepdims=True))


def _update_vectors(
    network: Network,
    plan: Plan,
    tiles: Group,
    state: VectorState,
    grads: Sequence[jax.Array],
    params: Sequence[jax.Array],
) -> tuple[list[jax.Array], VectorState]:
    """The float32 directions of all vectors and scalars, and their new averages."""
    g, p = (tiles.pack([x[leaf] for leaf in plan.vectors])[:, 0] for x in (grads, params))
    inside = jnp.arange(tiles.tile[1]) < jnp.asarray(tiles.columns)[:, None]
    size = jnp.asarray(tiles.sizes, jnp.float32)[:, None]

    def mean(sums: jax.Array) -> jax.Array:
        return rows_of(tiles.sum_tensor(sums) / size, tiles.tensor)

    def function(
        state: VectorState, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[VectorState, jax.Array]:
        g, p = inputs
        g = clipped(g)
        state = accumulate_vectors(state, g)
        return state, vector_direction(network, state, g, p, inside, mean)

    def normalise(nothing: tuple[()], x: jax.Array) -> tuple[tuple[()], jax.Array]:
        square = mean(jnp.where(inside, x * x, 0.0).sum(-1, keepdims=True))
        return nothing, x * jax.lax.rsqrt(NORMALISER + square)

    # Apart, because XLA would repeat the network, and the last steps for each of the vectors.
    live = true_of(state.second)
    state, x = apart(function, state, (g, p), live)
    x = apart(normalise, (), x, live)[1]
    return tiles.unpack(x[:, None]), state


def tensor_averages(state: Celo2State, params: PyTree) -> PyTree:
    """The averages of the gradients by tensor.

    Args:
        state: state of ``scale_by_celo2``.
        params: a tree of the shapes given to ``init``.

    Returns:
        The tree of ``params`` with a dict for every tensor: ``momentum`` (shape + (3,)), ``second``
        (shape) and, with a trailing axis of 3, ``diagonal`` for rank below 2, otherwise ``row``
        (shape without its largest axis d0) and ``column`` (without the next, d1).
    """
    leaves, treedef = jax.tree.flatten(params)
    plan = _plan(leaves)
    found: list[dict[str, jax.Array]] = [{} for _ in leaves]
    for one, factored in zip(plan.groups, state.tiles, strict=True):
        for view, named in zip(one.group.views, one.unpack_state(factored), strict=True):
            found[plan.tiled[view.leaf]] = named
    for stack, averages in zip(plan.stacks, state.matrices, strict=True):
        for leaf, shape, items in stack.items():
            found[leaf] = {
                "momentum": jnp.moveaxis(averages.momentum[:, items].reshape(3, *shape), 0, -1),
                "second": averages.second[items].reshape(shape),
                "row": stack.factor(averages.rows[:, items], shape, -1),
                "column": stack.factor(averages.columns[:, items], shape, -2),
            }
    if plan.tiles is not None and state.vectors is not None:
        m, v, d = state.vectors
        parts = [plan.tiles.unpack(x[:, None]) for x in (*m, v, *d)]
        for leaf, x in zip(plan.vectors, zip(*parts, strict=True), strict=True):
            momentum, diagonal = jnp.stack(x[:3], -1), jnp.stack(x[4:], -1)
            found[leaf] = {"momentum": momentum, "second": x[3], "diagonal": diagonal}
    return jax.tree.unflatten(treedef, found)


def _read_call(grads: PyTree, params: PyTree) -> tuple[list[jax.Array], list[jax.Array]]:
    """Parameters and gradients as leaves.

    Raises:
        ValueError: an argument is missing, or has the wrong structure, shape or type.
    """
    calls.require_params("celo2", params)
    p = calls.float_leaves("celo2", params, "params")
    g = calls.matching_leaves("celo2", grads, params)
    for x, y in zip(p, g, strict=True):
        if x.shape != y.shape:
            raise ValueError(f"celo2: expected a gradient of shape {x.shape}, got {y.shape}")
    return p, g


def _plan(leaves: Sequence[Any]) -> Plan:
    return make_plan(tuple(jnp.shape(leaf) for leaf in leaves))
