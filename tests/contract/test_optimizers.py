"""Contract checks of every registered optimizer; new ones need no line here."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from timetrial.bench.contracts.optimizers import CHECKS, Check, Subject
from timetrial.framework.config import Choice
from timetrial.optimizers import OPTIMIZERS

# The variants of VeLO make the same update as VeLO itself, and compile for as long.
VARIANTS = ("velo_short", "velo_feed")
every_optimizer = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in VARIANTS else n for n in OPTIMIZERS.built_in],
)


# Published learning rates are meant for many more updates than the checks make.
LEAST_LEARNING_RATE = 5e-3


@functools.cache
def subject(name: str) -> Subject:
    settings = OPTIMIZERS[name].settings()
    rates = {
        field.name: max(getattr(settings, field.name), LEAST_LEARNING_RATE)
        for field in dataclasses.fields(settings)
        if field.name.endswith("learning_rate")
    }
    return Subject(Choice(name, dataclasses.replace(settings, **rates)))


@every_optimizer
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_is_kept(name: str, check: Check):
    check(subject(name))


@every_optimizer
def test_a_tenth_of_the_loss_goes_at_least(name: str):
    first, _ = subject(name).trained
    before, after = (first.evaluations[i].metrics["train/loss"] for i in (0, -1))
    assert after < 0.9 * before
