"""SOAP and Distributed Shampoo against numbers of soap_jax and of AlgoPerf's version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from timetrial.optimizers.distributed_shampoo import Rule, scale_by_shampoo
from timetrial.optimizers.soap import scale_by_soap

FILE = Path(__file__).parents[1] / "fixtures" / "second_order" / "updates.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(FILE) as file:
        for key in file.files:
            name, tensor = key.split("/")
            found.setdefault(name, {})[tensor] = file[key]
    return found


def gradients(step: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(step)
    return {
        name: random.normal(size=shape).astype(np.float32)
        * (np.arange(1, shape[-1] + 1, dtype=np.float32) if shape else 1)
        for name, shape in shapes.items()
    }


def updates(tx: Any, expected: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    shapes = {name: array.shape[1:] for name, array in expected.items()}
    params = gradients(1000, shapes)
    state, update = tx.init(params), jax.jit(tx.update)
    made = []
    for step in range(len(next(iter(expected.values())))):
        found, state = update(gradients(step, shapes), state, params)
        made.append({name: np.asarray(array) for name, array in found.items()})
    return made


def differences(made: list[dict[str, np.ndarray]], expected: dict[str, np.ndarray]) -> np.ndarray:
    """Largest difference of each update, as a share of the tensor's largest element."""
    return np.array(
        [
            max(
                np.max(np.abs(found[name] - array[step])) / (np.max(np.abs(array[step])) + 1e-12)
                for name, array in expected.items()
            )
            for step, found in enumerate(made)
        ]
    )


@pytest.mark.parametrize(("name", "frequency"), [("soap_as_is", 1), ("soap_kept", 3)])
def test_soap_makes_the_updates_of_soap_jax(golden: Any, name: str, frequency: int):
    tx = scale_by_soap(precondition_frequency=frequency, max_precond_dim=20)
    assert np.max(differences(updates(tx, golden[name]), golden[name])) < 5e-5


def test_soap_jax_loses_second_moments_between_refreshes(golden: Any):
    tx = scale_by_soap(precondition_frequency=3, max_precond_dim=20)
    found = differences(updates(tx, golden["soap_stale"]), golden["soap_stale"])
    assert max(found[:2]) < 5e-5
    assert min(found[3:]) > 0.1


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("shampoo_blocks", {"block_size": 8, "merge_dims": 12, "weight_decay": 0.1}),
        ("shampoo_merged", {}),
        ("shampoo_submitted", {"max_precond_dim": 0, "weight_decay": 0.1}),
    ],
)
def test_shampoo_makes_the_updates_of_algoperfs_version(golden: Any, name: str, rule: Any):
    expected = {tensor: -array for tensor, array in golden[name].items()}
    tx = scale_by_shampoo(
        Rule(b2=0.99, matrix_eps=1e-3, start_step=5, precondition_frequency=3, **rule)
    )
    found = differences(updates(tx, expected), expected)
    assert np.max(found[:5]) < 1e-5  # the grafted optimizer
    assert np.max(found) < 1e-4  # inverse roots in float32 instead of float64
