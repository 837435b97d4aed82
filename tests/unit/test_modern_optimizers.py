"""Optimizers of 2026: which tensors, which point, which schedule; all of them on short horizons."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial.framework.entries import Horizon
from timetrial.framework.roles import Role
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.ademamix import AdemamixSettings
from timetrial.optimizers.cautious_nadamw import cautious
from timetrial.optimizers.muon import MuonSettings, make_muon
from timetrial.optimizers.precision import in_float32
from timetrial.optimizers.prodigy import ProdigySettings, make_prodigy
from timetrial.optimizers.schedule_free_adamw import (
    ScheduleFreeSettings,
    averages,
    make_schedule_free_adamw,
)

HORIZON = Horizon(step_hint=100, steps=100)


SCHEDULED = [n for n in OPTIMIZERS.built_in if hasattr(OPTIMIZERS[n].settings, "learning_rates")]


@pytest.mark.parametrize("step_hint", [1, 2, 10, 10**6])
@pytest.mark.parametrize("name", SCHEDULED)
def test_learning_rates_are_finite_and_not_zero_after_the_first_update(name: str, step_hint: int):
    settings = OPTIMIZERS[name].settings()
    rates = settings.learning_rates(Horizon(step_hint, step_hint))
    for made in (1, 2, step_hint):
        rate = float(rates(jnp.int32(made))) if callable(rates) else rates
        assert np.isfinite(rate), made
        assert rate > 0 or getattr(settings, "end_factor", 1.0) == 0, made


@pytest.mark.parametrize("step_hint", [1, 2, 10])
@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.9])
def test_schedule_free_moves_at_once_whatever_the_warm_up(step_hint: int, fraction: float):
    settings = ScheduleFreeSettings(warmup_fraction=fraction)
    tx = make_schedule_free_adamw(settings, Horizon(step_hint, step_hint))
    params = {"w": jnp.ones(3)}
    updates, _ = tx.update(params, tx.init(params), params)
    assert float(jnp.max(jnp.abs(updates["w"]))) > 0


@pytest.mark.parametrize("place", ["alone", "chain", "masked"])
def test_schedule_free_is_evaluated_at_the_weighted_average_of_its_iterates(place: str):
    settings = ScheduleFreeSettings(learning_rate=0.1, warmup_fraction=0.1)
    tx: Any = make_schedule_free_adamw(settings, HORIZON)
    if place == "chain":
        tx = optax.chain(optax.identity(), tx)
    elif place == "masked":
        tx = optax.masked(tx, {"w": True, "other": False})
    params = {"w": jnp.array([1.0, -2.0, 3.0]), "other": jnp.ones(2)}
    state, update = tx.init(params), jax.jit(tx.update)
    # Own arithmetic, in float64: z by Adam's steps without momentum, x as its weighted average.
    y = x = z = np.array([1.0, -2.0, 3.0])
    nu, total = np.zeros(3), 0.0
    for t in range(1, 31):
        grads = jax.tree.map(lambda p: 2 * p, params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, jax.tree.map(jnp.asarray, updates))
        rate, g = 0.1 * min(t / 7, 1.0), 2 * y
        nu = 0.999 * nu + 0.001 * g**2
        z = z - rate * g / (np.sqrt(nu / (1 - 0.999**t)) + 1e-8)
        total += rate**2
        x = x + rate**2 / total * (z - x)
        y = 0.9 * x + 0.1 * z
    found = averages(state, params)
    np.testing.assert_allclose(found["w"], x, rtol=2e-4, atol=2e-5)
    assert float(np.max(np.abs(x - np.asarray(params["w"])))) > 1e-3
    if place == "masked":
        np.testing.assert_array_equal(found["other"], params["other"])


TENSORS = {
    "dense": ((6, 4), Role.HIDDEN),
    "split": ((4, 2, 3), Role.HIDDEN),
    "conv": ((3, 3, 2, 4), Role.CONVOLUTION),
    "table": ((10, 4), Role.EMBEDDING),
    "last": ((4, 3), Role.HEAD),
    "scale": ((4,), Role.NORM),
    "bias": ((4,), Role.BIAS),
    "temperature": ((), Role.SCALAR),
}


def muon_updates(settings: MuonSettings, steps: int = 3) -> dict[str, np.ndarray]:
    roles = {name: role for name, (_, role) in TENSORS.items()}
    horizon = Horizon(100, 100, lambda params: {name: roles[name] for name in params})
    return run(make_muon(settings, horizon), steps)


def run(tx: Any, steps: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    params = {n: random.normal(size=s).astype(np.float32) for n, (s, _) in TENSORS.items()}
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(steps):
        grads = {n: random.normal(size=s).astype(np.float32) for n, (s, _) in TENSORS.items()}
        updates, state = update(grads, state, params)
    return {name: np.asarray(value) for name, value in updates.items()}


def test_muon_leaves_embeddings_heads_and_vectors_to_adamw():
    settings = MuonSettings(adamw_learning_rate=0.01, adamw_weight_decay=0.1, weight_decay=0.5)
    found = muon_updates(settings)
    rates = settings.adamw.learning_rates(HORIZON)
    adamw = run(optax.adamw(rates, 0.9, 0.95, 1e-10, weight_decay=0.1), 3)
    for name in ("split", "table", "last", "scale", "bias", "temperature"):
        np.testing.assert_allclose(found[name], adamw[name], rtol=1e-5, atol=1e-8, err_msg=name)
    for name in ("dense", "conv"):
        assert not np.allclose(found[name], adamw[name], rtol=0.1)


def test_muon_makes_orthogonal_updates_of_the_stated_size():
    settings = MuonSettings(learning_rate=1.0, warmup_fraction=0.0, end_factor=1.0)
    found = muon_updates(settings, steps=1)
    for name, rows in (("dense", 6), ("conv", 18)):
        values = np.linalg.svd(found[name].reshape(rows, 4), compute_uv=False)
        assert np.all((values > 0.6) & (values < 1.3)), name  # Newton-Schulz stays near 1
    same = muon_updates(
        MuonSettings(learning_rate=1.0, warmup_fraction=0.0, end_factor=1.0, consistent_rms=0.2), 1
    )
    np.testing.assert_allclose(same["conv"], 0.2 * 18**0.5 * found["conv"], rtol=1e-5)


def test_muon_without_convolutions_leaves_them_to_adamw():
    found = muon_updates(MuonSettings(convolutions=False))
    adamw = run(optax.adamw(MuonSettings().adamw.learning_rates(HORIZON), 0.9, 0.95, 1e-10,
                            weight_decay=0.0), 3)  # fmt: skip
    np.testing.assert_allclose(found["conv"], adamw["conv"], rtol=1e-5, atol=1e-8)


def test_cautious_updates_agree_in_sign_with_the_gradient_and_keep_their_mean_size():
    updates = {"w": jnp.array([1.0, -2.0, 3.0, 4.0])}
    given = optax.GradientTransformation(lambda p: (), lambda g, s, p=None: (updates, s))
    grads = {"w": jnp.array([1e-30, 1.0, -1.0, 5.0])}
    found, _ = cautious(given).update(grads, (), None)
    np.testing.assert_allclose(found["w"], [2.0, 0.0, 0.0, 8.0])
    nothing, _ = cautious(given).update({"w": jnp.zeros(4)}, (), None)
    np.testing.assert_array_equal(nothing["w"], np.zeros(4))


def test_the_slow_momentum_of_ademamix_rises_over_the_step_hint():
    settings = AdemamixSettings(b1=0.9, b3=0.999, alpha=6.0)
    decays, weights = settings.slow_decays(HORIZON), settings.slow_weights(HORIZON)
    made = jnp.arange(300)
    decay, weight = np.asarray(decays(made)), np.asarray(weights(made))
    assert np.all(np.diff(decay) >= -1e-7)
    np.testing.assert_allclose(decay[99:], 0.999, rtol=1e-6)
    np.testing.assert_allclose(weight[[0, 49, 99, 299]], [0.06, 3.0, 6.0, 6.0], rtol=1e-5)
    half_lives, first, last = (np.log(0.5) / np.log(b) for b in (decay[:99], 0.9, 0.999))
    np.testing.assert_allclose(half_lives, np.linspace(first, last, 101)[1:100], rtol=1e-2)
    for hint in (1, 10**6):
        found = settings.slow_decays(Horizon(hint, hint))(jnp.arange(3))
        assert np.all((found >= 0.9) & (found <= 0.9990001))


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_prodigy_survives_updates_without_gradient_and_a_warm_up_from_zero(warmup: float):
    tx = make_prodigy(ProdigySettings(warmup_fraction=warmup), HORIZON)
    params = {"w": jnp.ones(3)}
    state, update = tx.init(params), jax.jit(tx.update)
    for scale in (0.0, 0.0, 1.0, 1.0):
        updates, state = update(jax.tree.map(lambda p, s=scale: s * p, params), state, params)
        assert np.all(np.isfinite(updates["w"]))
    assert np.any(updates["w"])
    updates, _ = update({"w": jnp.full(3, jnp.nan)}, state, params)
    assert np.all(np.isnan(updates["w"]))


def test_states_are_float32_and_updates_as_the_gradients():
    tx = in_float32(optax.adam(optax.constant_schedule(0.1)))
    params = {"w": jnp.ones(3, jnp.float16), "b": jnp.ones((), jnp.bfloat16)}
    updates, state = tx.update(params, tx.init(params), params)
    assert {name: str(leaf.dtype) for name, leaf in updates.items()} == {
        "w": "float16",
        "b": "bfloat16",
    }
    inexact = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]
    assert {str(leaf.dtype) for leaf in inexact} == {"float32"}
