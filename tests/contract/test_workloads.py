"""What every registered workload must keep to; a new one is tested by being registered."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial.framework.step import make_train_step, weighted_mean
from timetrial.framework.types import Direction, PyTree, TrainState
from timetrial.framework.workload import Batch, Workload
from timetrial.workloads import WORKLOADS
from timetrial.workloads.data import embedded_data

QUICK: dict[str, dict[str, Any]] = {
    "fashion_mnist_resnet": {"stage_sizes": (1, 1), "num_filters": 4},
    "icbm_unet": {"image_size": 24, "num_pool_layers": 1, "train_images": 100},
    "assays_gnn": {"latent_dim": 8, "hidden_dims": (8,)},
}
"""Settings that compile sooner; a workload that has none is tested as it is."""

SMALL = {"train_examples": 40, "validation_examples": 33, "test_examples": 20}
every_workload = pytest.mark.parametrize("name", WORKLOADS)


def make(name: str, **settings: Any) -> Workload:
    entry = WORKLOADS[name]
    return entry.make(entry.settings(**QUICK.get(name, {}), **SMALL, **settings))


@functools.cache
def small(name: str) -> Workload:
    return make(name, batch_size=4, eval_batch_size=16)


@functools.cache
def compiled_init(name: str) -> Any:
    return jax.jit(small(name).init).lower(jax.random.key(0)).compile()


@functools.cache
def trained(name: str) -> tuple[PyTree, PyTree, list[float]]:
    """Parameters, model state and losses after 25 updates with Adam."""
    workload = make(name, batch_size=16)
    params, model_state = compiled_init(name)(jax.random.key(0))
    tx = optax.adam(5e-3)
    state = TrainState(jnp.int32(0), params, model_state, tx.init(params), jax.random.key(1))
    step = jax.jit(make_train_step(workload, tx))
    losses = []
    for t in range(25):
        state, metrics = step(state, workload.train_batch(0, t), {})
        losses.append(float(metrics["loss"]))
    return state.params, state.model_state, losses


@functools.cache
def eval_step(workload: Workload) -> Any:
    return jax.jit(workload.eval_step)


def evaluate(workload: Workload, params: PyTree, model_state: PyTree, split: str) -> Any:
    results = [
        jax.device_get(eval_step(workload)(params, model_state, batch))
        for batch in workload.eval_batches(split)
    ]
    sums = [s for s, _ in results]
    metrics = {name: weighted_mean([s[name] for s in sums]) for name in sums[0]}
    weights = {name: sum(s[name][1] for s in sums) for name in sums[0]}
    return metrics | workload.finish([outputs for _, outputs in results]), weights


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def shapes(batch: Batch) -> dict[str, Any]:
    return {name: (values.shape, values.dtype) for name, values in batch.items()}


@every_workload
def test_the_entry_describes_it(name: str):
    workload = small(name)
    assert workload.name == name
    assert isinstance(workload.direction, Direction)
    assert workload.metric in WORKLOADS[name].summary
    assert workload.direction.value.replace("ize", "ise") in WORKLOADS[name].summary
    assert tuple(workload.splits) == ("train", "validation", "test")
    assert workload.step_hint >= 1


@every_workload
def test_batches_are_a_function_of_seed_and_step(name: str):
    workload, other = small(name), make(name, batch_size=4, eval_batch_size=16)
    forward = [workload.train_batch(7, step) for step in range(6)]
    backward = [other.train_batch(7, step) for step in reversed(range(6))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    assert same(workload.train_batch(7, 10**7), other.train_batch(7, 10**7))
    assert not same(forward[0], forward[1])
    assert not same(forward[0], workload.train_batch(8, 0))
    assert all(shapes(batch) == shapes(forward[0]) for batch in forward)
    assert all(np.isfinite(values).all() for values in forward[0].values())


@every_workload
def test_changing_a_batch_changes_no_other(name: str):
    workload = make(name, batch_size=4, eval_batch_size=16)
    before = {k: v.copy() for k, v in workload.train_batch(0, 0).items()}
    for values in workload.train_batch(0, 0).values():
        values[...] = 0
    assert same(workload.train_batch(0, 0), before)


@every_workload
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_evaluation_batches_are_fixed_and_of_one_shape(name: str, split: str):
    workload = small(name)
    batches = workload.eval_batches(split)
    assert len(batches) == -(-SMALL[f"{split}_examples"] // 16)
    for batch, again in zip(batches, workload.eval_batches(split), strict=True):
        assert shapes(batch) == shapes(workload.eval_batches("train")[0])
        assert same(batch, again)
        assert set(np.unique(batch["weight"])) <= {0, 1}
    weights = np.concatenate([batch["weight"] for batch in batches])
    kept = weights.reshape(len(weights), -1).max(axis=1).sum()
    assert kept == SMALL[f"{split}_examples"]


@every_workload
def test_it_learns(name: str):
    workload = small(name)
    params, model_state, losses = trained(name)
    before, _ = evaluate(workload, *compiled_init(name)(jax.random.key(0)), "train")
    after, _ = evaluate(workload, params, model_state, "train")
    assert workload.metric in after
    assert after["loss"] < before["loss"]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@every_workload
def test_metrics_do_not_depend_on_how_evaluation_is_batched(name: str):
    params, model_state, _ = trained(name)
    for size in (7, 64):
        workload = make(name, batch_size=4, eval_batch_size=size)
        for split in ("train", "validation"):
            expected, expected_weight = evaluate(small(name), params, model_state, split)
            metrics, weight = evaluate(workload, params, model_state, split)
            assert metrics == pytest.approx(expected, rel=2e-5, abs=2e-6), size
            assert weight == pytest.approx(expected_weight)


@every_workload
def test_padding_counts_for_nothing(name: str):
    workload = small(name)
    params, model_state, _ = trained(name)
    batch = dict(workload.eval_batches("validation")[-1])
    assert batch["weight"].sum() < batch["weight"].size
    expected, _ = eval_step(workload)(params, model_state, batch)
    y = batch["y"].copy()
    y[batch["weight"] == 0] = 1 - y[batch["weight"] == 0]
    sums, _ = eval_step(workload)(params, model_state, batch | {"y": y})
    for key, pair in sums.items():
        np.testing.assert_allclose(pair, expected[key], rtol=1e-6)


@every_workload
def test_initialisation_is_a_function_of_the_key(name: str):
    init = compiled_init(name)
    first, again, other = init(jax.random.key(0)), init(jax.random.key(0)), init(jax.random.key(1))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert not jax.tree.all(jax.tree.map(np.array_equal, first, other))
    assert isinstance(first[1], dict)


@every_workload
def test_training_state_keeps_its_structure(name: str):
    workload = small(name)
    params, model_state = jax.eval_shape(workload.init, jax.random.key(0))
    batch = workload.train_batch(0, 0)
    loss, new = jax.eval_shape(workload.loss, params, model_state, batch, jax.random.key(1))
    assert loss.shape == ()
    assert new == model_state
    sums, _ = jax.eval_shape(
        workload.eval_step, params, model_state, workload.eval_batches("test")[0]
    )
    assert {value.shape for pair in sums.values() for value in pair} == {()}


@every_workload
def test_digests_are_those_of_the_manifest(name: str):
    assert small(name).datasets()
    for data, digest in small(name).datasets().items():
        assert embedded_data.manifest()[data]["sha256"] == digest


@every_workload
def test_sizes_are_checked_at_construction(name: str):
    settings = WORKLOADS[name].settings
    for field in dataclasses.fields(settings):
        value = getattr(settings(), field.name)
        if isinstance(value, int) and not isinstance(value, bool):
            with pytest.raises(ValueError, match=rf"{field.name}: expected .* got -1"):
                WORKLOADS[name].make(settings(**{field.name: -1}))
        if isinstance(value, tuple):
            with pytest.raises(ValueError, match=rf"{field.name}: expected .* got \(-1, 1\)"):
                WORKLOADS[name].make(settings(**{field.name: (-1, 1)}))
            with pytest.raises(ValueError, match=rf"{field.name}: expected .* got \(\)"):
                WORKLOADS[name].make(settings(**{field.name: ()}))
    for field in ("dropout_rate", "label_smoothing"):
        if hasattr(settings(), field):
            with pytest.raises(ValueError, match=rf"{field}: expected .*\[0, 1\).* got 1"):
                settings(**{field: 1.0})


@every_workload
@pytest.mark.parametrize("field", ["batch_size", "train_examples"])
def test_more_examples_than_there_are_is_refused(name: str, field: str):
    entry = WORKLOADS[name]
    with pytest.raises(ValueError, match=rf"{field}: expected at most [\d]+ .* got 1000000"):
        entry.make(entry.settings(**{field: 1_000_000}))


@every_workload
def test_cadence_is_taken_from_the_settings(name: str):
    workload = make(name, step_hint=11, eval_every_steps=None, eval_every_seconds=1.5)
    assert workload.step_hint == 11
    assert workload.eval_every_steps is None
    assert workload.eval_every_seconds == 1.5
