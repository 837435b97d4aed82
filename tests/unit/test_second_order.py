"""SOAP and Distributed Shampoo on gradients that break such methods; blocks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial.optimizers.blocks import Blocks, merged
from timetrial.optimizers.distributed_shampoo import Rule, scale_by_shampoo
from timetrial.optimizers.linalg import eigh, orthonormal
from timetrial.optimizers.soap import scale_by_soap

SOAP = scale_by_soap(precondition_frequency=4, max_precond_dim=100)
SHAMPOO = scale_by_shampoo(Rule(precondition_frequency=4, start_step=2, max_precond_dim=20_000))


def table(step: int) -> np.ndarray:
    """Gradient of an embedding: 20 of 600 rows are used."""
    random, grad = np.random.default_rng(step), np.zeros((600, 8), np.float32)
    grad[random.integers(0, 600, 20)] = 1e-3 * random.normal(size=(20, 8))
    return grad


def dead(step: int) -> np.ndarray:
    """Half of the units are dead in turns."""
    grad = np.random.default_rng(step).normal(size=(8, 6)).astype(np.float32)
    grad[:, :3] *= (step // 7) % 2
    grad[4:] *= (step // 5) % 2
    return grad


def nothing(step: int) -> np.ndarray:
    return np.zeros((8, 6), np.float32)


def late(step: int) -> np.ndarray:
    """No gradient at all in the first updates, when the eigenbasis is set."""
    return dead(step) * (step > 5)


@pytest.mark.parametrize("tx", [SOAP, SHAMPOO], ids=["soap", "shampoo"])
def test_updates_stay_small_for_sparse_dead_and_missing_gradients(tx: Any):
    kinds = {"table": table, "dead": dead, "nothing": nothing, "late": late}

    def gradients(step: int) -> dict[str, np.ndarray]:
        return {name: make(step) for name, make in kinds.items()}

    state, update = tx.init(gradients(0)), jax.jit(tx.update)
    for step in range(40):
        made, state = update(gradients(step), state)
        for name, values in made.items():
            assert np.all(np.isfinite(values)), (step, name)
            assert np.max(np.abs(values)) < 30, (step, name)
        assert not np.any(made["nothing"])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


def test_soap_updates_a_table_as_long_as_that_of_the_flights_only_by_its_columns():
    tx = scale_by_soap()
    state = tx.init({"table": jax.ShapeDtypeStruct((20_608, 8), jnp.float32)})
    assert [basis.shape for basis in state.tensors["table"].bases] == [(8, 8)]


def test_soap_updates_vectors_and_scalars_as_adam_does_after_a_first_update_of_zero():
    tx, adam = scale_by_soap(0.9, 0.99), optax.scale_by_adam(0.9, 0.99)
    grads = [{"v": np.float32([t, -1.0]), "s": np.float32(0.1 * t)} for t in range(1, 5)]
    state, other = tx.init(grads[0]), adam.init(grads[0])
    made, state = tx.update(grads[0], state)
    assert not np.any(made["v"])
    other = other._replace(count=other.count + 1)  # the first update counts
    for grad in grads[1:]:
        made, state = tx.update(grad, state)
        expected, other = adam.update(grad, other)
        np.testing.assert_allclose(made["v"], expected["v"], rtol=1e-5)
        np.testing.assert_allclose(made["s"], expected["s"], rtol=1e-5)


def test_a_gradient_that_is_not_finite_stays_visible():
    grad = {"m": np.full((3, 2), np.nan, np.float32)}
    for tx in (SOAP, SHAMPOO):
        state, update = tx.init(grad), jax.jit(tx.update)
        for _ in range(2):
            made, state = update(grad, state)
        assert np.all(np.isnan(made["m"]))


@pytest.mark.parametrize(
    ("shape", "limit", "expected"),
    [
        ((1, 2, 512, 1, 2048, 1, 3, 4), 1024, (1024, 2048, 12)),
        ((1, 2, 768, 1, 2048), 1024, (2, 768, 2048)),
        ((3, 3, 2, 4), 0, (3, 3, 2, 4)),
        ((1, 1), 4096, (1,)),
    ],
)
def test_neighbouring_axes_are_merged_while_they_are_small(shape: Any, limit: int, expected: Any):
    assert merged(shape, limit) == expected


@pytest.mark.parametrize("shape", [(7,), (5, 3), (9, 4, 5), (1, 1), (8, 8)])
def test_blocks_are_the_parts_of_a_tensor_and_give_it_back(shape: tuple[int, ...]):
    tensor = jnp.arange(float(np.prod(shape))).reshape(shape) + 1
    blocks = Blocks(shape, block_size=4, merge_dims=0)
    parts = blocks.split(tensor)
    assert parts.shape == (blocks.number, *blocks.block)
    np.testing.assert_array_equal(blocks.join(parts), tensor)
    assert float(jnp.sum(parts)) == float(jnp.sum(tensor))  # padded with zeros
    first = tensor.reshape(blocks.merged)[tuple(slice(size) for size in blocks.block)]
    np.testing.assert_array_equal(parts[0], first)


def test_decompositions_of_several_stacks_at_once_end():
    # Batched calls of LAPACK block each other on a pool of two threads.
    stacks = [jax.random.normal(jax.random.key(i), (6, 20, 20)) for i in range(6)]

    @jax.jit
    def decomposed(stacks: Any) -> Any:
        symmetric = [stack @ stack.mT for stack in stacks]
        return [(s, jax.vmap(eigh)(s), jax.vmap(orthonormal)(s)) for s in symmetric]

    for given, (values, vectors), columns in decomposed(stacks):
        again = (vectors * values[:, None, :]) @ vectors.mT
        np.testing.assert_allclose(again, given, rtol=1e-3, atol=1e-3)
        eye = np.broadcast_to(np.eye(20, dtype=np.float32), (6, 20, 20))
        np.testing.assert_allclose(columns.mT @ columns, eye, atol=1e-4)
