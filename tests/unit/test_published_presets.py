"""Points of AlgoPerf's submissions as presets: valid settings, named with their origin."""

from __future__ import annotations

import pytest
import yaml

from timetrial.bench.listing import listing
from timetrial.bench.suite import load_run, presets
from timetrial.framework import config as configuration
from timetrial.framework.config import ConfigError, RunConfig
from timetrial.optimizers import OPTIMIZERS
from timetrial.workloads import WORKLOADS

NAMES = [name for name in presets() if name.startswith("published/")]


def loaded(name: str) -> RunConfig:
    words = [f"preset={name}", "workload=flights_dlrm"]
    known = {"workloads": WORKLOADS, "optimizers": OPTIMIZERS, "presets": presets()}
    return configuration.load(words, **known)


@pytest.mark.parametrize("name", NAMES)
def test_a_point_loads_and_names_its_origin(name: str):
    config = loaded(name)
    text = presets()[name].read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    assert set(tree) == {"optimizer"}
    for key, value in tree["optimizer"].items():
        if key != "name":
            assert getattr(config.optimizer.settings, key) == value
    assert text.startswith("# AlgoPerf, ")
    assert "# Source: " in text
    assert "mlcommons/submissions_algorithms @12c8e4e" in text
    assert f"preset={name}" in text


def test_every_optimizer_with_a_published_point_has_one():
    names = {loaded(name).optimizer.name for name in NAMES}
    published = {"nadamw", "schedule_free_adamw", "muon", "ademamix", "lion", "cautious_nadamw"}
    assert names == published | {"distributed_shampoo"}
    assert all(name in listing() for name in NAMES)


def test_the_values_are_those_published():
    # submissions/self_tuning/muon/submission.py: the rate of matrices is a multiple of the other
    muon = loaded("published/self-tuning-muon").optimizer.settings
    assert muon.adamw_learning_rate == 0.0001357495179
    assert muon.learning_rate == pytest.approx(0.0001357495179 * 28.61130298)
    assert (muon.momentum, muon.nesterov, muon.warmup_fraction) == (0.9560745273, False, 0.0)
    nadamw = loaded("published/v05-external-baseline-5").optimizer.settings
    assert nadamw.learning_rate == 0.0017486387539278373
    assert nadamw.b1 == pytest.approx(1 - 0.06733926164)


def test_a_published_point_joins_the_budget_of_another_preset():
    words = ["preset=mini/flights_dlrm,published/self-tuning-lion", "optimizer.b1=0.5"]
    config = load_run(words)
    mini = load_run(["preset=mini/flights_dlrm", "optimizer=lion"])
    assert (config.workload, config.budget) == (mini.workload, mini.budget)
    assert config.optimizer.name == "lion"
    assert config.optimizer.settings.b1 == 0.5
    assert config.optimizer.settings.weight_decay == 0.5
    with pytest.raises(ConfigError, match="unknown preset 'nope'"):
        load_run(["preset=mini/flights_dlrm,nope"])
