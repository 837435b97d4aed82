"""Contract checks of every registered workload; new ones need no line here.

Further tests cover the common settings of this package's workloads.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

from timetrial.bench.contracts.workloads import CHECKS, SMALL, Check, Subject
from timetrial.framework.config import Choice
from timetrial.framework.types import Split
from timetrial.workloads import WORKLOADS
from timetrial.workloads.data import embedded_data

QUICK: dict[str, dict[str, Any]] = {
    "fashion_mnist_resnet": {"stage_sizes": (1, 1), "num_filters": 4},
    "icbm_unet": {"image_size": 24, "num_pool_layers": 1, "train_images": 100},
    "assays_gnn": {"latent_dim": 8, "hidden_dims": (8,)},
}
"""Settings that compile sooner; a workload that has none is tested as it is."""

MINI = [name for name, entry in WORKLOADS.built_in.items() if isinstance(entry.make, type)]
"""Workloads on embedded data; ``test_full_size`` tests the others."""

every_workload = pytest.mark.parametrize("name", MINI)


@functools.cache
def subject(name: str) -> Subject:
    return Subject(Choice(name, WORKLOADS[name].settings(**QUICK.get(name, {}), **SMALL)))


@every_workload
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_is_kept(name: str, check: Check):
    check(subject(name))


@every_workload
def test_all_three_splits_are_there_and_hold_as_many_examples_as_the_settings_say(name: str):
    workload = subject(name).workload
    assert tuple(workload.splits) == tuple(Split)
    for split in Split:
        batches = list(workload.eval_batches(split))
        count, size = SMALL[f"{split}_examples"], SMALL["eval_batch_size"]
        assert len(batches) == -(-count // size)
        weights = np.concatenate([batch["weight"] for batch in batches])
        assert set(np.unique(weights)) <= {0, 1}
        assert weights.reshape(len(weights), -1).max(axis=1).sum() == count


@every_workload
def test_digests_are_those_of_the_manifest(name: str):
    assert subject(name).workload.datasets()
    for data, digest in subject(name).workload.datasets().items():
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
    cadence = {"step_hint": 11, "eval_every_steps": None, "eval_every_seconds": 1.5}
    workload = subject(name).make(**cadence)
    assert {key: getattr(workload, key) for key in cadence} == cadence
