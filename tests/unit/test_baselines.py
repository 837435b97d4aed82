"""The baselines' formulas, written out in NumPy, and the paper's schedule."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial.framework.entries import Horizon
from timetrial.optimizers import OPTIMIZERS, baselines
from timetrial.optimizers.schedules import warmup_cosine, warmup_linear

HORIZON = Horizon(step_hint=40, steps=None)
GRADS = np.random.default_rng(1).normal(size=(25, 4))
START = np.array([0.5, -1.0, 2.0, 0.0])


def learning_rate(t: int, peak: float) -> float:
    """After t updates; schedule of 30 steps (75 % of 40), warm-up 1.5, floor 1e-4 as a factor."""
    if t < 1.5:
        return peak * t / 1.5
    cosine = 0.5 * (1 + np.cos(np.pi * min((t - 1.5) / 28.5, 1.0)))
    return peak * ((1 - 1e-4) * cosine + 1e-4)


def adam(p, g, m, v, t, weight_decay):
    m[:] = 0.9 * m + 0.1 * g
    v[:] = 0.999 * v + 0.001 * g**2
    u = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p - learning_rate(t - 1, 5e-3) * u


def nadam(p, g, m, v, t, weight_decay):
    m[:] = 0.9 * m + 0.1 * g
    v[:] = 0.999 * v + 0.001 * g**2
    ahead = (0.9 * m + 0.1 * g) / (1 - 0.9**t)
    u = ahead / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + weight_decay * p
    return p - learning_rate(t - 1, 1e-2) * u


def heavy_ball(p, g, m, v, t, weight_decay):
    m[:] = 0.9 * m + g
    return p - 0.05 * m


def nesterov(p, g, m, v, t, weight_decay):
    m[:] = 0.9 * m + g
    return p - 0.05 * (g + 0.9 * m)


FORMULAS = {
    "adam": (adam, 0.0),
    "nadam": (nadam, 0.0),
    "nadamw": (nadam, 4e-3),
    "heavy_ball": (heavy_ball, 0.0),
    "nesterov": (nesterov, 0.0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_follows_its_formula(name: str):
    formula, weight_decay = FORMULAS[name]
    tx = OPTIMIZERS[name].make(OPTIMIZERS[name].settings(), HORIZON)
    params, expected = jnp.asarray(START, jnp.float32), START.copy()
    state, m, v = tx.init(params), np.zeros(4), np.zeros(4)
    for t, grads in enumerate(GRADS, start=1):
        updates, state = tx.update(jnp.asarray(grads, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        expected = formula(expected, grads, m, v, t, weight_decay)
        np.testing.assert_allclose(params, expected, rtol=2e-5, atol=2e-6)


def test_optax_nadam_is_another_formula():
    """Why there is a NAdam of our own: optax's second bias correction differs."""
    ours = baselines.scale_by_nadam(0.9, 0.999, 1e-8)
    theirs = optax.scale_by_adam(0.9, 0.999, 1e-8, nesterov=True)
    p, g = jnp.ones(2), jnp.array([1.0, -2.0])
    one, _ = ours.update(g, ours.init(p), p)
    other, _ = theirs.update(g, theirs.init(p), p)
    assert float(jnp.max(jnp.abs(one - other))) > 0.3


def test_schedule_is_laid_over_three_quarters_of_the_step_hint_and_held_at_the_floor():
    schedule = warmup_cosine(2.0, Horizon(400, None), warmup_fraction=0.05, end_factor=1e-4)
    assert float(schedule(0)) == 0.0
    assert float(schedule(15)) == pytest.approx(2.0)
    assert float(schedule(157.5)) == pytest.approx(1.0001, rel=1e-5)  # half-way down
    for t in (300, 301, 400, 10_000):
        assert float(schedule(t)) == pytest.approx(2e-4, rel=1e-4)


def test_schedule_equals_optax_where_the_warm_up_is_whole():
    ours = warmup_cosine(0.1, Horizon(400, None), warmup_fraction=0.05, end_factor=0.01)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.1, 15, 300, 0.001)
    for t in range(0, 420, 7):
        assert float(ours(t)) == pytest.approx(float(theirs(t)), abs=1e-7)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_schedule_of_a_very_short_run_is_finite(steps: int):
    schedule = warmup_cosine(1.0, Horizon(steps, None), warmup_fraction=0.05, end_factor=0.1)
    values = [float(schedule(t)) for t in range(10)]
    assert np.isfinite(values).all()
    assert max(values) <= 1.0


def test_the_schedule_does_not_depend_on_the_budget():
    settings = baselines.AdamSettings()
    short, long = (settings.learning_rates(Horizon(100, steps)) for steps in (10, 1000))
    assert float(short(40)) == float(long(40))


def test_defaults_are_those_of_the_paper():
    """Table 8 of arXiv:2310.18191."""
    defaults = {name: OPTIMIZERS[name].settings() for name in FORMULAS}
    assert {n: s.learning_rate for n, s in defaults.items()} == {
        "adam": 5e-3,
        "nadam": 1e-2,
        "nadamw": 1e-2,
        "heavy_ball": 5e-2,
        "nesterov": 5e-2,
    }
    assert defaults["nadamw"].weight_decay == 4e-3
    for name in ("adam", "nadam", "nadamw"):
        s = defaults[name]
        assert (s.b1, s.b2, s.warmup_fraction, s.end_factor) == (0.9, 0.999, 0.05, 1e-4)
    for name in ("heavy_ball", "nesterov"):
        assert defaults[name].momentum == 0.9


@pytest.mark.parametrize("name", ["heavy_ball", "nesterov"])
def test_momentum_with_a_linear_schedule_and_coupled_weight_decay_follows_its_formula(name: str):
    settings = baselines.MomentumSettings(
        0.1, 0.8, 1e-2, "linear", warmup_fraction=0.1, decay_fraction=0.5, end_factor=0.2
    )
    tx = OPTIMIZERS[name].make(settings, HORIZON)
    params, expected = jnp.asarray(START, jnp.float32), START.copy()
    state, m = tx.init(params), np.zeros(4)
    for t, grads in enumerate(GRADS):
        updates, state = tx.update(jnp.asarray(grads, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        g = grads + 1e-2 * expected
        m = 0.8 * m + g
        # 30 steps: 3 of warm-up, then int(27 / 2) = 13 of decay
        rate = 0.1 * (t / 3 if t < 3 else 1 - 0.8 * min((t - 3) / 13, 1))
        expected = expected - rate * (m if name == "heavy_ball" else g + 0.8 * m)
        np.testing.assert_allclose(params, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("step_hint", "warmup_steps", "decay_fraction", "end"),
    [(36_189, 1_357, 0.984398, 0.01), (186_666, 6_999, 0.9007765761611038, 0.001)],
)
def test_the_linear_schedule_is_that_of_algoperfs_target_setting_runs(
    step_hint: int, warmup_steps: int, decay_fraction: float, end: float
):
    steps = int(0.75 * step_hint)
    ours = warmup_linear(
        2.0,
        Horizon(step_hint, None),
        warmup_fraction=warmup_steps / steps,
        decay_fraction=decay_fraction,
        end_factor=end,
    )
    decay_steps = int((steps - warmup_steps) * decay_fraction)
    theirs = optax.join_schedules(
        [
            optax.linear_schedule(0.0, 2.0, warmup_steps),
            optax.linear_schedule(2.0, 2.0 * end, decay_steps),
        ],
        [warmup_steps],
    )
    for t in [0, 1, 500, *range(warmup_steps - 2, warmup_steps + 3), steps // 2, steps, step_hint]:
        assert float(ours(t)) == pytest.approx(float(theirs(t)), rel=1e-5, abs=1e-7)


def test_adam_with_weight_decay_is_adamw_and_nadam_with_it_is_nadamw():
    adam = baselines.AdamSettings(weight_decay=0.3)
    schedule = adam.learning_rates(HORIZON)
    pairs = [
        (baselines.make_adam(adam, HORIZON), optax.adamw(schedule, weight_decay=0.3)),
        (
            baselines.make_nadam(baselines.NadamSettings(weight_decay=0.3), HORIZON),
            baselines.make_nadamw(baselines.NadamwSettings(weight_decay=0.3), HORIZON),
        ),
    ]
    for one, other in pairs:
        params = [jnp.asarray(START, jnp.float32)] * 2
        states = [one.init(params[0]), other.init(params[1])]
        for grads in GRADS[:5]:
            for i, tx in enumerate((one, other)):
                updates, states[i] = tx.update(
                    jnp.asarray(grads, jnp.float32), states[i], params[i]
                )
                params[i] = optax.apply_updates(params[i], updates)
        np.testing.assert_allclose(params[0], params[1], rtol=1e-6)
        assert float(jnp.max(jnp.abs(params[0] - START))) > 1e-3
