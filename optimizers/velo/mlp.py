"""The per-parameter network, and the step it makes.

Boundary: arithmetic on one group of tiles; ``network`` makes the weights.

The second moments, by which the network sees its inputs normalised, are folded into the weights of
the first layer. Inputs of a row or a column alone pass the first layer once per row or column. The
rest is written out elementwise, so that XLA makes one loop of inputs, network and step.

Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.velo.accumulators import TensorState, VectorState
from timetrial.optimizers.velo.inputs import Packed, scale_sources, scales
from timetrial.optimizers.velo.layout import MLP_WIDTH
from timetrial.optimizers.velo.network import MlpWeights
from timetrial.optimizers.velo.tiling.chunks import over_tiles
from timetrial.optimizers.velo.tiling.lines import beside_tiles
from timetrial.optimizers.velo.tiling.tiles import Blocks, Group

_STEP = 1e-3
_EXPONENT = 1e-3
_ROW, _COLUMN, _RS_ROW, _RS_COLUMN = (slice(i, i + 3) for i in (15, 18, 21, 24))


def changes(
    group: Group,
    packed: Packed,
    moments: jax.Array,
    weights: MlpWeights,
    step_size: jax.Array,
    live: jax.Array,
) -> jax.Array:
    """Runs the network and makes the step.

    Args:
        group: the tensors.
        packed: their values.
        moments: (n, 30) second moments of the inputs.
        weights: the MLP of every tensor.
        step_size: (n,) multiplier of the tensor's step.
        live: see ``over_tiles``.

    Returns:
        (tiles, rows, columns) new parameters less old ones.
    """
    w0 = weights.w0 * jax.lax.rsqrt(1e-5 + moments)[:, :, None]
    parts = [w0, weights.b0, weights.w1, weights.b1, weights.w2, weights.b2, step_size * _STEP]
    flat = jnp.concatenate([x.reshape(x.shape[0], -1) for x in parts], axis=1)
    inputs = (
        packed.grads,
        packed.averages.momentum,
        packed.averages.rms,
        scale_sources(group, packed),
        _offset_sources(group, packed.averages, w0),
        jnp.take(flat, group.tensor, axis=0),
    )
    made, _ = over_tiles(_change_tiles, packed.params, inputs, chunk=group.chunk, live=live)
    return made


def _change_tiles(params: jax.Array, inputs: tuple[Any, ...]) -> tuple[jax.Array, tuple[()]]:
    grads, momentum, rms, sources, offset_sources, flat = inputs
    parts = jnp.split(flat, np.cumsum([120, 4, 16, 4, 12, 3]), axis=1)
    shapes = [(30, 4), (4,), (4, 4), (4,), (4, 3), (3,), ()]
    w0, b0, w1, b1, w2, b2, step_size = (
        p.reshape(-1, *shape)[..., None, None] for p, shape in zip(parts, shapes, strict=True)
    )
    gradient, of_momentum = scales(sources)
    root = jax.lax.rsqrt(rms + 1e-6)
    clipped = jnp.clip(grads, -0.1, 0.1)

    def hidden(h: int, offset: jax.Array) -> jax.Array:
        """Unit h of the first layer; factors that inputs share are taken out of the sums."""
        w = w0[:, :, h]
        y = offset + b0[:, h] + clipped * w[:, 1] + params * w[:, 2]
        y = y + rms * w[:, 6] + root * w[:, 10]
        factor = w[:, 0] + root * w[:, 14]
        for i in range(3):
            factor = factor + gradient[:, i] * w[:, 11 + i]
            per_momentum = w[:, 3 + i] + root * w[:, 7 + i] + of_momentum[:, i] * w[:, 27 + i]
            y = y + momentum[:, i] * per_momentum
        return jax.nn.relu(y + grads * factor)

    def affine(x: list[jax.Array], weight: jax.Array, bias: jax.Array, unit: int) -> jax.Array:
        y = bias[:, unit]
        for k, z in enumerate(x):
            y = y + z * weight[:, k, unit]
        return y

    offsets = _offsets(offset_sources, w0)
    x = [hidden(h, offset) for h, offset in enumerate(offsets)]
    x = [jax.nn.relu(affine(x, w1, b1, unit)) for unit in range(MLP_WIDTH)]
    direction, magnitude = (affine(x, w2, b2, unit) for unit in range(2))
    step = step_size * (direction * jnp.exp(_EXPONENT * magnitude))
    return (params - step) - params, ()


def _offset_sources(group: Group, state: TensorState, w0: jax.Array) -> tuple[jax.Array, ...]:
    """The arguments of ``_offsets``, by tile."""
    if isinstance(state, VectorState):
        return (state.diagonal,)
    row, column, rs_row, rs_column = (w0[:, s] for s in (_ROW, _COLUMN, _RS_ROW, _RS_COLUMN))
    of_rows = jnp.concatenate([row, rs_row], axis=1)
    of_columns = jnp.concatenate([column, rs_column], axis=1)
    swapped = group.swapped[:, None, None]

    def per_block(x: jax.Array, blocks: Blocks, table: jax.Array) -> jax.Array:
        both = jnp.concatenate([x, jax.lax.rsqrt(x + 1e-8)], axis=1)
        table = jnp.take(table, blocks.tensor, axis=0)
        return (both[:, :, None, :] * table[:, :, :, None]).sum(1)

    by_row = per_block(state.rows, group.by_row, jnp.where(swapped, of_columns, of_rows))
    by_column = per_block(state.columns, group.by_column, jnp.where(swapped, of_rows, of_columns))
    return beside_tiles(group, by_row, by_column)


def _offsets(sources: tuple[jax.Array, ...], w0: jax.Array) -> list[jax.Array]:
    """Part of row and column inputs in each unit of the first layer, (tiles, rows, columns)."""
    if len(sources) == 2:
        rows, columns = sources
        return [rows[:, h, :, None] + columns[:, h, None, :] for h in range(MLP_WIDTH)]
    (diagonal,) = sources
    root = jax.lax.rsqrt(diagonal + 1e-8)
    direct, inverse = w0[:, _ROW] + w0[:, _COLUMN], w0[:, _RS_ROW] + w0[:, _RS_COLUMN]
    return [(diagonal * direct[:, :, h] + root * inverse[:, :, h]).sum(1) for h in range(MLP_WIDTH)]
