"""VeLO against trajectories of the reference implementation.

The files were computed with google/learned_optimization (Apache-2.0) by its HyperV2 optimizer,
its LearnedOptimizer wrapper and its optax wrapper, in float32 on a CPU, with random weights.
Errors are relative to the movement of a tensor over the run.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import velo_theta

from timetrial.optimizers.velo import core, loss_features, network, tensor_averages, velo
from timetrial.optimizers.velo.tiling import tiles

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "velo"
FILES = sorted(FIXTURES.glob("case*.npz"))
INJECTED = 5e-5


@pytest.fixture(autouse=True)
def _highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


class Case:
    """One golden file."""

    def __init__(self, file: pathlib.Path) -> None:
        self.data = dict(np.load(file))
        self.meta = json.loads(self.data["meta_json"].tobytes())
        self.names = self.meta["names"]
        theta = velo_theta.theta_from_seed(self.meta["theta_seed"], self.meta["H"], self.meta["K"])
        self.weights = velo_theta.nested(theta)
        self.theta = theta
        self.params = {n: jnp.asarray(self.data[f"params0/{n}"]) for n in self.names}
        self.length = self.meta["T"]

    def __getitem__(self, key: str) -> np.ndarray:
        return self.data[key]

    def grads(self, t: int) -> dict[str, np.ndarray]:
        return {n: self.data[f"grads/{n}"][t] for n in self.names}

    def error(self, params: Any, t: int) -> float:
        """Largest error after step t, relative to the displacement of the tensor."""
        errors = []
        for n in self.names:
            run = self.data[f"params/{n}"]
            displacement = np.abs(run - self.data[f"params0/{n}"]).max()
            worst = np.abs(np.asarray(params[n]) - run[t]).max()
            errors.append(worst / displacement if displacement > 0 else worst)
        return float(np.max(errors))

    def transformation(self, kernels: str) -> optax.GradientTransformationExtraArgs:
        more: dict[str, Any] = {"max_training_steps": 10**9}
        if self.meta["kind"] != "hyperv2":
            more = {key: self.meta[key] for key in ("weight_decay", "max_training_steps")}
        return velo(self.meta["num_steps"], meta_params=self.weights, kernels=kernels, **more)


def cases(*kinds: str) -> list[Any]:
    found = []
    for file in FILES:
        meta = json.loads(np.load(file)["meta_json"].tobytes())
        if not kinds or meta["kind"] in kinds:
            found.append(pytest.param(file, id=file.stem))
    return found


def both_ways(*kinds: str, fast: str = "") -> list[Any]:
    """Every file with plain XLA, and with Pallas kernels, which a CPU interprets.

    Files whose names do not begin with ``fast`` are slow.
    """
    found = []
    for file in cases(*kinds):
        marks = () if file.id.startswith(fast) else pytest.mark.slow
        slow = marks if file.id.startswith(fast or "case2") else pytest.mark.slow
        found.append(pytest.param(*file.values, "plain", id=f"{file.id}-plain", marks=marks))
        found.append(pytest.param(*file.values, "pallas", id=f"{file.id}-pallas", marks=slow))
    return found


def test_all_files_are_here():
    assert len(FILES) == 8


@pytest.mark.parametrize("file", cases())
def test_the_weights_are_those_of_the_file(file):
    case = Case(file)
    stored = {k: v for k, v in case.data.items() if k.startswith("theta/")}
    if stored:
        for name, path in velo_theta.GOLDEN_NAME.items():
            np.testing.assert_array_equal(case.theta[path], stored[f"theta/{name}"])
    else:
        total = sum(x.astype(np.float64).sum() for x in case.theta.values())
        assert total == pytest.approx(case.meta["theta_checksum"]["sum"], rel=1e-9)


@pytest.mark.parametrize(("file", "kernels"), both_ways())
def test_end_to_end(file, kernels):
    case = Case(file)
    tolerance = 2e-3 if case.meta["num_steps"] <= 2000 else 1e-1
    tx = case.transformation(kernels)
    params, state = case.params, tx.init(case.params)
    update = jax.jit(lambda g, s, p, loss: tx.update(g, s, p, value=loss))
    for t in range(case.length):
        updates, state = update(case.grads(t), state, params, case["loss"][t])
        if case.meta["kind"] == "optax":
            for n in case.names:
                run = case[f"params/{n}"]
                scale = np.abs(run - case[f"params0/{n}"]).max()
                np.testing.assert_allclose(
                    updates[n], case[f"optax_updates/{n}"][t], atol=INJECTED * scale, rtol=0
                )
        params = optax.apply_updates(params, updates)
        assert case.error(params, t) <= tolerance
    assert int(state.num_steps) == int(case.data.get("inner_num_steps", case.meta["num_steps"]))
    if "final_iteration" in case.data:
        assert int(state.updates) == int(case["final_iteration"])
    compare_state(case, state, params, tolerance)


def compare_state(case: Case, state: Any, params: Any, tolerance: float) -> None:
    averages = jax.jit(tensor_averages)(state, params)
    golden_names = {
        "momentum": "m", "rms": "rms", "row": "v_row", "column": "v_col", "diagonal": "v_diag"
    }  # fmt: skip
    for n in case.names:
        for ours, theirs in golden_names.items():
            stored = case[f"final_{theirs}/{n}"]
            if ours not in averages[n]:
                assert stored.size == 0
                continue
            assert averages[n][ours].shape == stored.shape
            np.testing.assert_allclose(
                averages[n][ours], stored, rtol=1e-5, atol=1e-6 * np.abs(stored).max()
            )
    network_state = state.network
    for ours, theirs in ((network_state.hidden, "hidden"), (network_state.cell, "cell")):
        np.testing.assert_allclose(ours, case[f"final_lstm_{theirs}"], atol=tolerance)
    buffer = {
        "means": state.loss.means,
        "running_min": state.loss.minima,
        "decays": state.loss.decays,
        "iteration": state.loss.seen,
    }
    for name, value in buffer.items():
        np.testing.assert_allclose(value, case[f"final_loss_buffer/{name}"], rtol=tolerance)


@pytest.mark.parametrize(("file", "kernels"), both_ways("hyperv2", fast="case1"))
def test_with_the_loss_features_of_the_file(file, kernels):
    case = Case(file)
    theta = network.read_meta_parameters(case.weights)
    shapes = tuple(case.params[n].shape for n in case.names)
    plan = tiles.make_tiling(shapes, pallas=kernels == "pallas")
    state = core.init_state(theta, plan)
    leaves = [case.params[n] for n in case.names]
    update = jax.jit(
        lambda s, g, p, features, fraction: core.learned_update(
            theta, plan, s, g, p, features, fraction
        )
    )
    for t in range(case.length):
        fraction = jnp.float32(t) / jnp.float32(case.meta["num_steps"])
        grads = list(case.grads(t).values())
        old = leaves
        changes, state, trace = update(state, grads, leaves, case["loss_features"][t], fraction)
        by_leaf = dict(zip(plan.leaves.tolist(), changes, strict=True))
        leaves = [p + by_leaf[i] for i, p in enumerate(leaves)]
        assert case.error(dict(zip(case.names, leaves, strict=True)), t) <= INJECTED
        np.testing.assert_allclose(trace.lstm_inputs, case["lstm_inputs"][t], atol=2e-5)
        np.testing.assert_allclose(trace.controls, case["controls"][t], atol=2e-5)
        np.testing.assert_allclose(trace.step_size, case["lr_mult"][t], rtol=2e-5, atol=2e-5)
        if t == 3:
            compare_inputs(case, plan, state, grads, old, np.asarray(trace.second_moments))


def compare_inputs(
    case: Case,
    plan: tiles.Tiling,
    state: core.NetworkState,
    grads: list[np.ndarray],
    params: list[Any],
    second_moments: np.ndarray,
) -> None:
    """The network's normalised inputs, written out from our averages and our second moments."""
    averages = core.tensor_averages(plan, state, len(params))
    for i, name in enumerate(case.names):
        shape = np.shape(params[i])
        ours = {k: np.asarray(v) for k, v in averages[i].items()}
        inputs = mlp_inputs(grads[i], np.asarray(params[i]), ours)
        ours_normalised = inputs / np.sqrt(1e-5 + second_moments[i])
        stored = case[f"mlp_inputs_step3/{name}"].reshape(*shape, 30)
        np.testing.assert_allclose(ours_normalised, stored, rtol=1e-4, atol=1e-5)


def mlp_inputs(
    grads: np.ndarray, params: np.ndarray, averages: dict[str, np.ndarray]
) -> np.ndarray:
    g = np.clip(grads, -1000, 1000)[..., None]
    m, v = averages["momentum"], averages["rms"]
    root = 1 / np.sqrt(v + 1e-6)
    if "diagonal" in averages:
        row = column = averages["diagonal"]
        of_grads, of_momentum = 1 / np.sqrt(np.maximum(row + 1e-9, 1e-9)), 1 / np.sqrt(row)
    else:
        order = np.argsort(grads.shape, kind="stable")
        d1, d0 = int(order[-2]), int(order[-1])
        row, column = averages["row"], averages["column"]
        relative = row / (row.mean(d1 - 1 if d1 > d0 else d1, keepdims=True) + 1e-9)
        of_row = np.expand_dims(1 / np.sqrt(np.maximum(relative, 1e-9)), d0)
        of_column = np.expand_dims(1 / np.sqrt(np.maximum(column, 1e-9)), d1)
        of_grads = of_momentum = of_row * of_column
        row = np.broadcast_to(np.expand_dims(row, d0), m.shape)
        column = np.broadcast_to(np.expand_dims(column, d1), m.shape)
    columns = [g, np.clip(g, -0.1, 0.1), params[..., None], m, v, m * root, root]
    columns += [g * of_grads, g * root, row, column, 1 / np.sqrt(row + 1e-8)]
    columns += [1 / np.sqrt(column + 1e-8), m * of_momentum]
    return np.concatenate(columns, axis=-1)


@pytest.mark.parametrize("file", cases("hyperv2"))
def test_loss_features(file):
    case = Case(file)
    state = loss_features.init_loss_state(case.meta["num_steps"])
    # In float32 the means nearly cancel when they forget slowly: the reference itself changes by
    # up to 1e-2 between compiled and uncompiled.
    tolerance = 2e-3 if case.meta["num_steps"] <= 2000 else 2e-2
    update = jax.jit(loss_features.update_loss_state)
    for t in range(case.length):
        state, features = update(state, case["loss"][t])
        np.testing.assert_allclose(features, case["loss_features"][t], atol=tolerance)
