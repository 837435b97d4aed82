"""Contract checks of the full-size workloads, on small data in the true formats."""

from __future__ import annotations

import functools
from pathlib import Path

import full_size
import numpy as np
import pytest
from raw_files import needs_data

from timetrial.bench.contracts.workloads import CHECKS, Check, Subject
from timetrial.framework.config import Choice
from timetrial.framework.types import Split
from timetrial.framework.workload import Batch, Share
from timetrial.workloads import WORKLOADS
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.imagenet_resnet import ImagenetResnetSettings

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
    "a_run_from_a_checkpoint_is_bitwise_the_same",
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


@pytest.mark.parametrize("name", NAMES)
def test_two_hosts_make_their_rows_of_the_same_batches(name: str, data: Path):
    workload = subject(name, data).workload
    shares = [Share(index, 2) for index in range(2)]
    for start in (0, 3):
        made = [workload.batches(5, start, share) for share in shares]
        same_rows(workload.train_batch(5, start), [next(batches) for batches in made])
        for batches in made:
            batches.close()
    halves = [workload.evaluation(Split.TEST, share) for share in shares]
    for whole, *parts in zip(workload.eval_batches(Split.TEST), *halves, strict=True):
        same_rows(whole, parts)


def same_rows(whole: Batch, parts: list[Batch]) -> None:
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
        assert len(parts[0][name]) < len(values)


def test_a_run_records_its_data_and_their_bad_records(data: Path):
    workload = subject("ogbg", data).workload
    assert workload.notes() == {
        "data.ogbg_molpcba/0.1.3.skipped": "0",
        "data.ogbg_molpcba/0.1.3.sample": "true",
    }
    assert set(workload.datasets()) == {"ogbg_molpcba/0.1.3"}


def test_without_data_a_workload_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    for name in NAMES:
        entry = WORKLOADS[name]
        assert entry.unavailable() == (
            f"its data are not prepared in {tmp_path}; timetrial data prepare {name} --source DIR"
        )
        with pytest.raises(DataError, match="expected a prepared data set, found none"):
            entry.make(entry.settings())
    monkeypatch.setattr("timetrial.workloads.data.missing.require_libraries", lacking)
    assert WORKLOADS["ogbg"].unavailable() == "workload ogbg: pip install 'timetrial[data]'"


def lacking(what: str) -> None:
    raise DataError(f"{what}: pip install 'timetrial[data]'")


def test_settings_are_checked():
    for settings, words in (
        ({"compute_type": "float16"}, "compute_type: expected one of float32, bfloat16, got"),
        ({"matmul_precision": "low"}, "matmul_precision: expected one of float32, tensorfloat32"),
        ({"batch_size": 12}, "batch_size: expected a multiple of parts=8, got 12"),
        ({"bn_groups": 3}, "bn_groups: expected a divisor of batch_size=1024, got 3"),
        ({"resize": "pil"}, "resize: expected one of cv2, exact, got 'pil'"),
        ({"threads": 0}, "threads: expected a value >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            ImagenetResnetSettings(**settings)
