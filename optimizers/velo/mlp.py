"""The per-parameter network, and the step it makes.

Boundary: arithmetic on one group of tiles; ``network`` makes the weights.

The second moments, by which the network sees its inputs normalised, are folded into the weights of
the first layer. Inputs of a row or a column alone pass the first layer once per row or column. The
rest is written out elementwise, so that XLA makes one loop of inputs, network and step.

Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.velo.accumulators import TensorState, VectorState
from timetrial.optimizers.velo.inputs import Packed, scale, scale_sources, scales
from timetrial.optimizers.velo.layout import MLP_OUTPUTS, MLP_WIDTH
from timetrial.optimizers.velo.tiling.chunks import at_once
from timetrial.optimizers.velo.tiling.lines import beside_tiles
from timetrial.optimizers.velo.tiling.segments import rows_of
from timetrial.optimizers.velo.tiling.tiles import Blocks, Group

_STEP = 1e-3
_EXPONENT = 1e-3
_B0, _W1, _B1, _W2, _B2, _SIZE = np.cumsum([120, 4, 16, 4, 12, 3]).tolist()
"""Places among the numbers of one tensor, of which the first are the 30 x 4 of layer 0."""

_ROW, _COLUMN, _RS_ROW, _RS_COLUMN = (slice(i, i + 3) for i in (15, 18, 21, 24))

Weight = Callable[[int], jax.Array]


class Elements(NamedTuple):
    """What the network sees of some elements of tensors, all of one shape.

    Attributes:
        params, grads, rms: before the step; the gradient clipped; the new average of its square.
        momentum: three averages of the gradient.
        gradient_scales, momentum_scales: three factors each; see ``scales``.
    """

    params: jax.Array
    grads: jax.Array
    momentum: Sequence[jax.Array]
    rms: jax.Array
    gradient_scales: Sequence[jax.Array]
    momentum_scales: Sequence[jax.Array]


def numbers(weights: jax.Array, multiplier: jax.Array) -> jax.Array:
    """All numbers of each tensor, (n, 160).

    Args:
        weights: (n, 159) of the MLP of each tensor.
        multiplier: (n,) of each tensor's step.
    """
    return jnp.concatenate([weights, (multiplier * _STEP)[:, None]], axis=1)


def changes(
    group: Group, packed: Packed, moments: jax.Array, own: jax.Array, live: jax.Array
) -> jax.Array:
    """Runs the network and makes the step.

    Args:
        group: the tensors.
        packed: their values.
        moments: (n, 30) second moments of the inputs.
        own: (n, 160) numbers of every tensor, see ``numbers``.
        live: see ``at_once``.

    Returns:
        (tiles, rows, columns) new parameters less old ones.
    """
    first = own[:, :_B0].reshape(*moments.shape, MLP_WIDTH)
    w0 = first * jax.lax.rsqrt(1e-5 + moments)[:, :, None]
    flat = jnp.concatenate([w0.reshape(-1, _B0), own[:, _B0:]], axis=1)
    inputs = (
        packed.grads,
        packed.averages.momentum,
        packed.averages.rms,
        scale_sources(group, packed),
        _offset_sources(group, packed.averages, w0),
        rows_of(flat, group.tensor),
    )
    kernel = _change_kernel if group.pallas else None
    return at_once(_change_tiles, packed.params, inputs, live=live, kernel=kernel)


def _change_tiles(params: jax.Array, inputs: tuple[Any, ...]) -> jax.Array:
    grads, momentum, rms, sources, offset_sources, flat = inputs
    gradient, of_momentum = scales(sources)
    step = _step(
        Elements(params, grads, _decays(momentum), rms, _decays(gradient), _decays(of_momentum)),
        _offsets(offset_sources),
        jax.lax.split(flat[:, :, None], [1] * flat.shape[1], axis=1).__getitem__,
    )
    return (params - step) - params


def _decays(x: jax.Array) -> list[jax.Array]:
    return [x[:, i] for i in range(3)]


def _change_kernel(state: Any, inputs: Any, new: Any, found: Any) -> None:
    """The Pallas kernel of ``_change_tiles``; its arguments are references to one tile."""
    del found
    grads, momentum, rms, sources, offset_sources, flat = inputs
    params = state[...]
    gradient, of_momentum = zip(*(scale(sources, i) for i in range(3)), strict=True)
    step = _step(
        Elements(
            params, grads[...], [momentum[i] for i in range(3)], rms[...], gradient, of_momentum
        ),
        _kernel_offsets(offset_sources),
        lambda i: flat[i],
    )
    new[...] = (params - step) - params


def _step(x: Elements, offsets: Sequence[jax.Array], weight: Weight) -> jax.Array:
    """Runs the network on some elements.

    Args:
        x: the elements.
        offsets: part of row and column inputs in each unit of the first layer.
        weight: maps the place of a number of the tensor to that number, to be broadcast.
    """
    root = jax.lax.rsqrt(x.rms + 1e-6)
    clipped = jnp.clip(x.grads, -0.1, 0.1)

    def hidden(h: int, offset: jax.Array) -> jax.Array:
        """Unit h of the first layer; factors that inputs share are taken out of the sums."""

        def w(i: int) -> jax.Array:
            return weight(MLP_WIDTH * i + h)

        y = offset + weight(_B0 + h) + clipped * w(1) + x.params * w(2)
        y = y + x.rms * w(6) + root * w(10)
        factor = w(0) + root * w(14)
        for i in range(3):
            factor = factor + x.gradient_scales[i] * w(11 + i)
            per_momentum = w(3 + i) + root * w(7 + i) + x.momentum_scales[i] * w(27 + i)
            y = y + x.momentum[i] * per_momentum
        return jax.nn.relu(y + x.grads * factor)

    def affine(x: list[jax.Array], first: int, bias: int, width: int, unit: int) -> jax.Array:
        y = weight(bias + unit)
        for k, z in enumerate(x):
            y = y + z * weight(first + width * k + unit)
        return y

    units = [hidden(h, offset) for h, offset in enumerate(offsets)]
    units = [jax.nn.relu(affine(units, _W1, _B1, MLP_WIDTH, unit)) for unit in range(MLP_WIDTH)]
    direction, magnitude = (affine(units, _W2, _B2, MLP_OUTPUTS, unit) for unit in range(2))
    return weight(_SIZE) * (direction * jnp.exp(_EXPONENT * magnitude))


def _offset_sources(group: Group, state: TensorState, w0: jax.Array) -> tuple[jax.Array, ...]:
    """The arguments of ``_offsets``, by tile."""
    row, column, rs_row, rs_column = (w0[:, s] for s in (_ROW, _COLUMN, _RS_ROW, _RS_COLUMN))

    def offsets(x: jax.Array, table: jax.Array) -> jax.Array:
        """(blocks, 4, length) from statistics (blocks, 3, length) and weights (blocks, 6, 4)."""
        both = jnp.concatenate([x, jax.lax.rsqrt(x + 1e-8)], axis=1)
        return (both[:, :, None, :] * table[:, :, :, None]).sum(1)

    if isinstance(state, VectorState):
        table = jnp.concatenate([row + column, rs_row + rs_column], axis=1)
        table = rows_of(table, group.tensor)
        return (offsets(state.diagonal[:, :, 0], table)[:, :, None],)
    of_rows = jnp.concatenate([row, rs_row], axis=1)
    of_columns = jnp.concatenate([column, rs_column], axis=1)
    swapped = group.swapped[:, None, None]

    def per_block(x: jax.Array, blocks: Blocks, table: jax.Array) -> jax.Array:
        return offsets(x, rows_of(table, blocks.tensor))

    by_row = per_block(state.rows, group.by_row, jnp.where(swapped, of_columns, of_rows))
    by_column = per_block(state.columns, group.by_column, jnp.where(swapped, of_rows, of_columns))
    return beside_tiles(group, by_row, by_column)


def _offsets(sources: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Part of row and column inputs in each unit of the first layer, (tiles, rows, columns)."""
    if len(sources) == 1:
        return [sources[0][:, h] for h in range(MLP_WIDTH)]
    rows, columns = sources
    return [rows[:, h, :, None] + columns[:, h, None, :] for h in range(MLP_WIDTH)]


def _kernel_offsets(sources: tuple[Any, ...]) -> list[jax.Array]:
    """``_offsets`` in a Pallas kernel, (rows, columns), from references to one tile."""
    if len(sources) == 1:
        return [sources[0][h] for h in range(MLP_WIDTH)]
    rows, columns = sources
    return [rows[h][:, None] + columns[h][None, :] for h in range(MLP_WIDTH)]
