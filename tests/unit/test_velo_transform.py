"""VeLO under the transformations of JAX and optax, and with unusual inputs."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import velo_theta

from timetrial.optimizers import calls
from timetrial.optimizers.velo import accumulation_steps, tensor_averages, velo

THETA = velo_theta.nested(velo_theta.theta_from_seed(7, 8, 4))
N = 50
SHAPES = {
    "bias": (5,),
    "cube": (3, 4, 5),
    "flat": (1, 6),
    "kernel": (3, 3, 2, 4),
    "matrix": (6, 4),
    "one": (1, 1),
    "rank5": (2, 1, 3, 2, 2),
    "scalar": (),
    "tall": (70, 3),
}


def tree(seed: int, scale: float = 1.0, shapes=SHAPES, dtype=jnp.float32):
    rng = np.random.RandomState(seed)
    return {n: jnp.asarray(scale * rng.standard_normal(s), dtype) for n, s in shapes.items()}


def run(tx, params, steps=3, losses=(1.0, 0.9, 1.1)):
    """Parameters and state after some updates with gradients that depend on the step."""
    state = tx.init(params)
    update = jax.jit(lambda g, s, p, loss: tx.update(g, s, p, value=loss))
    for t in range(steps):
        grads = jax.tree.map(lambda p, t=t: (0.1 * (t + 1) * p + 0.05).astype(p.dtype), params)
        updates, state = update(grads, state, params, losses[t])
        params = optax.apply_updates(params, updates)
    return params, state


def same(a, b, rtol=2e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def moved(a, b) -> bool:
    return any(bool(jnp.any(x != y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.fixture(scope="module")
def after_three():
    params = tree(1)
    return params, *run(velo(N, meta_params=THETA), params)


def test_every_shape_moves_and_the_state_is_float32(after_three):
    before, after, state = after_three
    for name in SHAPES:
        assert moved(before[name], after[name]), name
        assert np.all(np.isfinite(after[name]))
    kinds = {x.dtype.name for x in jax.tree.leaves(state)}
    assert kinds == {"float32", "int32"}
    assert int(state.updates) == 3
    averages = tensor_averages(state, before)
    assert averages["kernel"]["row"].shape == (3, 3, 2, 3)
    assert averages["kernel"]["column"].shape == (3, 2, 4, 3)
    assert averages["scalar"]["diagonal"].shape == (3,)


def test_renaming_tensors_so_that_their_order_changes_permutes_the_update(after_three):
    before, after, _ = after_three
    names = sorted(SHAPES)
    renamed = {n: f"{len(names) - i}_{n}" for i, n in enumerate(names)}
    other, _ = run(velo(N, meta_params=THETA), {renamed[n]: before[n] for n in names})
    same({n: other[renamed[n]] for n in names}, after)


def test_transposing_a_matrix_transposes_the_update():
    # Only without equal axes: which of two equal axes counts as the larger depends on the order.
    params = {"a": tree(1)["matrix"], "b": tree(1)["tall"]}
    turned, _ = run(velo(N, meta_params=THETA), jax.tree.map(jnp.transpose, params))
    straight, _ = run(velo(N, meta_params=THETA), params)
    same(jax.tree.map(jnp.transpose, turned), straight)


def test_many_tiles_make_the_update_of_their_permuted_matrix():
    # Rows and columns carry no order: permuting them permutes the update, across tiles too.
    rng = np.random.RandomState(3)
    big = jnp.asarray(rng.standard_normal((200, 150)), jnp.float32)
    rows, columns = rng.permutation(200), rng.permutation(150)
    plain, _ = run(velo(N, meta_params=THETA), {"w": big}, steps=2)
    mixed, _ = run(velo(N, meta_params=THETA), {"w": big[rows][:, columns]}, steps=2)
    same(mixed["w"], plain["w"][rows][:, columns], rtol=1e-5)


def test_the_feed_of_the_steps_left_is_the_prompt(after_three):
    before, after, _ = after_three
    tx = velo(N, meta_params=THETA)
    params, state = before, tx.init(before)
    update = jax.jit(
        lambda g, s, p, loss, left: tx.update(g, s, p, value=loss, remaining_fraction=left)
    )
    for t, loss in enumerate((1.0, 0.9, 1.1)):
        grads = jax.tree.map(lambda p, t=t: 0.1 * (t + 1) * p + 0.05, params)
        updates, state = update(grads, state, params, loss, 1 - t / N)
        params = optax.apply_updates(params, updates)
    same(params, after)
    late, _ = update(grads, state, params, 1.0, 0.01)
    early, _ = update(grads, state, params, 1.0, 0.99)
    assert moved(late, early)


@pytest.mark.slow  # the contract checks do the same
def test_vmap_over_seeds_is_the_loop():
    tx = velo(N, meta_params=THETA)
    shapes = {n: SHAPES[n] for n in ("bias", "kernel", "matrix", "scalar")}
    singles = [tree(seed, shapes=shapes) for seed in range(3)]
    losses = jnp.asarray([1.0, 2.0, 0.5])
    stack = lambda trees: jax.tree.map(lambda *xs: jnp.stack(xs), *trees)  # noqa: E731

    def two(params, loss):
        state = tx.init(params)
        for factor in (1.0, 0.8):
            updates, state = tx.update(params, state, params, value=factor * loss)
            params = optax.apply_updates(params, updates)
        return params, state

    one = jax.jit(two)
    loop = stack([one(p, loss) for p, loss in zip(singles, losses, strict=True)])
    same(jax.jit(jax.vmap(two))(stack(singles), losses), loop)


def test_vmap_over_the_weights_is_the_loop():
    params = {"w": tree(1)["matrix"]}

    def total(theta):
        tx = velo(N, meta_params=theta)
        updates, _ = tx.update(params, tx.init(params), params, value=1.0)
        return sum(jnp.sum(u**2) for u in jax.tree.leaves(updates)) * 1e6

    thetas = [velo_theta.nested(velo_theta.theta_from_seed(s, 8, 4)) for s in (1, 2)]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *thetas)
    one = jax.jit(total)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(total))(stacked), [one(theta) for theta in thetas], rtol=1e-4
    )


def test_scan_is_the_loop(after_three):
    before, after, final = after_three
    tx = velo(N, meta_params=THETA)

    def step(carry, x):
        params, state = carry
        t, loss = x
        grads = jax.tree.map(lambda p: 0.1 * (t + 1) * p + 0.05, params)
        updates, state = tx.update(grads, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), None

    xs = (jnp.arange(3.0), jnp.asarray([1.0, 0.9, 1.1]))
    (params, state), _ = jax.jit(lambda c: jax.lax.scan(step, c, xs))((before, tx.init(before)))
    same((params, state), (after, final))


def test_donated_state_and_parameters():
    tx = velo(N, meta_params=THETA)
    params = {"w": tree(1)["matrix"]}
    expected, _ = run(tx, params, steps=1)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params, value=1.0)
        return optax.apply_updates(params, updates), state

    grads = jax.tree.map(lambda p: 0.1 * p + 0.05, params)
    mine = jax.tree.map(jnp.copy, params)
    donated, _ = jax.jit(step, donate_argnums=(0, 1))(mine, tx.init(mine), grads)
    same(donated, expected)


def test_no_buffer_occurs_twice_in_a_new_state():
    """Such a state could not be donated."""
    leaves = jax.tree.leaves(velo(N, meta_params=THETA).init(tree(1)))
    places = {x.unsafe_buffer_pointer() for x in leaves if x.size}
    assert len(places) == sum(x.size > 0 for x in leaves)


def test_masked_and_chained():
    tx = velo(N, meta_params=THETA)
    params = {"frozen": tree(1)["cube"], "w": tree(1)["matrix"], "b": tree(1)["bias"]}
    mask = {"frozen": False, "w": True, "b": True}
    chained = optax.chain(optax.masked(tx, mask), optax.masked(optax.scale(0.0), {
        "frozen": True, "w": False, "b": False}))  # fmt: skip
    after, _ = run(chained, params, steps=2)
    alone, _ = run(tx, {"w": params["w"], "b": params["b"]}, steps=2)
    same({"w": after["w"], "b": after["b"]}, alone)
    np.testing.assert_array_equal(after["frozen"], params["frozen"])


def test_bfloat16_parameters_keep_a_float32_state():
    tx = velo(N, meta_params=THETA)
    params = {n: x.astype(jnp.bfloat16) for n, x in tree(1).items() if n in ("matrix", "tall")}
    after, state = run(tx, params)
    assert {x.dtype.name for x in jax.tree.leaves(after)} == {"bfloat16"}
    assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32", "int32"}
    exact, _ = run(tx, jax.tree.map(lambda p: p.astype(jnp.float32), params))
    same(jax.tree.map(lambda p: p.astype(jnp.float32), after), exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("dtype", "x64", "accumulates"),
    [
        ("bfloat16", False, True),
        ("float32", True, False),
        ("float16", True, False),
        ("bfloat16", True, True),
        ("float64", True, True),
    ],
)
def test_the_state_keeps_its_types(dtype: str, x64: bool, accumulates: bool):
    """Also where JAX computes with 64 bits, and under the accumulation of optax."""
    tx = velo(30, meta_params=THETA, max_training_steps=10 if accumulates else 100)
    with jax.enable_x64(x64):
        params = {n: jnp.zeros(s, dtype)
                  for n, s in SHAPES.items() if n in ("bias", "kernel", "scalar")}  # fmt: skip
        state = jax.eval_shape(tx.init, params)
        updates, after = jax.eval_shape(tx.update, params, state, params, value=jnp.ones(()))
        merged = optax.MultiSteps(tx, 2)
        held = jax.eval_shape(merged.init, params)
        _, held_after = jax.eval_shape(merged.update, params, held, params, value=jnp.ones(()))
    assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32", "int32"}
    for before, new in ((state, after), (held, held_after)):
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(new), strict=True)
        assert all((x.shape, x.dtype) == (y.shape, y.dtype) for x, y in pairs)
    assert {n: x.dtype for n, x in updates.items()} == {n: x.dtype for n, x in params.items()}


def test_float64_parameters_keep_their_digits():
    with jax.enable_x64(True):
        change = jnp.full(3, 1e-9, jnp.float32)
        found = calls.rounded(jnp.full(3, 1 / 3, jnp.float64), change)
        assert found.dtype == jnp.float64
        np.testing.assert_array_equal(found, change)


def test_zero_gradients_and_zero_parameters_stay_finite():
    params = jax.tree.map(jnp.zeros_like, tree(1))
    tx = velo(N, meta_params=THETA)
    state = tx.init(params)
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, value=0.0))
    for _ in range(2):
        updates, state = update(params, state, params)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((updates, state)))


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_makes_all_parameters_nan_for_good(loss):
    tx = velo(N, meta_params=THETA)
    params = {"w": tree(1)["matrix"]}
    state = tx.init(params)
    update = jax.jit(lambda g, s, p, loss: tx.update(g, s, p, value=loss))
    for value in (1.0, 1.0, loss, 1.0):
        updates, state = update(params, state, params, value)
    if np.isnan(loss):
        assert all(bool(jnp.all(jnp.isnan(x))) for x in jax.tree.leaves(updates))
    else:
        # The clip at twice the largest mean takes an infinite loss for a large one.
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(updates))


def test_a_nan_gradient_spoils_its_tensor_at_once_and_all_at_the_next_update():
    tx = velo(N, meta_params=THETA)
    params = {"w": tree(1)["matrix"], "v": tree(1)["tall"]}
    state = tx.init(params)
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, value=1.0))
    bad = {**params, "w": params["w"].at[0, 0].set(jnp.nan)}
    updates, state = update(bad, state, params)
    assert np.all(np.isnan(updates["w"]))
    assert np.all(np.isfinite(updates["v"]))
    updates, _ = update(params, state, params)
    assert np.all(np.isnan(updates["v"]))


def test_empty_trees_and_empty_tensors():
    tx = velo(N, meta_params=THETA)
    updates, state = tx.update({}, tx.init({}), {}, value=1.0)
    assert updates == {}
    assert int(state.updates) == 1
    params = {"none": jnp.zeros((0, 4)), "w": tree(1)["matrix"]}
    after, _ = run(tx, params, steps=1)
    alone, _ = run(tx, {"w": params["w"]}, steps=1)
    assert after["none"].shape == (0, 4)
    same(after["w"], alone["w"])


def test_accumulation_is_the_update_with_the_means():
    params = {"w": tree(1)["matrix"]}
    tx = velo(10, meta_params=THETA, max_training_steps=4)
    assert accumulation_steps(10, 4) == 3
    inner = velo(3, meta_params=THETA)
    state, inner_state = tx.init(params), inner.init(params)
    update = jax.jit(lambda g, s, p, loss: tx.update(g, s, p, value=loss))
    inner_update = jax.jit(lambda g, s, loss: inner.update(g, s, params, value=loss))
    grads = [jax.tree.map(lambda p, t=t: p * (t + 1), params) for t in range(6)]
    for start in (0, 3):
        for t in range(start, start + 3):
            updates, state = update(grads[t], state, params, 1.0 + t)
            assert moved(updates, jax.tree.map(jnp.zeros_like, params)) == (t == start + 2)
        mean = jax.tree.map(lambda *xs: sum(xs) / 3, *grads[start : start + 3])
        expected, inner_state = inner_update(mean, inner_state, 2.0 + start)
        same(updates, expected)
        assert int(state.accumulator.calls) == 0
        assert float(state.accumulator.loss) == 0.0


def test_weight_decay_adds_to_gradient_and_loss():
    params = {"w": tree(1)["matrix"], "b": tree(1)["bias"]}
    tx, plain = velo(N, meta_params=THETA, weight_decay=0.1), velo(N, meta_params=THETA)
    state, plain_state = tx.init(params), plain.init(params)
    penalty = 0.1 * sum(float(jnp.sum(p**2)) for p in params.values())
    update, plain_update = (
        jax.jit(lambda g, s, loss, tx=tx: tx.update(g, s, params, value=loss)) for tx in (tx, plain)
    )
    grads = jax.tree.map(lambda p: 1.1 * p, params)
    for loss in (1.0, 0.5, 0.7):
        updates, state = update(params, state, loss)
        expected, plain_state = plain_update(grads, plain_state, loss + penalty)
        same(updates, expected, rtol=1e-4)


def test_what_is_missing_is_named():
    tx = velo(N, meta_params=THETA)
    params = {"w": jnp.ones((2, 2))}
    state = tx.init(params)
    with pytest.raises(ValueError, match="value="):
        tx.update(params, state, params)
    with pytest.raises(ValueError, match="params"):
        tx.update(params, state, value=1.0)
    with pytest.raises(ValueError, match=r"value: expected a scalar, got shape \(2,\)"):
        tx.update(params, state, params, value=jnp.ones(2))
    with pytest.raises(ValueError, match="structure"):
        tx.update({"v": params["w"]}, state, params, value=1.0)
    with pytest.raises(ValueError, match="floating-point"):
        tx.init({"w": jnp.ones(3, jnp.int32)})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 2.5}, "num_steps"),
        ({"num_steps": 5, "max_training_steps": 0}, "max_training_steps"),
        ({"num_steps": 5, "weight_decay": -1.0}, "weight_decay"),
        ({"num_steps": 5, "weight_decay": float("nan")}, "weight_decay"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        velo(**arguments, meta_params=THETA)


SHARDED = """
import sys
sys.path.insert(0, {tests!r})
import jax, jax.numpy as jnp, numpy as np, optax, velo_theta
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from timetrial.optimizers.velo import velo

assert jax.device_count() == 4
theta = velo_theta.nested(velo_theta.theta_from_seed(7, 8, 4))
rng = np.random.RandomState(0)
params = {{n: rng.standard_normal(s).astype(np.float32)
          for n, s in (("w", (128, 96)), ("k", (3, 3, 4, 8)), ("b", (8,)))}}
tx = velo(50, meta_params=theta)

def step(params, state, loss):
    updates, state = tx.update(jax.tree.map(lambda p: 0.3 * p, params), state, params, value=loss)
    return optax.apply_updates(params, updates), state

def two(params):
    state = tx.init(params)
    for loss in (1.0, 0.8):
        params, state = jax.jit(step)(params, state, loss)
    return params

expected = two(jax.tree.map(jnp.asarray, params))
mesh = Mesh(np.array(jax.devices()), ("data",))
layouts = {{
    "replicated": {{"w": P(), "k": P(), "b": P()}},
    "sharded": {{"w": P("data"), "k": P(None, None, "data"), "b": P("data")}},
}}
for name, specs in layouts.items():
    placed = {{n: jax.device_put(p, NamedSharding(mesh, specs[n])) for n, p in params.items()}}
    found = two(placed)
    for n in params:
        np.testing.assert_allclose(found[n], expected[n], rtol=2e-5, atol=1e-6, err_msg=name + n)
print("same")
"""


@pytest.mark.slow  # tests/unit/test_devices.py trains VeLO divided, too
def test_sharded_parameters_move_as_on_one_device():
    tests = pathlib.Path(__file__).parent.parent
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHARDED.format(tests=str(tests))],
        env=environment,
        cwd=tests.parent,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "same"
