"""Pallas kernels over tiles, and plain XLA where there can be none."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import velo_theta

from timetrial.framework.entries import Horizon
from timetrial.framework.errors import UserError
from timetrial.optimizers.velo import velo
from timetrial.optimizers.velo.entry import VeloSettings, make_velo, notes
from timetrial.optimizers.velo.tiling import kernels

WEIGHTS = velo_theta.nested(velo_theta.theta_from_seed(7, 8, 4))


@pytest.fixture
def single_gpu(monkeypatch):
    """A machine that says it has one GPU; what is compiled for it is compiled for the CPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    clear = kernels._trial.cache_clear
    clear()
    yield
    clear()


def test_a_kernel_sees_one_tile_at_a_time_and_updates_the_state():
    def kernel(state, inputs, new, found):
        scale, shift = inputs
        x = state[...] * scale[...] + shift[...]
        new[...] = x
        found[0], found[1] = x.sum(0).sum(0), x.max()

    rng = np.random.default_rng(0)
    state, shift = rng.standard_normal((2, 5, 4, 8)).astype(np.float32)
    scale = rng.standard_normal(5).astype(np.float32)
    new, found = jax.jit(
        lambda *args: kernels.launch(
            kernel, args[0], args[1:], jax.ShapeDtypeStruct((5, 2), jnp.float32)
        )
    )(state, scale, shift)
    expected = state * scale[:, None, None] + shift
    np.testing.assert_allclose(new, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[:, 0], expected.sum((1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[:, 1], expected.max((1, 2)), rtol=1e-6)


def test_auto_is_plain_on_a_cpu_without_a_trial(monkeypatch):
    monkeypatch.setattr(kernels, "_trial", lambda: pytest.fail("tried on a CPU"))
    assert not kernels.chosen("auto", WEIGHTS)
    assert kernels.chosen("pallas", WEIGHTS)
    assert not kernels.chosen("plain", WEIGHTS)


def test_auto_takes_kernels_on_one_gpu_where_they_compile(single_gpu, monkeypatch):
    monkeypatch.setattr(kernels, "_trial", lambda: True)
    assert kernels.chosen("auto", WEIGHTS)
    assert not kernels.chosen("plain", WEIGHTS)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert not kernels.chosen("auto", WEIGHTS)


def test_auto_is_plain_for_traced_weights(single_gpu, monkeypatch):
    monkeypatch.setattr(kernels, "_trial", lambda: True)
    found = []
    jax.jit(lambda w: found.append(kernels.chosen("auto", {"a": w, "b": np.zeros(2)})))(1.0)
    assert found == [False]


@pytest.mark.parametrize("missing", [None, "jax.experimental.pallas"])
def test_auto_is_plain_and_warns_where_kernels_fail(single_gpu, monkeypatch, missing):
    """Without Pallas, and where Pallas does not lower, as for the CPU behind this test."""
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
        monkeypatch.delattr(jax.experimental, "pallas", raising=False)
    with pytest.warns(UserWarning, match="plain XLA instead of Pallas kernels, which fail"):
        assert not kernels.chosen("auto", WEIGHTS)
    assert not kernels.chosen("auto", WEIGHTS)  # tried and told once


def test_other_words_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="kernels: expected auto, plain, pallas, got 'triton'"):
        velo(10, meta_params=WEIGHTS, kernels="triton")
    monkeypatch.setenv("TIMETRIAL_KERNELS", "on")
    with pytest.raises(
        UserError, match="TIMETRIAL_KERNELS: expected auto, plain, pallas, got 'on'"
    ):
        make_velo(VeloSettings(weights="embedded"), Horizon(10, 10))


@pytest.mark.parametrize("word", ["plain", "pallas"])
def test_the_environment_chooses_for_a_run_and_its_tags_tell(monkeypatch, word):
    settings, horizon = VeloSettings(weights="embedded"), Horizon(10, 10)
    assert "velo.kernels" not in notes(settings, horizon)
    monkeypatch.setenv("TIMETRIAL_KERNELS", word)
    assert notes(settings, horizon).get("velo.kernels", "plain") == word
    params = jnp.ones(3)
    tx = make_velo(settings, horizon)
    state = tx.init(params)
    program = jax.make_jaxpr(lambda g, s, p: tx.update(g, s, p, value=1.0))(params, state, params)
    assert ("pallas_call" in str(program)) == (word == "pallas")


def test_kernels_under_vmap_are_the_plain_update():
    """Two seeds at once; the golden files test the numbers themselves."""
    rng = np.random.default_rng(1)
    params, grads = (
        jnp.asarray(scale * rng.standard_normal((2, 20, 70)), jnp.float32)
        for scale in (0.1, 2000.0)  # gradients are clipped
    )

    def change(choice):
        tx = velo(50, meta_params=WEIGHTS, kernels=choice)
        return jax.jit(jax.vmap(lambda g, p: tx.update(g, tx.init(p), p, value=1.0)[0]))(
            grads, params
        )

    plain, pallas = change("plain"), change("pallas")
    largest = np.abs(plain).max()
    assert largest > 0
    np.testing.assert_allclose(pallas, plain, rtol=1e-4, atol=1e-5 * largest)
