"""The estimator of meta-gradients against exact gradients, and what surrounds it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.metatraining import estimator
from timetrial.optimizers.metatraining.settings import MetatrainSettings, knobs
from timetrial.optimizers.metatraining.vector import from_vector, to_vector
from timetrial.optimizers.metatraining.warm_start import warm_start
from timetrial.optimizers.velo.network import lstm_step, read_meta_parameters
from timetrial.optimizers.velo.weights import embedded_weights

PAIRS, PIECES, STEPS, SIGMA = 4_000, 4, 3, 0.1
DYNAMICS = jnp.array([[0.9, -0.3, 0.0], [0.2, 0.8, 0.1], [0.0, 0.3, 0.7]])
TARGET = jnp.array([1.0, -2.0, 0.5])


def piece(theta: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Some steps of an inner problem whose losses are quadratic in all thetas so far."""
    loss = jnp.zeros(())
    for _ in range(STEPS):
        state = DYNAMICS @ state + theta
        loss = loss + jnp.sum((state - TARGET) ** 2)
    return state, loss


def whole_loss(theta: jax.Array) -> jax.Array:
    state, total = jnp.zeros(3), jnp.zeros(())
    for _ in range(PIECES):
        state, loss = piece(theta, state)
        total = total + loss
    return total


@jax.jit
def estimated(theta: jax.Array, key: jax.Array, persistent: bool) -> jax.Array:
    """Every pair's estimate for a whole run, (pairs, 3)."""
    states = jnp.zeros((PAIRS, 2, 3))
    accumulated = total = jnp.zeros((PAIRS, 3))
    for i in range(PIECES):
        noise = estimator.perturbations(jax.random.fold_in(key, i), PAIRS, 3, SIGMA)
        accumulated = jnp.where(persistent, accumulated, 0.0) + noise
        thetas = jax.vmap(lambda x: estimator.antithetic(theta, x))(noise)
        states, losses = jax.vmap(jax.vmap(piece))(thetas, states)
        total = total + estimator.estimates(losses, accumulated, SIGMA)
    return total


def test_estimates_agree_with_the_analytic_gradient_of_a_quadratic_problem():
    theta = jnp.array([0.3, -0.1, 0.2])
    exact = np.asarray(jax.grad(whole_loss)(theta))
    found = np.asarray(estimated(theta, jax.random.key(0), True))
    error = found.std(0, ddof=1) / np.sqrt(PAIRS)
    assert np.all(error < 0.1 * np.abs(exact))  # so that agreement means something
    assert np.all(np.abs(found.mean(0) - exact) < 3.5 * error)


def test_without_the_memory_of_perturbations_the_estimates_are_biased():
    """So the test above can fail: truncation alone misses what early steps do to late losses."""
    theta = jnp.array([0.3, -0.1, 0.2])
    exact = np.asarray(jax.grad(whole_loss)(theta))
    found = np.asarray(estimated(theta, jax.random.key(0), False))
    error = found.std(0, ddof=1) / np.sqrt(PAIRS)
    assert np.any(np.abs(found.mean(0) - exact) > 10 * error)


def test_normalised_losses_keep_sign_and_cut_outliers():
    losses = jnp.array([[1.0, 3.0], [5.0, 1.0], [100.0, 0.0]])
    even = np.asarray(estimator.normalised(losses, jnp.float32(2.0)))
    np.testing.assert_allclose(even[:, 0] - even[:, 1], [-1.0, 2.0, 3.0])


def test_vector_and_meta_parameters_are_each_others_inverse():
    meta_params = embedded_weights().meta_params
    vector = to_vector(meta_params)
    back = from_vector(np.asarray(vector), 32, 16)
    assert vector.shape == (14_465,)
    for a, b in zip(jax.tree.leaves(meta_params), jax.tree.leaves(back), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_curriculum_goes_from_short_to_long():
    settings = MetatrainSettings(
        steps=1_000, truncation=20, shortest=100, longest_at_first=300, longest=3_000
    )
    first, last = knobs(settings, 0), knobs(settings, 1_000)
    assert (first.truncation, round(first.longest)) == (20, 300)
    assert (last.truncation, round(last.longest)) == (40, 3_000)
    assert first.learning_rate == settings.learning_rate
    assert np.isclose(last.learning_rate, settings.learning_rate / 10)


def test_the_warm_start_has_any_size_and_nearly_equal_entries():
    found = warm_start(4, 3, 0)
    bank = found["ff_mod_stack"]["~"]["w0__5"]
    assert bank.shape == (3, 3, 4)
    np.testing.assert_allclose(100 * bank[:, 0, 0], 0.5, atol=0.1)


def test_step_sizes_of_the_warm_start_fall_and_are_larger_for_small_tensors():
    theta = read_meta_parameters(warm_start(32, 16, 0))

    def step_sizes(share: float, momentum_variance: float) -> np.ndarray:
        """Of a matrix and a vector, after a few steps at one point of training."""
        features = np.zeros((2, 30), np.float32)
        taus = np.array([0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1])
        features[:, :9] = np.tanh(10 * (share - taus))
        features[0, 21], features[1, 20] = 1.0, 1.0
        features[:, 24] = momentum_variance
        hidden = cell = jnp.zeros((2, 32))
        for _ in range(10):
            hidden, cell = lstm_step(theta, jnp.asarray(features), hidden, cell)
        return np.asarray(theta.step_size(hidden))[:, 0]

    usual, gone = -2.5, 1.0
    np.testing.assert_allclose(step_sizes(0.0, usual), 19.5, atol=2)
    np.testing.assert_allclose(step_sizes(1.0, usual), 0.5, atol=1.5)
    assert np.all(step_sizes(0.0, usual) > 2 * step_sizes(0.7, usual))
    # A tensor that begins at 0 has momentum of the order of its own size, or far more.
    matrix, vector = step_sizes(0.0, gone)
    assert matrix > 20
    assert vector > 40
    assert np.all(step_sizes(0.0, 2.5) > 70)
