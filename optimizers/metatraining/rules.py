"""Update rules of one lane: VeLO with the lane's own meta-parameters, and Adam for comparison.

Boundary: pure functions of one lane's arrays; the caller vectorises over lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from timetrial.optimizers.metatraining.vector import meta_parameters
from timetrial.optimizers.velo import core
from timetrial.optimizers.velo.loss_features import LossState, init_loss_state, update_loss_state
from timetrial.optimizers.velo.tiling.tiles import Tiling, make_tiling

PyTree = Any

MATRIX_TILES = ((16, 16), (8, 16), (8, 8), (16, 8), (4, 8), (32, 16), (32, 32))
"""Tile shapes for models of a few thousand parameters: little padding; see ``tiling``."""

VECTOR_TILE = (1, 16)


class Rule(NamedTuple):
    """An update rule.

    Attributes:
        init: maps parameters and the expected number of steps to a state.
        update: maps parameters, state, gradients, loss, step and expected number of steps to new
            parameters and state.
    """

    init: Callable[[PyTree, jax.Array], PyTree]
    update: Callable[..., tuple[PyTree, PyTree]]


MakeRule = Callable[[Any], Rule]
"""Maps an array or a tree of arrays (meta-parameters, a learning rate) to an update rule."""


class VeloLane(NamedTuple):
    """State of VeLO in one lane."""

    network: core.NetworkState
    loss: LossState


def velo_rule(vector: jax.Array, hidden_size: int, bank_size: int) -> Rule:
    """VeLO with the meta-parameters of a vector; see ``vector``."""
    theta = meta_parameters(vector, hidden_size, bank_size)

    def init(params: PyTree, num_steps: jax.Array) -> VeloLane:
        network = core.init_state(theta, _tiling(params))
        return VeloLane(network, init_loss_state(num_steps))

    def update(
        params: PyTree,
        state: VeloLane,
        grads: PyTree,
        loss: jax.Array,
        step: jax.Array,
        num_steps: jax.Array,
    ) -> tuple[PyTree, VeloLane]:
        tiling = _tiling(params)
        leaves, treedef = jax.tree.flatten(params)
        seen, features = update_loss_state(state.loss, loss)
        fraction = step.astype(jnp.float32) / num_steps.astype(jnp.float32)
        changes, network, _ = core.learned_update(
            theta, tiling, state.network, jax.tree.leaves(grads), leaves, features, fraction
        )
        for leaf, change in zip(tiling.leaves, changes, strict=True):
            leaves[leaf] = leaves[leaf] + change
        return jax.tree.unflatten(treedef, leaves), VeloLane(network, seen)

    return Rule(init, update)


def adam_rule(learning_rate: jax.Array) -> Rule:
    """Adam at a constant rate with the usual constants (Kingma and Ba, 2014, arXiv:1412.6980).

    ``optax.adam`` rounds differently; the tables of ``CARD.md`` were made with these bits.
    """

    def init(params: PyTree, num_steps: jax.Array) -> PyTree:
        del num_steps
        return jax.tree.map(jnp.zeros_like, (params, params))

    def update(
        params: PyTree,
        state: PyTree,
        grads: PyTree,
        loss: jax.Array,
        step: jax.Array,
        num_steps: jax.Array,
    ) -> tuple[PyTree, PyTree]:
        del loss, num_steps
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state[0], grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state[1], grads)
        count = step.astype(jnp.float32) + 1.0
        m_scale, v_scale = 1.0 / (1.0 - 0.9**count), 1.0 / (1.0 - 0.999**count)
        params = jax.tree.map(
            lambda p, m, v: p - learning_rate * m * m_scale / (jnp.sqrt(v * v_scale) + 1e-8),
            params,
            first,
            second,
        )
        return params, (first, second)

    return Rule(init, update)


def _tiling(params: PyTree) -> Tiling:
    shapes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(params))
    return make_tiling(shapes, MATRIX_TILES, VECTOR_TILE)
