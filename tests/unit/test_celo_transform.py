"""Celo and Celo-Adam: an independent NumPy implementation, dtypes, and use inside optax."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from celo_reference import Celo, CeloAdam
from celo_theta import theta

from timetrial.optimizers.celo import celo, celo_adam
from timetrial.optimizers.weights.trees import WeightsError

RULES = {"celo": celo, "celo_adam": celo_adam}
REFERENCE = {"celo": Celo, "celo_adam": CeloAdam}
SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "one": (1,),
    "vector": (7,),
    "square": (4, 4),
    "tall": (9, 2),
    "kernel": (3, 3, 4, 6),
    "rank3": (5, 2, 3),
    "thin": (1, 8),
    "zero": (3, 5),
    "huge": (2, 3),
}
STEPS = 8


def tree(seed: int, dtype: Any = np.float32) -> dict[str, Any]:
    rng = np.random.RandomState(seed)
    made = {n: rng.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}
    return {n: x.astype(dtype) for n, x in made.items()}


def start() -> dict[str, Any]:
    params = tree(0)
    return params | {"zero": np.zeros_like(params["zero"]), "huge": 1e3 * params["huge"]}


def gradients(t: int) -> dict[str, Any]:
    """Gradients with a part beyond the clipping, a tiny and a constant part."""
    grads = tree(100 + t)
    grads["tall"] = 1e-6 * grads["tall"]
    grads["vector"] = np.ones_like(grads["vector"])
    grads["square"] = 800 * grads["square"]
    return grads


LOSSES = (3.0, 2.5, 2.7, 2.0, 50.0, 1.9, -0.5, 1.0)


@functools.cache
def built(rule: str) -> tuple[Any, Any]:
    tx = RULES[rule](STEPS, meta_params=theta(rule, 1))
    return tx, jax.jit(tx.update)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("num_steps", [STEPS, 3])
def test_an_independent_implementation_makes_the_same_steps(rule: str, num_steps: int) -> None:
    _, update = built(rule)  # the number of steps is part of the state
    tx = RULES[rule](num_steps, meta_params=theta(rule, 1))
    params = {n: jnp.asarray(p) for n, p in start().items()}
    theirs, before = start(), start()
    reference = REFERENCE[rule](theta(rule, 1), num_steps, theirs)
    state = tx.init(params)
    for t, loss in enumerate(LOSSES):
        updates, state = update(gradients(t), state, params, value=np.float32(loss))
        params = optax.apply_updates(params, updates)
        theirs = reference.update(theirs, gradients(t), loss)
        for n, p in theirs.items():
            moved = np.abs(p - before[n]).max()
            assert moved > 0
            # Steps of huge parameters are few units in the last place.
            error = np.abs(np.asarray(params[n]) - p) - 2 * np.spacing(np.abs(p))
            assert error.max() <= 3e-5 * moved, (n, t, error.max() / moved)
    np.testing.assert_allclose(state.scheduler.hidden, reference.schedule.h, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("dtype", "x64"),
    [("bfloat16", False), *((d, True) for d in ("float32", "bfloat16", "float16", "float64"))],
)
def test_the_state_is_float32_whatever_the_parameters(rule: str, dtype: str, x64: bool) -> None:
    tx, _ = built(rule)
    with jax.enable_x64(x64):
        params = {n: jnp.zeros(s, dtype)
                  for n, s in SHAPES.items() if n in ("scalar", "vector", "kernel")}  # fmt: skip
        state = jax.eval_shape(tx.init, params)
        updates, after = jax.eval_shape(tx.update, params, state, params, value=jnp.ones(()))
        merged = optax.MultiSteps(tx, 2)
        held = jax.eval_shape(merged.init, params)
        jax.eval_shape(merged.update, params, held, params, value=jnp.ones(()))
    assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32", "int32"}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), after
    )
    assert {n: x.dtype for n, x in updates.items()} == {n: x.dtype for n, x in params.items()}


@pytest.mark.parametrize("rule", RULES)
def test_the_same_steps_with_64_bits(rule: str) -> None:
    tx, update = built(rule)
    params = {n: jnp.asarray(p) for n, p in start().items()}
    plain, _ = update(gradients(0), tx.init(params), params, value=np.float32(2))
    with jax.enable_x64(True):
        wide = {n: jnp.asarray(p, jnp.float64) for n, p in start().items()}
        grads = {n: jnp.asarray(g, jnp.float64) for n, g in gradients(0).items()}
        updates, _ = jax.jit(tx.update)(grads, tx.init(wide), wide, value=2.0)
        for n, u in updates.items():
            assert u.dtype == jnp.float64
            ulp = np.spacing(np.abs(start()[n]))
            assert np.all(np.abs(np.asarray(u) - plain[n]) <= 1e-5 * np.abs(u).max() + ulp), n


@pytest.mark.parametrize("rule", [pytest.param("celo", marks=pytest.mark.slow), "celo_adam"])
def test_scan_vmap_chain_and_mask(rule: str) -> None:
    """One program each for a chain under scan, and for a mask under vmap."""
    tx, update = built(rule)
    params = {n: jnp.asarray(p) for n, p in start().items()}
    state, expected = tx.init(params), params
    for _ in range(2):
        updates, state = update(gradients(1), state, expected, value=np.float32(2))
        expected = optax.apply_updates(expected, jax.tree.map(lambda u: 0.5 * u, updates))

    chained = optax.chain(tx, optax.scale(0.5))

    def body(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = chained.update(gradients(1), state, params, value=jnp.float32(2))
        return (optax.apply_updates(params, updates), state), None

    (made, _), _ = jax.jit(lambda c: jax.lax.scan(body, c, None, length=2))(
        (params, chained.init(params))
    )
    for n in SHAPES:
        np.testing.assert_allclose(made[n], expected[n], rtol=2e-6, atol=1e-7)

    masked = optax.masked(tx, {n: n != "scalar" for n in SHAPES})
    both = jax.tree.map(lambda p: jnp.stack([p, p]), params)
    grads = jax.tree.map(lambda g: jnp.stack([g, -g]), gradients(1))

    def one(params: Any, grads: Any) -> Any:
        return masked.update(grads, masked.init(params), params, value=jnp.float32(2))[0]

    updates = jax.jit(jax.vmap(one))(both, grads)
    np.testing.assert_array_equal(updates["scalar"], grads["scalar"])
    first, _ = update(gradients(1), tx.init(params), params, value=np.float32(2))
    for n in set(SHAPES) - {"scalar"}:
        np.testing.assert_allclose(updates[n][0], first[n], rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_weight_decay_adds_to_gradient_and_loss(rule: str) -> None:
    params = {n: jnp.asarray(p) for n, p in tree(3).items() if n in ("scalar", "vector")}
    grads = {n: gradients(0)[n] for n in params}
    plain, decayed = (
        RULES[rule](STEPS, meta_params=theta(rule, 1), weight_decay=w) for w in (0.0, 0.1)
    )
    loss = 2 + 0.1 * sum(float(jnp.sum(p * p)) for p in params.values())
    added = {n: g + 0.1 * params[n] for n, g in grads.items()}
    expected, _ = jax.jit(plain.update)(added, plain.init(params), params, value=loss)
    found, _ = jax.jit(decayed.update)(grads, decayed.init(params), params, value=2.0)
    for n in params:
        np.testing.assert_allclose(found[n], expected[n], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_no_buffer_occurs_twice_in_a_new_state(rule: str) -> None:
    """Such a state could not be donated."""
    leaves = jax.tree.leaves(built(rule)[0].init({n: jnp.asarray(p) for n, p in start().items()}))
    places = {x.unsafe_buffer_pointer() for x in leaves if x.size}
    assert len(places) == sum(x.size > 0 for x in leaves)


@pytest.mark.parametrize("rule", RULES)
def test_trees_without_elements(rule: str) -> None:
    tx, _ = built(rule)
    for params in ({}, {"empty": jnp.zeros((0, 3))}):
        updates, state = tx.update(params, tx.init(params), params, value=1.0)
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
        assert int(state.scheduler.updates) == 1


@pytest.mark.parametrize("rule", RULES)
def test_what_is_wrong_is_named(rule: str) -> None:
    tx, _ = built(rule)
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    with pytest.raises(ValueError, match=f"{rule}: update needs params"):
        tx.update(params, state, value=1.0)
    with pytest.raises(ValueError, match=f"{rule}: update needs value="):
        tx.update(params, state, params)
    with pytest.raises(ValueError, match=f"{rule}: value: expected a scalar"):
        tx.update(params, state, params, value=jnp.ones(2))
    with pytest.raises(ValueError, match="expected floating-point numbers, got int32"):
        tx.init({"w": jnp.ones(3, jnp.int32)})
    with pytest.raises(ValueError, match="expected gradients with the structure"):
        tx.update({"v": jnp.ones(3)}, state, params, value=1.0)
    for steps in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="num_steps: expected a whole number >= 1"):
            RULES[rule](steps, meta_params=theta(rule))
    with pytest.raises(ValueError, match="weight_decay"):
        RULES[rule](1, meta_params=theta(rule), weight_decay=-1.0)
    other = "celo" if rule == "celo_adam" else "celo_adam"
    with pytest.raises(WeightsError, match="names differ"):
        RULES[rule](1, meta_params=theta(other))
