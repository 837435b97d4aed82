"""Digests of runs: recorded runs are found again only while their digests stay the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from timetrial.bench import suite as suites
from timetrial.bench.metatrain import config as metatraining
from timetrial.framework import config as configuration
from timetrial.framework.config import RunConfig
from timetrial.framework.entries import Entry
from timetrial.optimizers.metatraining.stages import stages_of
from timetrial.workloads import WORKLOADS

FILE = Path(__file__).with_suffix(".json")
"""Identities as computed before settings were read by their types; suite quick since its cadence of
15 evaluations."""

OF_ALGOPERF = ("criteo1tb", "fastmri", "imagenet_resnet", "ogbg")


@dataclasses.dataclass(frozen=True)
class Settings:
    step_hint: int = 100
    label_smoothing: float = 0.0


@pytest.fixture(autouse=True)
def nothing_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIMETRIAL_CACHE", str(tmp_path))
    for name in OF_ALGOPERF:  # their workloads are not in this package
        monkeypatch.setitem(WORKLOADS, name, Entry(name, Settings, lambda settings: settings))


def identity(config: RunConfig) -> str:
    """Digest of a configuration, and of its flat parameters."""
    flat = json.dumps(configuration.flat(config), sort_keys=True)
    return f"{configuration.digest(config)} {hashlib.sha256(flat.encode()).hexdigest()[:16]}"


def races() -> dict[str, str]:
    """Identity of every run of the two suites."""
    found = {}
    for name in ("quick", "mini"):
        suite, tracking = suites.load_suite([f"suite={name}"])
        for workload in suite.workloads:
            for config in suites.plan(suite, tracking, workload, 12.5):
                budget = config.budget
                limits = f"{budget.steps} {budget.seconds} {budget.also_seconds}"
                who = config.label or config.optimizer.name
                found[f"{name} {workload} {who} {config.seed} {limits}"] = identity(config)
    return found


STORED = json.loads(FILE.read_text())


def test_every_preset_and_workload_with_every_optimizer_is_the_run_that_it_was():
    stored = STORED["runs"]
    assert {words: identity(suites.load_run(words.split())) for words in stored} == stored
    assert len(stored) > 150


def test_every_run_of_the_suites_is_the_run_that_it_was():
    stored, found = STORED["races"], races()
    assert {run: found.get(run) for run in stored} == stored
    assert len(stored) > 200


def test_the_meta_training_that_made_the_embedded_weights_is_the_one_that_it_was():
    settings, _ = metatraining.read([])
    (make_stage,) = stages_of(settings)
    assert metatraining.identity(make_stage(None)) == STORED["metatraining"]
