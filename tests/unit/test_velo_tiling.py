"""Tensors as tiles, and functions over them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from timetrial.optimizers.velo.tiling.chunks import at_once, over_tiles
from timetrial.optimizers.velo.tiling.tiles import make_tiling

SHAPES = (
    *[(3, 3, 8, 70)] * 9,  # so many alike are copied by a loop
    (70, 130),
    (5,),
    *[(130, 70)] * 3,
    (),
    *[(40,)] * 9,
    (0, 3),
    *[(64, 64)] * 8,
)


def _tensors(dtype: jnp.dtype) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]


@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_packed_is_unpacked(dtype: jnp.dtype, divide: bool) -> None:
    tensors = _tensors(dtype)
    tiling = make_tiling(SHAPES, divide=divide)
    found = {}
    for group in tiling.groups:
        packed = group.pack(tensors)
        assert packed.shape == (group.tiles, *group.tile)
        assert packed.dtype == jnp.float32
        found |= dict(zip((v.leaf for v in group.views), group.unpack(packed), strict=True))
        assert group.tiles % group.chunk == 0
        # Padding is zero: the sum of the tiles is that of the tensors.
        total = sum(float(jnp.abs(tensors[v.leaf].astype(jnp.float32)).sum()) for v in group.views)
        assert float(jnp.abs(packed).sum()) == pytest.approx(total, rel=1e-5)
    assert sorted(found) == [i for i, shape in enumerate(SHAPES) if 0 not in shape]
    for i, x in found.items():
        np.testing.assert_array_equal(x, tensors[i].astype(jnp.float32))


def test_tensors_are_prepared_when_packed() -> None:
    tensors = _tensors(jnp.dtype(jnp.float32))

    def prepare(x: jax.Array) -> jax.Array:
        return jnp.clip(x, -0.5, 0.5)

    for group in make_tiling(SHAPES).groups:
        np.testing.assert_array_equal(group.pack(tensors, prepare), prepare(group.pack(tensors)))


def _decayed(state: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
    x, scale = inputs
    return state - jnp.sin(x) * scale[:, None]


def test_a_function_at_once_has_its_values_and_its_derivatives() -> None:
    rng = np.random.default_rng(1)
    state, x = (jnp.asarray(rng.standard_normal((6, 5)), jnp.float32) for _ in range(2))
    scale = jnp.arange(6, dtype=jnp.float32)

    def plain(state: jax.Array, x: jax.Array, scale: jax.Array) -> jax.Array:
        return (_decayed(state, (x, scale)) ** 2).sum()

    def here(state: jax.Array, x: jax.Array, scale: jax.Array) -> jax.Array:
        live = jnp.logical_not(x[0, 0] < -jnp.inf)
        return (at_once(_decayed, state, (x, scale), live=live) ** 2).sum()

    for number in range(3):
        wanted = jax.jit(jax.value_and_grad(plain, argnums=number))(state, x, scale)
        found = jax.jit(jax.value_and_grad(here, argnums=number))(state, x, scale)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)
    lanes = jnp.stack([state, 2 * state])
    wanted = jax.vmap(plain, in_axes=(0, None, None))(lanes, x, scale)
    found = jax.vmap(here, in_axes=(0, None, None))(lanes, x, scale)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("live", [None, True])
@pytest.mark.parametrize("chunk", [2, 3, 6])
def test_chunks_do_not_change_results(chunk: int, live: bool | None) -> None:
    x = jnp.arange(30.0).reshape(6, 5)

    def function(state: tuple[()], x: jax.Array) -> tuple[tuple[()], jax.Array]:
        return state, jnp.cumsum(x, 1) * x

    alive = None if live is None else jnp.asarray(live)
    state, found = jax.jit(lambda x: over_tiles(function, (), x, chunk=chunk, live=alive))(x)
    assert state == ()
    np.testing.assert_array_equal(found, function((), x)[1])


@pytest.mark.parametrize("tiles", [65, 101, 257, 1009, 1922, 6258])
def test_few_tiles_are_empty(tiles: int) -> None:
    (group,) = make_tiling(((64, 64 * tiles),), ((64, 64),), divide=False).groups
    assert 16 < group.chunk <= 64
    assert group.chunk % 2 == 0
    assert 0 <= group.tiles - tiles <= 4
