"""Full-size updates on a GPU, on synthetic batches; ``make gpu`` runs them.

They need jax, flax, optax, numpy, msgpack and pytest only. With ``TIMETRIAL_GPU_DRY=1`` they run at
reduced size on any device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.gpu import cases, hardware, parts, steps
from timetrial.optimizers.velo import velo

DRY = os.environ.get("TIMETRIAL_GPU_DRY") == "1"
ROOT = Path(__file__).parents[2]
UPDATES = 10 if DRY else 20

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_a_gpu():
    if not DRY and jax.default_backend() != "gpu":
        pytest.skip("no GPU; TIMETRIAL_GPU_DRY=1 runs this at reduced size")


@pytest.mark.parametrize("optimizer", cases.OPTIMIZER_NAMES)
@pytest.mark.parametrize("name", cases.CASES)
def test_an_update_fits_and_lowers_the_loss_of_a_fixed_batch(name: str, optimizer: str):
    case = cases.CASES[name]
    workload = case.workload("tf32", reduced=DRY)
    tx = cases.optimizer(optimizer, weights="embedded")
    prepared = steps.prepare(workload, tx, case.synthetic(workload))
    plan = prepared.facts["memory"]["plan"]
    # At least the parameters and the two averages of Adam.
    assert 12 * prepared.facts["parameters"] < plan
    assert plan < hardware.memory_stats().get("bytes_limit", float("inf"))
    losses = [float(prepared.update()["loss"]) for _ in range(UPDATES)]
    assert np.isfinite(losses).all()
    assert min(losses[1:]) < losses[0]


@pytest.mark.parametrize("name", cases.CASES)
def test_bfloat16_is_close_to_float32(name: str):
    """Loss and direction of the gradient, at reduced size."""
    case = cases.CASES[name]

    def loss_and_gradient(precision: str) -> tuple[float, np.ndarray]:
        workload = case.workload(precision, reduced=True)
        batch = case.synthetic(workload)
        params, model_state = jax.jit(workload.init)(jax.random.key(0))
        function = jax.jit(jax.value_and_grad(workload.loss, has_aux=True))
        (loss, _), grads = function(params, model_state, batch, jax.random.key(1))
        return float(loss), np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])

    loss, gradient = loss_and_gradient("float32")
    rough_loss, rough = loss_and_gradient("bf16")
    assert rough_loss == pytest.approx(loss, rel=0.02)
    cosine = gradient @ rough / (np.linalg.norm(gradient) * np.linalg.norm(rough))
    assert cosine > 0.98


@pytest.mark.parametrize("kernels", ["plain", "pallas"])
def test_every_update_of_velo_on_the_device_is_that_of_the_cpu(monkeypatch, kernels: str):
    """The device takes all tiles at once or runs Pallas kernels, the CPU takes a few at a time."""
    shapes = {"table": (300, 64), "kernel": (3, 3, 8, 16), "bias": (16,), "scale": ()}
    rng = np.random.default_rng(0)
    params, grads = (
        {
            key: np.asarray(0.1 * rng.standard_normal(shape), np.float32)
            for key, shape in shapes.items()
        }
        for _ in range(2)
    )

    def changed(backend: str, device: jax.Device, kernels: str) -> dict[str, np.ndarray]:
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        tx = velo(100, meta_params=cases.random_weights(32, 16), kernels=kernels)
        with jax.default_device(device), jax.default_matmul_precision("float32"):
            now = jax.tree.map(jnp.asarray, params)
            state = tx.init(now)
            update = jax.jit(lambda g, s, p: tx.update(g, s, p, value=jnp.float32(1)))
            for _ in range(3):
                changes, state = update(jax.tree.map(jnp.asarray, grads), state, now)
                now = jax.tree.map(jnp.add, now, changes)
        return {key: np.asarray(now[key]) - params[key] for key in params}

    cpu = changed("cpu", jax.devices("cpu")[0], "plain")
    interpreted = DRY and kernels == "pallas"
    device = changed("cpu" if interpreted else "gpu", jax.local_devices()[0], kernels)
    for key in shapes:
        assert np.abs(cpu[key]).max() > 0
        np.testing.assert_allclose(
            device[key], cpu[key], rtol=1e-3, atol=1e-3 * np.abs(cpu[key]).max()
        )


def test_every_bit_repeats_with_deterministic_operations():
    """Rows of an embedding table are added to by many examples at once."""
    code = (
        "import json; from benchmarks.gpu import repeats;"
        "print(json.dumps(repeats.repeated(['criteo1tb'], 'adam')))"
    )
    flags = f"{os.environ.get('XLA_FLAGS', '')} {parts.DETERMINISTIC}"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    made = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(made.stdout.splitlines()[-1])["criteo1tb"]
    assert found["digests"][0] == found["digests"][1]
