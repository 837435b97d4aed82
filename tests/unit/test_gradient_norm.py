from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TinyWorkload

from timetrial.framework import update as module
from timetrial.framework.state import TrainState


@pytest.mark.parametrize("large", [False, True])
def test_only_a_large_model_computes_the_norm_apart(large: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "NORM_APART", 1 if large else 2**20)
    workload, tx = TinyWorkload(), optax.adam(0.1)
    params, model_state = workload.init(jax.random.key(0))
    zero, key = jnp.zeros((), jnp.int32), jax.random.key(1)
    state = TrainState(zero, params, model_state, tx.init(params), key)
    batch = workload.train_batch(0, 0)
    update = module.make_train_step(workload, tx)
    text = str(jax.make_jaxpr(update)(state, batch, {}))
    assert ("optimization_barrier" in text) == large
    new, metrics = jax.jit(update)(state, batch, {})
    grads, _ = jax.grad(workload.loss, has_aux=True)(params, model_state, batch, key)
    expected = np.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(grads)))
    assert float(metrics["grad_norm"]) == pytest.approx(expected, rel=1e-5)
    updates, _ = tx.update(grads, tx.init(params), params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        new.params, optax.apply_updates(params, updates),
    )  # fmt: skip
