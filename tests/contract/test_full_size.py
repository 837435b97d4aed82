"""Contract checks of the full-size workloads, on small data in the true formats."""

from __future__ import annotations

import functools
from pathlib import Path

import full_size
import pytest
from raw_files import needs_data

from timetrial.bench.contracts.workloads import CHECKS, Check, Subject
from timetrial.framework.config import Choice
from timetrial.workloads import WORKLOADS

pytestmark = needs_data

NAMES = list(full_size.PREPARE)


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIMETRIAL_DATA", str(root))
        yield root
    subject.cache_clear()


@functools.cache
def subject(name: str, root: Path) -> Subject:
    full_size.prepare(name, root)
    return Subject(Choice(name, WORKLOADS[name].settings(**full_size.SETTINGS[name])))


SLOW = (
    "it_learns",
    "metrics_do_not_depend_on_the_evaluation_batch_size",
    "padding_counts_for_nothing",
)
"""Checks that train the model first."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "check",
    [pytest.param(check, marks=pytest.mark.slow) if check.__name__ in SLOW else check
     for check in CHECKS],
    ids=[check.__name__ for check in CHECKS],
)  # fmt: skip
def test_the_contract_is_kept(name: str, check: Check, data: Path):
    check(subject(name, data))
