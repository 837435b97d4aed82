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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.velo.accumulators import (
    FactoredState,
    TensorState,
    TileSums,
    VectorState,
    inside,
    mean,
)
from timetrial.optimizers.velo.layout import MLP_WIDTH
from timetrial.optimizers.velo.network import MlpWeights
from timetrial.optimizers.velo.tiling.chunks import over_tiles
from timetrial.optimizers.velo.tiling.tiles import Blocks, Group

_STEP = 1e-3
_EXPONENT = 1e-3
_ROW, _COLUMN, _RS_ROW, _RS_COLUMN = (slice(i, i + 3) for i in (15, 18, 21, 24))


class Factors(NamedTuple):
    """What gradient and momentum are multiplied by: the inverse root of the second moment.

    It is a row factor times a column factor, for factored tensors.

    Attributes:
        rows: (row blocks, 3, rows).
        columns: (column blocks, 3, columns).
    """

    rows: jax.Array
    columns: jax.Array


def factors(group: Group, state: TensorState) -> Factors | None:
    """Adafactor's inverse root of the second moment; ``None`` for vectors, which need none.

    The statistic that is a mean over the largest axis (d0) is divided by its own mean; which of
    the two that is depends on which way round the largest axes are.
    """
    if isinstance(state, VectorState):
        return None
    rows = np.array([v.rows for v in group.views], np.float32)
    columns = np.array([v.columns for v in group.views], np.float32)

    def factor(x: jax.Array, blocks: Blocks, length: np.ndarray, relative: np.ndarray) -> jax.Array:
        sums = jnp.where(blocks.mask[:, None], x, 0.0).sum(2)
        total = jnp.take(blocks.sum_matrix(sums), blocks.matrix, axis=0)
        average = total / length[blocks.tensor][:, None]
        ratio = x / (average[:, :, None] + 1e-9)
        x = jnp.where(relative[blocks.tensor][:, None, None], ratio, x)
        return jax.lax.rsqrt(jnp.maximum(x, 1e-9))

    return Factors(
        factor(state.rows, group.by_row, rows, ~group.swapped),
        factor(state.columns, group.by_column, columns, group.swapped),
    )


def _beside(group: Group, by_row: jax.Array, by_column: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The row and column blocks beside every tile."""
    rows = jnp.take(by_row, group.by_row.of_tile, axis=0)
    return rows, jnp.take(by_column, group.by_column.of_tile, axis=0)


def _scale_sources(
    group: Group, state: TensorState, factor: Factors | None
) -> tuple[jax.Array, ...]:
    """What ``_scales`` needs, by tile."""
    if isinstance(state, VectorState):
        return (state.diagonal,)
    assert factor is not None
    return _beside(group, *factor)


def _scales(sources: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Inverse roots (tiles, 3, rows, columns) for the gradient and for the momentum."""
    if len(sources) == 1:
        (diagonal,) = sources
        gradient = jax.lax.rsqrt(jnp.maximum(diagonal + 1e-9, 1e-9))
        return gradient, jax.lax.rsqrt(diagonal)
    rows, columns = sources
    both = rows[:, :, :, None] * columns[:, :, None, :]
    return both, both


def second_moments(
    group: Group,
    grads: jax.Array,
    state: TensorState,
    factor: Factors | None,
    sums: TileSums,
    live: jax.Array,
) -> jax.Array:
    """Means over each tensor of the squares of the thirty inputs.

    Args:
        group: where the tensors are.
        grads: (tiles, rows, columns), clipped.
        state: averages after the update.
        factor: see ``factors``.
        sums: what was found while updating the averages.
        live: see ``over_tiles``.

    Returns:
        (n, 30).
    """
    masks = (jnp.asarray(group.rows), jnp.asarray(group.columns))
    _, more = over_tiles(
        _scaled_tiles,
        (),
        (grads, state.momentum, _scale_sources(group, state, factor), masks),
        chunk=group.chunk,
        live=live,
    )
    direct = mean(group, sums.inputs)
    scaled = mean(group, more)
    square = mean(group, sums.params)[:, None]
    if isinstance(state, VectorState):
        row, rs_row = scaled[:, 6:9], scaled[:, 9:12]
        statistics = [row, row, rs_row, rs_row]
    else:
        statistics = _factor_moments(group, state)
    return jnp.concatenate(
        [
            *(direct[:, :2], square, direct[:, 2:10], scaled[:, :3], direct[:, 10:]),
            *statistics,
            scaled[:, 3:6],
        ],
        axis=1,
    )


def _scaled_tiles(state: tuple[()], inputs: tuple[Any, ...]) -> tuple[tuple[()], jax.Array]:
    """Sums over tiles of the squared inputs that are scaled by the second moment."""
    grads, momentum, sources, (rows, columns) = inputs
    gradient, of_momentum = _scales(sources)
    squares = [(grads[:, None] * gradient) ** 2, (momentum * of_momentum) ** 2]
    if len(sources) == 1:
        mask = inside(rows, columns, grads.shape[1:])[:, None]
        (diagonal,) = sources
        squares += [jnp.where(mask, diagonal**2, 0.0)]
        squares += [jnp.where(mask, jax.lax.rsqrt(diagonal + 1e-8) ** 2, 0.0)]
    return state, jnp.concatenate([x.sum((2, 3)) for x in squares], 1)


def _factor_moments(group: Group, state: FactoredState) -> list[jax.Array]:
    """Moments of row, column and their inverse roots, each (n, 3)."""

    def moments(x: jax.Array, blocks: Blocks, lengths: list[int]) -> jax.Array:
        both = jnp.concatenate([x, jax.lax.rsqrt(x + 1e-8)], axis=1)
        sums = jnp.where(blocks.mask[:, None], both * both, 0.0).sum(2)
        return blocks.sum_tensor(sums) / np.array(lengths, np.float32)[:, None]

    by_row = moments(state.rows, group.by_row, [v.batches * v.rows for v in group.views])
    by_column = moments(
        state.columns, group.by_column, [v.batches * v.columns for v in group.views]
    )
    row = jnp.where(group.swapped[:, None], by_column, by_row)
    column = jnp.where(group.swapped[:, None], by_row, by_column)
    return [row[:, :3], column[:, :3], row[:, 3:], column[:, 3:]]


def changes(
    group: Group,
    grads: jax.Array,
    params: jax.Array,
    state: TensorState,
    factor: Factors | None,
    moments: jax.Array,
    weights: MlpWeights,
    step_size: jax.Array,
    live: jax.Array,
) -> jax.Array:
    """Runs the network and makes the step.

    Args:
        group: where the tensors are.
        grads: (tiles, rows, columns), clipped.
        params: (tiles, rows, columns).
        state: averages after the update.
        factor: see ``factors``.
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
        grads,
        state.momentum,
        state.rms,
        _scale_sources(group, state, factor),
        _offset_sources(group, state, w0),
        jnp.take(flat, group.tensor, axis=0),
    )
    params, _ = over_tiles(_change_tiles, params, inputs, chunk=group.chunk, live=live)
    return params


def _change_tiles(params: jax.Array, inputs: tuple[Any, ...]) -> tuple[jax.Array, tuple[()]]:
    grads, momentum, rms, scale_sources, offset_sources, flat = inputs
    parts = jnp.split(flat, np.cumsum([120, 4, 16, 4, 12, 3]), axis=1)
    shapes = [(30, 4), (4,), (4, 4), (4,), (4, 3), (3,), ()]
    w0, b0, w1, b1, w2, b2, step_size = (
        p.reshape(-1, *shape)[..., None, None] for p, shape in zip(parts, shapes, strict=True)
    )
    gradient, of_momentum = _scales(scale_sources)
    root = jax.lax.rsqrt(rms + 1e-6)
    clipped = jnp.clip(grads, -0.1, 0.1)

    def hidden(h: int, offset: jax.Array) -> jax.Array:
        """Unit h of the first layer, the products that inputs share taken out of the sums."""
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
    """What ``_offsets`` needs, by tile."""
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
    return _beside(group, by_row, by_column)


def _offsets(sources: tuple[jax.Array, ...], w0: jax.Array) -> list[jax.Array]:
    """What row and column inputs add to each unit of the first layer, (tiles, rows, columns)."""
    if len(sources) == 2:
        rows, columns = sources
        return [rows[:, h, :, None] + columns[:, h, None, :] for h in range(MLP_WIDTH)]
    (diagonal,) = sources
    root = jax.lax.rsqrt(diagonal + 1e-8)
    direct, inverse = w0[:, _ROW] + w0[:, _COLUMN], w0[:, _RS_ROW] + w0[:, _RS_COLUMN]
    return [(diagonal * direct[:, :, h] + root * inverse[:, :, h]).sum(1) for h in range(MLP_WIDTH)]
