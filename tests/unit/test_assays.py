from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from timetrial.workloads import assays
from timetrial.workloads.data import batching, molecules


@functools.cache
def evaluated() -> tuple[assays.AssaysGnn, list[Any]]:
    settings = assays.AssaysGnnSettings(
        latent_dim=8, hidden_dims=(8,), validation_examples=300, eval_batch_size=64
    )
    workload = assays.AssaysGnn(settings)
    params, _ = jax.jit(workload.init)(jax.random.key(0))
    step = jax.jit(workload.eval_step)
    results = [jax.device_get(step(params, {}, b)) for b in workload.eval_batches("validation")]
    return workload, results


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels (-1: unknown) of the 300 molecules, padding taken out."""
    data = molecules.load_molecules()["validation"]
    labels = data.labels[batching.fixed_subset(data.count, 300, "n")]
    logits = np.concatenate([outputs["logits"][:64] for _, outputs in evaluated()[1]])[:300]
    return logits, labels


def test_the_loss_is_a_mean_over_all_known_labels():
    logits, labels = examples()
    known = labels >= 0
    z, y = logits[known], labels[known]
    losses = np.log1p(np.exp(-np.where(y == 1, z, -z)))
    total, weight = np.sum([sums["loss"] for sums, _ in evaluated()[1]], axis=0)
    assert weight == known.sum()
    assert total / weight == pytest.approx(losses.mean(), rel=1e-5)


def test_average_precision_is_over_the_known_labels_of_each_task():
    logits, labels = examples()
    scores = 1 / (1 + np.exp(-logits))
    expected = np.mean(
        [
            average_precision_score(y[y >= 0], s[y >= 0])
            for y, s in zip(labels.T, scores.T, strict=True)
        ]
    )
    workload, results = evaluated()
    found = workload.finish([outputs for _, outputs in results])
    assert found == {"mean_average_precision": pytest.approx(expected, rel=1e-6)}
