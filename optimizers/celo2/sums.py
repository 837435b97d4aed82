"""Sums of many functions of the same arrays, read once.

Boundary: reductions over the last two axes; knows no optimizer.

XLA's CPU compiler makes one loop of a reduction with several operands, and of whatever makes these
operands. Separate sums read the arrays once each, and store what they sum. The loop is vectorised
where the reduced axis is short: here at most 8 long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

_LONGEST = 8
_SMALL = 4_096


def sums(
    function: Callable[..., Sequence[jax.Array]], arrays: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Sums of functions of arrays over the last two axes.

    Args:
        function: maps the arrays, or some rows of them, elementwise to k arrays that all have the
            shape of the broadcast arguments.
        arrays: arrays that broadcast against each other, of rank >= 2.

    Returns:
        The sums, (k, *leading axes), and those of the first function by column, (*leading axes,
        columns).
    """
    rows = max(x.shape[-2] for x in arrays)
    part, even = _split(rows)
    some = _partial_sums(function, [_rows(x, rows, 0, even) for x in arrays], part)
    found, by_column = _all_sums(some), some[0].sum(-2)
    if even < rows:
        rest = [_rows(x, rows, even, rows) for x in arrays]
        more = _partial_sums(function, rest, rows - even)
        found, by_column = found + _all_sums(more), by_column + more[0].sum(-2)
    return found, by_column


def _split(rows: int) -> tuple[int, int]:
    """Rows to add together, and the number of leading rows that this divides."""
    part = max(i for i in range(1, _LONGEST + 1) if rows % i == 0)
    if part < _LONGEST // 2 and rows > _LONGEST:
        return _LONGEST, rows - rows % _LONGEST
    return part, rows


def _rows(x: jax.Array, rows: int, first: int, last: int) -> jax.Array:
    """Some rows of an array that has all of them, or one for all."""
    return x[..., first:last, :] if x.shape[-2] == rows and last - first < rows else x


def _partial_sums(
    function: Callable[..., Sequence[jax.Array]], arrays: Sequence[jax.Array], part: int
) -> list[jax.Array]:
    """Sums over ``part`` rows each; the rows of the result are that many times fewer."""
    rows = max(x.shape[-2] for x in arrays)

    def cut(x: jax.Array) -> jax.Array:
        split = (part, rows // part) if x.shape[-2] == rows else (1, 1)
        return x.reshape(*x.shape[:-2], *split, x.shape[-1])

    terms = function(*map(cut, arrays))
    zero = np.zeros((), np.float32)
    found: tuple[jax.Array, ...] = jax.lax.reduce(
        tuple(terms),
        (zero,) * len(terms),
        lambda x, y: tuple(a + b for a, b in zip(x, y, strict=True)),
        (terms[0].ndim - 3,),
    )
    return list(found)


def _all_sums(some: list[jax.Array]) -> jax.Array:
    """The rest of the sums over the last two axes, (k, *leading axes)."""
    rows, columns = some[0].shape[-2:]
    part, even = _split(rows)
    while rows * columns > _SMALL and even == rows and part > 1:
        some = _partial_sums(lambda *x: x, some, part)
        rows = rows // part
        part, even = _split(rows)
    return jnp.stack(some).sum((-2, -1))


def tile_sums(
    function: Callable[..., Sequence[jax.Array]], arrays: Sequence[jax.Array]
) -> jax.Array:
    """Sums of functions of tiles over their rows, by column.

    Args:
        function: maps the arrays, or some rows of them, elementwise to k arrays.
        arrays: (tiles, rows, columns), where columns may be 1.

    Returns:
        (tiles, k, columns).
    """
    rows = max(x.shape[-2] for x in arrays)
    some = _partial_sums(function, arrays, _split(rows)[0])
    while (rows := some[0].shape[-2]) > 1 and _split(rows)[0] > 1:
        some = _partial_sums(lambda *x: x, some, _split(rows)[0])
    if rows > 1:
        some = [x.sum(-2, keepdims=True) for x in some]
    return jnp.concatenate(some, -2)
