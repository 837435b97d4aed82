"""The per-parameter network: its thirty inputs, their normalisation, and the step it makes.

Boundary: arithmetic on one group of tiles; what the weights are is decided elsewhere.

The inputs are never stored. Their second moments, by which the network sees each of them
normalised, are folded into the weights of the first layer; what depends on the row or the column
alone goes through the first layer once per row or column; the rest is written out elementwise, so
that XLA makes one loop of inputs, network and step.

Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optimizers.velo.accumulators import FactoredState, TensorState, VectorState, inside, sizes
from optimizers.velo.layout import MLP_WIDTH
from optimizers.velo.network import MlpWeights
from optimizers.velo.tiles import Blocks, Group

_STEP = 1e-3
_EXPONENT = 1e-3
_ROW, _COLUMN, _RS_ROW, _RS_COLUMN = (slice(i, i + 3) for i in (15, 18, 21, 24))


class Scales(NamedTuple):
    """What gradient and momentum are multiplied by: inverse roots of the second moment.

    Attributes:
        gradient, momentum: (3, tiles, rows, columns), or factors that broadcast to it.
    """

    gradient: jax.Array
    momentum: jax.Array


class FactorScales(NamedTuple):
    """Factors of the inverse root: (3, row blocks, rows) and (3, column blocks, columns)."""

    rows: jax.Array
    columns: jax.Array


def factor_scales(group: Group, state: FactoredState) -> FactorScales:
    """Adafactor's inverse root of the second moment, as a row factor times a column factor.

    The statistic that is a mean over the largest axis (d0) is divided by its own mean; which of
    the two that is depends on which way round the largest axes are.
    """
    rows = np.array([v.rows for v in group.views], np.float32)
    columns = np.array([v.columns for v in group.views], np.float32)
    swapped = np.array([v.swapped for v in group.views])

    def scale(x: jax.Array, blocks: Blocks, length: np.ndarray, relative: np.ndarray) -> jax.Array:
        masked = jnp.where(blocks.mask, x, 0.0).sum(2).T
        total = jnp.take(blocks.sum_matrix(masked), blocks.matrix, axis=0).T
        mean = total / length[blocks.tensor]
        ratio = x / (mean[:, :, None] + 1e-9)
        x = jnp.where(relative[blocks.tensor][:, None], ratio, x)
        return jax.lax.rsqrt(jnp.maximum(x, 1e-9))

    return FactorScales(
        scale(state.rows, group.by_row, rows, ~swapped),
        scale(state.columns, group.by_column, columns, swapped),
    )


def scales(group: Group, state: TensorState) -> Scales:
    """The scales of a group."""
    if isinstance(state, VectorState):
        gradient = jax.lax.rsqrt(jnp.maximum(state.diagonal + 1e-9, 1e-9))
        return Scales(gradient, jax.lax.rsqrt(state.diagonal))
    factors = factor_scales(group, state)
    both = _outer(group, factors.rows, factors.columns)
    return Scales(both, both)


def _outer(group: Group, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Products (3, tiles, rows, columns) of a row and a column statistic."""
    rows = jnp.take(rows, group.by_row.of_tile, axis=1)
    columns = jnp.take(columns, group.by_column.of_tile, axis=1)
    return rows[:, :, :, None] * columns[:, :, None, :]


def second_moments(
    group: Group, grads: jax.Array, state: TensorState, square: jax.Array
) -> jax.Array:
    """Means over each tensor of the squares of the thirty inputs.

    Args:
        group: where the tensors are.
        grads: (tiles, rows, columns), clipped.
        state: averages after the update.
        square: (n,) mean of the squared parameter, known already.

    Returns:
        (n, 30).
    """
    mask, size = inside(group), sizes(group).astype(np.float32)
    # Products of squares, not squares of the products that the network reads: were they the same
    # expressions, XLA would store all of them to use them twice.
    grads2, momentum2 = grads * grads, state.momentum * state.momentum
    inverse = 1.0 / (state.rms + 1e-6)
    if isinstance(state, VectorState):
        scale = scales(group, state)
        scaled_grads = (grads * scale.gradient) ** 2
        scaled_momentum = (state.momentum * scale.momentum) ** 2
        diagonal = _vector_moments(group, state.diagonal, mask)
        root = _vector_moments(group, jax.lax.rsqrt(state.diagonal + 1e-8), mask)
        factors = [diagonal, diagonal, root, root]
    else:
        scale2 = _outer(group, *(x * x for x in factor_scales(group, state)))
        scaled_grads, scaled_momentum = grads2 * scale2, momentum2 * scale2
        factors = _factor_moments(group, state)
    inputs2 = [
        grads2,
        jnp.clip(grads, -0.1, 0.1) ** 2,
        momentum2,
        state.rms**2,
        momentum2 * inverse,
        jnp.where(mask, inverse, 0.0),
        scaled_grads,
        grads2 * inverse,
        scaled_momentum,
    ]
    sums = [x.sum((-2, -1)).reshape(-1, group.tiles) for x in inputs2]
    means = group.sum_tensor(jnp.concatenate(sums).T) / size[:, None]
    return jnp.concatenate(
        [means[:, :2], square[:, None], means[:, 2:14], *factors, means[:, 14:]], axis=1
    )


def _vector_moments(group: Group, x: jax.Array, mask: jax.Array) -> jax.Array:
    sums = jnp.where(mask, x * x, 0.0).sum((2, 3))
    return group.sum_tensor(sums.T) / sizes(group).astype(np.float32)[:, None]


def _factor_moments(group: Group, state: FactoredState) -> list[jax.Array]:
    """Moments of row, column and their inverse roots, each (n, 3)."""
    swapped = np.array([v.swapped for v in group.views])[:, None]

    def moments(x: jax.Array, blocks: Blocks, lengths: list[int]) -> jax.Array:
        both = jnp.concatenate([x, jax.lax.rsqrt(x + 1e-8)])
        sums = jnp.where(blocks.mask, both * both, 0.0).sum(2).T
        return blocks.sum_tensor(sums) / np.array(lengths, np.float32)[:, None]

    by_row = moments(state.rows, group.by_row, [v.batches * v.rows for v in group.views])
    by_column = moments(
        state.columns, group.by_column, [v.batches * v.columns for v in group.views]
    )
    row = jnp.where(swapped, by_column, by_row)
    column = jnp.where(swapped, by_row, by_column)
    return [row[:, :3], column[:, :3], row[:, 3:], column[:, 3:]]


def steps(
    group: Group,
    grads: jax.Array,
    params: jax.Array,
    state: TensorState,
    moments: jax.Array,
    weights: MlpWeights,
    step_size: jax.Array,
) -> jax.Array:
    """Runs the network and makes the step that is taken from the parameters.

    Args:
        group: where the tensors are.
        grads: (tiles, rows, columns), clipped.
        params: (tiles, rows, columns).
        state: averages after the update.
        moments: (n, 30) second moments of the inputs.
        weights: the MLP of every tensor.
        step_size: (n,) multiplier of the tensor's step.

    Returns:
        (tiles, rows, columns) to subtract from the parameters.
    """
    w0 = weights.w0 * jax.lax.rsqrt(1e-5 + moments)[:, :, None]
    offsets = _first_layer_offsets(group, state, w0, weights.b0)
    scale = scales(group, state)
    root = jax.lax.rsqrt(state.rms + 1e-6)
    clipped = jnp.clip(grads, -0.1, 0.1)
    w1, w2 = weights.w1, weights.w2

    def per_tile(x: jax.Array) -> jax.Array:
        return jnp.take(x, group.tensor, axis=0)[:, None, None]

    def hidden(h: int) -> jax.Array:
        """Unit h of the first layer, the products that inputs share taken out of the sums."""
        w = [per_tile(w0[:, k, h]) for k in range(w0.shape[1])]
        y = offsets[h] + clipped * w[1] + params * w[2] + state.rms * w[6] + root * w[10]
        factor = w[0] + root * w[14]
        for i in range(3):
            factor = factor + scale.gradient[i] * w[11 + i]
            of_momentum = w[3 + i] + root * w[7 + i] + scale.momentum[i] * w[27 + i]
            y = y + state.momentum[i] * of_momentum
        return jax.nn.relu(y + grads * factor)

    def affine(x: list[jax.Array], weight: jax.Array, bias: jax.Array, unit: int) -> jax.Array:
        y = per_tile(bias[:, unit])
        for k, z in enumerate(x):
            y = y + z * per_tile(weight[:, k, unit])
        return y

    x = [hidden(h) for h in range(MLP_WIDTH)]
    x = [jax.nn.relu(affine(x, w1, weights.b1, unit)) for unit in range(MLP_WIDTH)]
    direction, magnitude = (affine(x, w2, weights.b2, unit) for unit in range(2))
    return per_tile(step_size * _STEP) * (direction * jnp.exp(_EXPONENT * magnitude))


def _first_layer_offsets(
    group: Group, state: TensorState, w0: jax.Array, b0: jax.Array
) -> list[jax.Array]:
    """Bias of the first layer with what the row and column inputs add, for each hidden unit."""
    row, column, rs_row, rs_column = (w0[:, s] for s in (_ROW, _COLUMN, _RS_ROW, _RS_COLUMN))
    if isinstance(state, VectorState):
        direct = jnp.concatenate([row + column, rs_row + rs_column], axis=1)
        table = jnp.take(direct, group.tensor, axis=0)
        bias = jnp.take(b0, group.tensor, axis=0)
        offsets = _contract(state.diagonal[:, :, 0], table)
        return [(offsets[h] + bias[:, h, None])[:, None, :] for h in range(MLP_WIDTH)]
    swapped = np.array([v.swapped for v in group.views])[:, None, None]
    of_rows = jnp.concatenate([row, rs_row], axis=1)
    of_columns = jnp.concatenate([column, rs_column], axis=1)

    def offsets_of(x: jax.Array, blocks: Blocks, table: jax.Array) -> list[jax.Array]:
        per_block = _contract(x, jnp.take(table, blocks.tensor, axis=0))
        return [jnp.take(y, blocks.of_tile, axis=0) for y in per_block]

    by_row = offsets_of(state.rows, group.by_row, jnp.where(swapped, of_columns, of_rows))
    by_column = offsets_of(state.columns, group.by_column, jnp.where(swapped, of_rows, of_columns))
    bias = jnp.take(b0, group.tensor, axis=0)
    return [
        (by_row[h] + bias[:, h, None])[:, :, None] + by_column[h][:, None, :]
        for h in range(MLP_WIDTH)
    ]


def _contract(x: jax.Array, table: jax.Array) -> list[jax.Array]:
    """Adds up a statistic (3, blocks, side) and its inverse roots with weights (blocks, 6, 4)."""
    both = [*x, *jax.lax.rsqrt(x + 1e-8)]
    return [
        sum((y * table[:, k, h, None] for k, y in enumerate(both)), jnp.zeros_like(x[0]))
        for h in range(MLP_WIDTH)
    ]
