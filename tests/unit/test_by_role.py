"""Rules by role: decay without vectors, embeddings without preconditioner."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from timetrial.framework.entries import Horizon
from timetrial.optimizers import OPTIMIZERS

HORIZON = Horizon(step_hint=40, steps=40)
PARAMS = {
    "Dense_0": {"kernel": jnp.full((4, 3), 0.5), "bias": jnp.full(3, 0.5)},
    "LayerNorm_0": {"scale": jnp.full(3, 0.5)},
    "embedding_table": jnp.full((6, 3), 0.5),
    "temperature": jnp.float32(0.5),
}
GRADS = jax.tree.map(lambda p: 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), PARAMS)
DECAYING = ("adamw", "lion", "cautious_nadamw", "ademamix", "adopt", "soap", "muon",
            "distributed_shampoo")  # fmt: skip


def after(name: str, updates: int = 3, **settings: Any) -> Any:
    """Parameters after updates of one optimizer with constant gradients."""
    entry = OPTIMIZERS[name]
    tx = entry.build(entry.settings(**settings), HORIZON).tx

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        changes, state = tx.update(GRADS, state, params)
        return jax.tree.map(lambda p, u: p + u, params, changes), state

    params, state = PARAMS, jax.jit(tx.init)(PARAMS)
    for _ in range(updates):
        params, state = step(params, state)
    return params


def moved_by_decay(name: str, **settings: Any) -> set[str]:
    """Names of the tensors on which weight decay has an effect."""
    plain = after(name, **{**settings, "weight_decay": 0.0})
    decayed = after(name, **{**settings, "weight_decay": 0.5})
    pairs = zip(
        jax.tree_util.tree_flatten_with_path(plain)[0], jax.tree.leaves(decayed), strict=True
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, one), two in pairs
        if not np.allclose(one, two, rtol=1e-6, atol=0)
    }


@pytest.mark.parametrize(
    "name", ["adamw", *(pytest.param(n, marks=pytest.mark.slow) for n in DECAYING[1:])]
)
def test_decay_leaves_vectors_out_where_it_is_told_to(name: str):
    given = {"learning_rate": 1e-2}
    matrices = {"Dense_0/kernel", "embedding_table"}
    if name == "muon":  # its own decay is that of hidden matrices
        matrices -= {"embedding_table"}
    assert moved_by_decay(name, decay_vectors=False, **given) == matrices
    if name != "muon":
        vectors = {"Dense_0/bias", "LayerNorm_0/scale", "temperature"}
        assert moved_by_decay(name, **given) == matrices | vectors


@pytest.mark.slow
@pytest.mark.parametrize("name", ["soap", "distributed_shampoo"])
def test_embeddings_get_no_preconditioner_where_they_are_told_to(name: str):
    entry = OPTIMIZERS[name]

    def sizes(embeddings: bool) -> int:
        settings = entry.settings(embeddings=embeddings)
        state = jax.eval_shape(entry.build(settings, HORIZON).tx.init, PARAMS)
        return sum(leaf.size for leaf in jax.tree.leaves(state))

    assert sizes(False) < sizes(True)
    settings = {"learning_rate": 1e-2, "precondition_frequency": 2, "embeddings": False}
    if name == "distributed_shampoo":
        settings["start_step"] = 2
    found, whole = after(name, 5, **settings), after(name, 5, **{**settings, "embeddings": True})
    assert not np.allclose(found["embedding_table"], whole["embedding_table"])
    np.testing.assert_allclose(found["Dense_0"]["kernel"], whole["Dense_0"]["kernel"], rtol=1e-5)


def test_the_setting_is_one_of_every_optimizer_with_decoupled_decay():
    for name in DECAYING:
        fields = {field.name for field in dataclasses.fields(OPTIMIZERS[name].settings)}
        assert {"decay_vectors", "weight_decay"} <= fields
    having = [n for n, e in OPTIMIZERS.built_in.items() if hasattr(e.settings, "decay_vectors")]
    assert sorted(having) == sorted(DECAYING)  # no other one has a setting without effect
