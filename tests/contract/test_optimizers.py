"""What every registered optimizer must do; a new one is tested without a line here."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TinyWorkload

from timetrial.framework import callbacks as cb
from timetrial.framework.budget import Budget, StopReason
from timetrial.framework.entries import Horizon
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.optimizers import OPTIMIZERS

HORIZON = Horizon(step_hint=200, steps=200)
PARAMS = {
    "scalar": jnp.float32(0.3),
    "vector": jnp.linspace(-1, 1, 5),
    "matrix": jnp.linspace(-1, 1, 12).reshape(3, 4),
    "kernel": jnp.linspace(-1, 1, 54).reshape(3, 3, 2, 3),
    "empty": {},
}

# The variants of VeLO make the same update as VeLO itself, and compile for as long.
VARIANTS = ("velo_short", "velo_feed")
every_optimizer = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in VARIANTS else n for n in OPTIMIZERS],
)


def make(name: str) -> optax.GradientTransformationExtraArgs:
    entry = OPTIMIZERS[name]
    return optax.with_extra_args_support(entry.make(entry.settings(), HORIZON))


def step(tx, params, state, fraction=1.0):
    grads = jax.tree.map(lambda p: 0.1 * p + 0.01, params)
    updates, state = tx.update(
        grads, state, params, value=jnp.float32(1.0), remaining_fraction=jnp.float32(fraction)
    )
    return optax.apply_updates(params, updates), state


@every_optimizer
def test_settings_are_frozen_and_described(name: str):
    entry = OPTIMIZERS[name]
    settings = entry.settings()
    assert dataclasses.is_dataclass(settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, dataclasses.fields(settings)[0].name, 1)
    assert entry.summary
    assert "\n" not in entry.summary


@every_optimizer
def test_keeps_shapes_and_dtypes_and_moves_every_tensor(name: str):
    tx, params = make(name), PARAMS
    state = tx.init(params)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for _ in range(3):
        params, state = step(tx, params, state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
    for old, new in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(params), strict=True):
        assert new.shape == old.shape
        assert new.dtype == old.dtype
        assert bool(jnp.all(jnp.isfinite(new)))
        assert not np.array_equal(new, old)


@every_optimizer
def test_the_same_compiled_or_not_and_under_scan(name: str):
    tx = make(name)

    def scanned(params):
        def body(carry, _):
            return step(tx, *carry), None

        return jax.lax.scan(body, (params, tx.init(params)), length=4)[0][0]

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(4):
        params, state = jax.jit(step, static_argnums=0)(tx, params, state)
    for one, other in zip(
        jax.tree.leaves(params), jax.tree.leaves(jax.jit(scanned)(PARAMS)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-7)


@every_optimizer
def test_vmap_over_seeds_is_the_loop_over_seeds(name: str):
    tx = make(name)
    many = jax.tree.map(lambda p: jnp.stack([p, 2 * p, p - 1]), PARAMS)

    def two_steps(params):
        state = tx.init(params)
        for _ in range(2):
            params, state = step(tx, params, state)
        return params

    together = jax.jit(jax.vmap(two_steps))(many)
    for i in range(3):
        alone = jax.jit(two_steps)(jax.tree.map(lambda p, i=i: p[i], many))
        for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(one, other[i], rtol=2e-5, atol=1e-7)


@every_optimizer
def test_works_in_a_chain_and_masked(name: str):
    tx = optax.chain(optax.clip_by_global_norm(1.0), make(name))
    params, _ = step(tx, PARAMS, tx.init(PARAMS))
    mask = {"scalar": False, "vector": True, "matrix": True, "kernel": False, "empty": {}}
    masked = optax.with_extra_args_support(optax.masked(make(name), mask))
    state = masked.init(PARAMS)
    _, state = step(masked, PARAMS, state)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((params, state)))


@every_optimizer
def test_trains_the_tiny_workload_and_repeats_bitwise(name: str):
    workload = TinyWorkload(step_hint=200, eval_every_steps=100)
    program = Program(workload, make(name))
    results = [
        Trainer(
            program,
            Budget(steps=200),
            [cb.StopIfDiverged(), cb.StopAtBudget(), cb.FeedRemainingFraction()],
        ).fit(program.init(0))
        for _ in range(2)
    ]
    first, again = results
    assert first.reason is StopReason.BUDGET
    before, after = (first.evaluations[i].metrics["train/loss"] for i in (0, -1))
    assert after < 0.9 * before
    np.testing.assert_array_equal(first.state.params["w"], again.state.params["w"])
