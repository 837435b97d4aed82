"""Celo2's rule of one lane against reference vectors, and its vector, harness and selection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial.framework.errors import UserError
from timetrial.optimizers.metatraining.celo2 import lane, vector
from timetrial.optimizers.metatraining.celo2.files import load_start
from timetrial.optimizers.metatraining.celo2.rule import Harness, by_adamw, celo2_rule
from timetrial.optimizers.metatraining.scheduled import adamw_rule, schedule
from timetrial.optimizers.metatraining.stage import robust
from timetrial.optimizers.weights.files import save

FIXTURES = Path(__file__).parents[1] / "fixtures" / "celo2"


@pytest.fixture(autouse=True)
def quick_to_compile() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize(("name", "limit"), [("celo2_mix_base", 1e-5), ("celo2_mix_orth", 1e-4)])
def test_directions_are_those_of_the_reference(name: str, limit: float):
    """At the parameters of the file, from its gradients; relative to the tensor's largest element.

    Newton-Schulz multiplies the rounding of small singular values by up to 480.
    """
    found = np.load(FIXTURES / f"{name}.npz")
    meta = json.loads(bytes(found["meta_json"]).decode())
    layers = {key[6:]: found[key] for key in found.files if key.startswith("theta/")}
    theta = vector.theta_of(vector.from_meta_params({"ff_mod_stack": {"~": layers}}))
    names = meta["names"]

    @jax.jit
    def step(state: lane.Celo2State, grads: list[Any], params: list[Any]) -> Any:
        return lane.directions(theta, state, grads, params, meta["orthogonalize"])

    state = lane.init_state([found[f"params0/{key}"].shape for key in names])
    for t in range(meta["T"]):
        at = "params0" if t == 0 else "params"
        params = [found[f"{at}/{key}"] if t == 0 else found[f"{at}/{key}"][t - 1] for key in names]
        made, state = step(state, [found[f"grads/{key}"][t] for key in names], params)
        for key, direction in zip(names, made, strict=True):
            expected = found[f"updates/{key}"][t]
            error = np.abs(np.asarray(direction) - expected).max() / np.abs(expected).max()
            assert error < limit, (key, t)


def test_a_linear_rule_is_a_network_of_its_own():
    weights = jnp.asarray(np.random.default_rng(0).standard_normal(vector.INPUTS), jnp.float32)
    theta = vector.theta_of(vector.of_linear(weights))
    inputs = jnp.asarray(np.random.default_rng(1).standard_normal((vector.INPUTS, 5)), jnp.float32)
    (output,) = lane._network(theta, inputs, [(5,)])
    even = inputs / jnp.sqrt((inputs**2).mean(1, keepdims=True))
    expected = weights @ even
    np.testing.assert_allclose(
        output[0], expected / jnp.sqrt((expected**2).mean()), rtol=1e-4, atol=1e-5
    )


def test_vectors_and_files_are_each_others_inverse(tmp_path: Path):
    made = vector.random_start(3)
    assert made.shape == (vector.LIVE_NUMBERS,) == (329,)
    path = tmp_path / "made.state"
    save(path, vector.to_meta_params(made))
    assert path.stat().st_size == 1_833
    meta_params = load_start(str(path)).meta_params
    np.testing.assert_array_equal(vector.from_meta_params(meta_params), made)
    numbers = sum(array.size for array in meta_params["ff_mod_stack"]["~"].values())
    assert numbers == 347


def test_the_harness_gives_vectors_and_embeddings_to_adamw():
    """Against optax's AdamW; matrices take orthogonal steps of the size of the rate."""
    rng = np.random.default_rng(0)
    shapes = {"dense": {"b": (4,), "w": (6, 4)}, "embedding": {"w": (5, 4)}, "tables": (3, 2)}
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    params = jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s)), shapes, is_leaf=is_shape)
    assert by_adamw(params) == [True, False, True, True]
    steps, rate, factor = jnp.int32(40), 0.01, 3.0
    rule = celo2_rule(vector.random_start(0), rate, Harness(factor))
    update = jax.jit(rule.update)
    adamw = optax.adam(lambda t: factor * rate * schedule(t, steps), 0.9, 0.95)
    state, theirs, expected = rule.init(params, steps), adamw.init(params), params
    for t in range(4):
        grads = jax.tree.map(lambda p: jnp.sin(3.0 * p), params)
        new, state = update(params, state, grads, 0.0, jnp.int32(t), steps)
        updates, theirs = adamw.update(grads, theirs)
        expected = optax.apply_updates(params, updates)
        for name in ("embedding", "tables"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), new[name], expected[name]
            )
        np.testing.assert_allclose(new["dense"]["b"], expected["dense"]["b"], rtol=1e-5)
        moved = np.asarray(new["dense"]["w"] - params["dense"]["w"])
        size = rate * float(schedule(jnp.int32(t), steps))
        np.testing.assert_allclose(np.sqrt((moved**2).mean()), size, rtol=1e-3)
        values = np.linalg.svd(moved / size, compute_uv=False)
        assert values.max() / values.min() < 2.0  # 0.7 to 1.2 each, up to one factor
        params = new


def test_adamw_under_the_schedule_is_optax_adamw():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.standard_normal((3, 2))), "b": jnp.ones(2)}
    steps = jnp.int32(30)
    rule, theirs = (
        adamw_rule(0.02, 0.1),
        optax.adamw(lambda t: 0.02 * schedule(t, steps), weight_decay=0.1),
    )
    state, other, expected = rule.init(params, steps), theirs.init(params), params
    for t in range(6):
        grads = jax.tree.map(jnp.cos, expected)
        params, state = rule.update(params, state, grads, 0.0, jnp.int32(t), steps)
        updates, other = theirs.update(grads, other, expected)
        expected = optax.apply_updates(expected, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, expected)


def test_the_schedule_rises_for_a_twentieth_and_falls_to_nothing():
    rates = np.asarray([schedule(jnp.int32(t), jnp.int32(100)) for t in range(100)])
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-5)
    assert np.all(np.diff(rates[4:]) < 0)
    assert rates[-1] < 1e-6
    for steps in (1, 2, 10):  # no horizon gives NaN
        assert np.isfinite([schedule(jnp.int32(t), jnp.int32(steps)) for t in range(steps)]).all()


def test_selection_needs_the_next_rate_to_be_good_too():
    fragile = np.array([[-0.5], [-1.0], [3.0]], np.float32)
    sound = np.array([[-0.5], [-0.9], [-0.7]], np.float32)
    np.testing.assert_allclose(robust(fragile), [1.0])
    np.testing.assert_allclose(robust(sound), [-0.8])
    rising = np.array([[-0.1], [-0.2], [-0.3]], np.float32)
    np.testing.assert_allclose(robust(rising), [-0.25])  # the last rate is never the best


def test_a_foreign_file_is_no_start(tmp_path: Path):
    path = tmp_path / "bad.state"
    path.write_bytes(b"\x81\xa1a\x01")
    with pytest.raises(UserError, match=r"start: .*bad\.state: no usable Celo2 weights"):
        load_start(str(path))
