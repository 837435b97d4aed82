"""Celo2 under the transformations of JAX and optax, its dtypes, and its peculiarities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial.framework.entries import Horizon
from timetrial.optimizers.celo2 import scale_by_celo2, tensor_averages
from timetrial.optimizers.celo2.averages import init_matrices
from timetrial.optimizers.celo2.entry import Celo2Settings, make_celo2
from timetrial.optimizers.celo2.network import SHAPES, read_network
from timetrial.optimizers.celo2.stacks import stack_of
from timetrial.optimizers.celo2.update import matrix_directions

OPTIONS = {"xla_llvm_disable_expensive_passes": True, "xla_backend_optimization_level": 0}


def theta(seed: int = 0):
    rng = np.random.default_rng(seed)
    arrays = {n: np.asarray(0.4 * rng.normal(size=s), np.float32) for n, s in SHAPES.items()}
    return {"ff_mod_stack": {"~": arrays}}


THETA = theta()


def tree(seed: int, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (2, 3, 4), "matrix": (4, 3), "scalar": (), "vector": (5,)}
    return {n: jnp.asarray(rng.normal(size=s), dtype) for n, s in shapes.items()}


def updater(tx):
    return jax.jit(tx.update, compiler_options=OPTIONS)


BASE = scale_by_celo2(THETA, orthogonalize=False)
UPDATE = updater(BASE)  # compiled once for all the tests


def types(found):
    return [(x.shape, x.dtype) for x in jax.tree.leaves(found)]


def rms(x):
    return float(jnp.sqrt(jnp.mean(jnp.square(x))))


def test_every_group_of_the_last_two_axes_has_a_root_mean_square_of_one():
    params = tree(1)
    updates, _ = UPDATE(tree(2), BASE.init(params), params)
    for found in (*updates["kernel"], updates["matrix"], updates["vector"], updates["scalar"]):
        assert rms(found) == pytest.approx(1.0, rel=1e-3)


def test_the_scale_of_the_gradient_does_not_matter():
    params, grads = ({"matrix": tree(seed)["matrix"]} for seed in (1, 2))
    # The clipped input has a scale of its own; here it is cut off for both.
    quiet = theta()
    quiet["ff_mod_stack"]["~"]["w0__1"] = np.zeros((1, 8), np.float32)
    tx = scale_by_celo2(quiet, orthogonalize=False)
    update = updater(tx)
    one, _ = update(grads, tx.init(params), params)
    ten, _ = update(jax.tree.map(lambda g: 10 * g, grads), tx.init(params), params)
    np.testing.assert_allclose(ten["matrix"], one["matrix"], rtol=2e-3, atol=2e-3)


def test_zero_gradients_still_move_tensors_and_nan_stays_in_its_tensor():
    params = tree(1)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, state = UPDATE(zeros, BASE.init(params), params)
    assert rms(updates["matrix"]) == pytest.approx(1.0, rel=1e-3)
    bad = {**zeros, "matrix": zeros["matrix"].at[0, 0].set(jnp.nan)}
    updates, state = UPDATE(bad, state, params)
    assert bool(jnp.all(jnp.isnan(updates["matrix"])))
    updates, _ = UPDATE(zeros, state, params)
    assert bool(jnp.all(jnp.isnan(updates["matrix"])))
    for name in ("kernel", "vector", "scalar"):
        assert bool(jnp.all(jnp.isfinite(updates[name]))), name


def test_outputs_one_and_two_of_the_network_are_dead():
    dead = theta()
    dead["ff_mod_stack"]["~"]["w2"][:, 1:] = np.nan
    dead["ff_mod_stack"]["~"]["b2"][1:] = np.inf
    tx = scale_by_celo2(dead, orthogonalize=False)
    params, grads = {"v": tree(1)["vector"]}, {"v": tree(2)["vector"]}
    found, _ = updater(tx)(grads, tx.init(params), params)
    assert bool(jnp.all(jnp.isfinite(found["v"])))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64])
def test_the_state_is_float32_whatever_the_parameters(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        params, grads = {"w": tree(1, dtype)["matrix"]}, {"w": tree(2, dtype)["matrix"]}
        state = BASE.init(params)
        updates, new = jax.eval_shape(BASE.update, grads, state, params)
        assert updates["w"].dtype == dtype
        assert types(new) == types(state)
        assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32"}


@pytest.mark.slow  # the contract checks do the same, one after the other
def test_scan_under_vmap_is_the_loop():
    many = jax.tree.map(lambda x, y: jnp.stack([x, y]), tree(1), tree(2))

    def two(params):
        def step(carry, factor):
            params, state = carry
            grads = jax.tree.map(lambda p: factor * p + 0.05, params)
            updates, state = BASE.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        start = (params, BASE.init(params))
        return jax.lax.scan(step, start, jnp.asarray([0.1, 0.2]))[0]

    together, _ = jax.jit(jax.vmap(two), compiler_options=OPTIONS)(many)
    for i in range(2):
        params = jax.tree.map(lambda x, i=i: x[i], many)
        state = BASE.init(params)
        for factor in (0.1, 0.2):
            grads = jax.tree.map(lambda p, f=factor: f * p + 0.05, params)
            updates, state = UPDATE(grads, state, params)
            params = optax.apply_updates(params, updates)
        for name in params:
            np.testing.assert_allclose(together[name][i], params[name], rtol=1e-4, atol=1e-4)


def test_masked_tensors_and_empty_leaves_stay_as_they_are():
    params, grads = (
        {"vector": tree(seed)["vector"], "none": jnp.zeros((0, 4)), "nothing": {}}
        for seed in (1, 2)
    )
    updates, _ = updater(BASE)(grads, BASE.init(params), params)
    assert updates["none"].shape == (0, 4)
    alone, _ = UPDATE(tree(2), BASE.init(tree(1)), tree(1))
    np.testing.assert_allclose(updates["vector"], alone["vector"], rtol=1e-5, atol=1e-5)
    assert BASE.update({}, BASE.init({}), {}) == ({}, BASE.init({}))
    frozen = optax.masked(BASE, {"a": True, "b": False})
    pair = {"a": params["vector"], "b": params["vector"]}
    found, _ = updater(frozen)(pair, frozen.init(pair), pair)
    np.testing.assert_array_equal(found["b"], pair["b"])
    assert rms(found["a"]) == pytest.approx(1.0, rel=1e-3)


def test_tiles_of_many_matrices_and_a_program_of_ones_own_give_the_same_directions():
    # The large narrow matrix has its own program, the others are stored as padded tiles.
    shapes = {"narrow": (8_200, 8), "many": (2, 70, 40), "row": (1, 9), "one": (1, 1)}
    rng = np.random.default_rng(3)
    params, grads = (
        {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in shapes.items()}
        for _ in range(2)
    )
    state = BASE.init(params)
    assert (len(state.tiles), len(state.matrices), state.vectors) == (1, 1, None)
    together, _ = updater(BASE)(grads, state, params)
    for name, shape in shapes.items():
        stack = update_stack(params[name], grads[name], shape)
        np.testing.assert_allclose(together[name], stack, rtol=1e-4, atol=1e-5, err_msg=name)


def update_stack(params, grads, shape):
    """The direction of a tensor by the program of stacks, the first update."""
    stack = stack_of([shape], [0], shape[-2:])
    state = init_matrices(sum(stack.counts), stack.shape)
    g, p = stack.pack([grads]), stack.pack([params])

    def direction(g, p):
        return matrix_directions(read_network(THETA), state, g, p)[0]

    x = jax.jit(direction, compiler_options=OPTIONS)(g, p)
    x = x / jnp.sqrt(jnp.mean(x * x, (-2, -1), keepdims=True))
    return stack.unpack(x)[0]


def test_gradients_are_accumulated_by_multi_steps():
    tx = optax.MultiSteps(BASE, 2)
    params = {"v": tree(1)["vector"]}
    state = tx.init(params)
    update = updater(tx)
    first, state = update(params, state, params)
    assert rms(first["v"]) == 0
    second, state = update(params, state, params)
    assert rms(second["v"]) == pytest.approx(1.0, rel=1e-3)


def test_no_two_arrays_of_the_state_share_a_buffer_so_that_all_can_be_donated():
    state = BASE.init(tree(1))
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)


def test_statistics_have_the_shapes_of_the_paper():
    params = {"stem": jnp.ones((3, 3, 1, 6)), "tall": jnp.ones((5, 2)), "scalar": jnp.ones(())}
    averages = tensor_averages(BASE.init(params), params)
    assert averages["stem"]["row"].shape == (3, 3, 1, 3)
    assert averages["stem"]["column"].shape == (3, 1, 6, 3)
    assert averages["tall"]["row"].shape == (2, 3)
    assert averages["tall"]["column"].shape == (5, 3)
    assert averages["scalar"]["diagonal"].shape == (3,)


def broken(**changes):
    arrays = {**THETA["ff_mod_stack"]["~"], **changes}
    kept = {n: x for n, x in arrays.items() if x is not None}
    return {"ff_mod_stack": {"~": kept}}


@pytest.mark.parametrize(
    ("meta_params", "named"),
    [
        (None, "ff_mod_stack.*got NoneType"),
        ({"rnn_params": {}}, "ff_mod_stack.*got.*rnn_params"),
        (THETA["ff_mod_stack"], "ff_mod_stack.*got.*'~'"),
        (broken(w1=None), "missing w1, unexpected none"),
        (broken(w3=np.zeros(2)), "missing none, unexpected w3"),
        (broken(w0__3=np.zeros((1, 8), np.float32)), r"w0__3 of shape \(3, 8\), got.*\(1, 8\)"),
        (broken(b0=np.zeros(8, np.int32)), "b0 of floating-point numbers, got int32"),
    ],
)
def test_wrong_weights_are_named(meta_params, named):
    with pytest.raises(ValueError, match=f"celo2: meta_params: expected.*{named}"):
        scale_by_celo2(meta_params)


def test_what_is_missing_is_named():
    params = {"w": jnp.ones((2, 2))}
    state = BASE.init(params)
    with pytest.raises(ValueError, match="celo2: update needs params"):
        BASE.update(params, state)
    with pytest.raises(ValueError, match="structure"):
        BASE.update({"v": params["w"]}, state, params)
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(4,\)"):
        BASE.update({"w": jnp.ones(4)}, state, params)
    with pytest.raises(ValueError, match="floating-point"):
        BASE.init({"w": jnp.ones(3, jnp.int32)})


def test_the_harness_gives_embeddings_and_vectors_to_adamw():
    settings = Celo2Settings(weights="embedded", warmup_fraction=0.0, multiplier_1d=5.0)
    tx = make_celo2(settings, Horizon(step_hint=100, steps=100))
    state = tx.init({"embed": jnp.ones((3, 2)), "w": jnp.ones((3, 2)), "b": jnp.ones(2)})
    adam, celo2 = (jax.tree.leaves(state.inner_states[n]) for n in ("adam", "celo2"))
    assert sum(x.size for x in adam if x.ndim) == 2 * (6 + 2)
    assert [x.shape for x in celo2 if x.ndim == 4] == [(1, 3, 16, 16)]  # one tile
