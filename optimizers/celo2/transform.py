"""Celo2 as an optax transformation.

Boundary: arguments and results of an update; ``update`` does the arithmetic.

Moudgil, Knyazev and Belilovsky, "Celo2: Towards Learned Optimization Free Lunch", 2026,
https://arxiv.org/abs/2602.19142.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from timetrial.optimizers.celo2.averages import (
    MatrixState,
    VectorState,
    accumulate_matrices,
    accumulate_vectors,
    init_matrices,
    init_vectors,
)
from timetrial.optimizers.celo2.network import NORMALISER, Network, read_network
from timetrial.optimizers.celo2.orthogonal import orthogonalized
from timetrial.optimizers.celo2.stacks import Plan, make_plan
from timetrial.optimizers.celo2.update import matrix_direction, vector_direction
from timetrial.optimizers.velo.tiling.tiles import Group

PyTree = Any
_LARGEST_GRADIENT = 1000.0


class Celo2State(NamedTuple):
    """State of ``scale_by_celo2``, float32 for parameters of any dtype.

    Attributes:
        matrices: averages of each stack of tensors of rank >= 2.
        vectors: averages of all vectors and scalars; None where there are none.
    """

    matrices: tuple[MatrixState, ...]
    vectors: VectorState | None


def scale_by_celo2(meta_params: Any, orthogonalize: bool = True) -> optax.GradientTransformation:
    """Celo2's direction"""
    network = read_network(meta_params)

    def init(params: PyTree) -> Celo2State:
        plan = _plan(jax.tree.leaves(params))
        matrices = tuple(init_matrices(sum(s.counts), s.shape) for s in plan.stacks)
        vectors = None if plan.tiles is None else init_vectors(plan.tiles.tiles, plan.tiles.tile[1])
        return Celo2State(matrices, vectors)

    def update(
        grads: PyTree, state: Celo2State, params: PyTree = None
    ) -> tuple[PyTree, Celo2State]:
        p, g = jax.tree.leaves(params), jax.tree.leaves(grads)
        plan = _plan(p)
        clipped = [
            jnp.clip(x.astype(jnp.float32), -_LARGEST_GRADIENT, _LARGEST_GRADIENT) for x in g
        ]
        made = [jnp.zeros_like(x) for x in p]
        matrices = []
        for stack, old in zip(plan.stacks, state.matrices, strict=True):
            packed = stack.pack(clipped)
            new = accumulate_matrices(old, packed)
            x = matrix_direction(network, new, packed, stack.pack(p))
            x = orthogonalized(x) if orthogonalize else x
            x = x * jax.lax.rsqrt(NORMALISER + jnp.mean(x * x, (-2, -1), keepdims=True))
            for leaf, change in zip(stack.leaves, stack.unpack(x), strict=True):
                made[leaf] = change.astype(p[leaf].dtype)
            matrices.append(new)
        vectors = state.vectors
        if plan.tiles is not None:
            found, vectors = _vectors(network, plan, plan.tiles, vectors, clipped, p)
            for leaf, change in zip(plan.vectors, found, strict=True):
                made[leaf] = change.astype(p[leaf].dtype)
        return jax.tree.unflatten(jax.tree.structure(params), made), Celo2State(tuple(matrices), vectors)

    return optax.GradientTransformation(init, update)


def _vectors(network, plan, tiles: Group, state, grads, params):
    own = lambda leaves: tiles.pack([leaves[i] for i in plan.vectors])[:, 0]
    g = own(grads)
    state = accumulate_vectors(state, g)
    inside = jnp.arange(tiles.tile[1]) < jnp.asarray(tiles.columns)[:, None]
    size = jnp.asarray(tiles.sizes, jnp.float32)[:, None]

    def mean(sums):
        return jnp.take(tiles.sum_tensor(sums) / size, tiles.tensor, axis=0)

    x = vector_direction(network, state, g, own(params), inside, mean)
    square = jnp.where(inside, x * x, 0.0).sum(-1, keepdims=True)
    x = x * jax.lax.rsqrt(NORMALISER + mean(square))
    return tiles.unpack(x[:, None]), state


def _plan(leaves) -> Plan:
    return make_plan(tuple(jnp.shape(x) for x in leaves))
