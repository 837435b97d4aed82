"""Contract checks of every registered optimizer; new ones need no line here."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
from celo_theta import working_theta

from timetrial.bench.contracts.optimizers import CHECKS, Check, Subject
from timetrial.framework.config import Choice
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.weights.files import save

# The variants of VeLO make the same update as VeLO itself, and compile for as long; Celo does, too.
# Celo2 is Celo2-base with an orthogonalization that a golden test compares.
VARIANTS = ("velo_short", "velo_feed", "celo", "celo2")
every_optimizer = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in VARIANTS else n for n in OPTIMIZERS.built_in],
)


WITHOUT_WEIGHTS = ("celo", "celo_adam")
"""Optimizers without weights in the package; they get some that train."""

# Published learning rates are meant for many more updates than the checks make.
LEAST_LEARNING_RATE = 5e-3


@functools.cache
def subject(name: str, directory: Path) -> Subject:
    given: dict[str, Any] = {}
    if name in WITHOUT_WEIGHTS:
        save(directory / f"{name}.state", working_theta(name))
        given["weights"] = str(directory / f"{name}.state")
    settings = OPTIMIZERS[name].settings(**given)
    rates = {
        field.name: max(getattr(settings, field.name), LEAST_LEARNING_RATE)
        for field in dataclasses.fields(settings)
        if field.name.endswith("learning_rate")
    }
    return Subject(Choice(name, dataclasses.replace(settings, **rates)))


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@every_optimizer
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_is_kept(name: str, check: Check, directory: Path):
    check(subject(name, directory))


@every_optimizer
def test_a_tenth_of_the_loss_goes_at_least(name: str, directory: Path):
    first, _ = subject(name, directory).trained
    before, after = (first.evaluations[i].metrics["train/loss"] for i in (0, -1))
    assert after < 0.9 * before
