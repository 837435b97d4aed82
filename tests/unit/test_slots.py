"""Shares of a machine: GPUs and cores of workers beside each other."""

from __future__ import annotations

import pytest

from timetrial.bench.launch.slots import Slot, divided, gpu_names
from timetrial.framework.errors import UserError


def test_one_worker_per_gpu_and_the_cores_divided():
    slots = divided(0, 0, 0, ["0", "1", "2", "3"], range(16))
    assert [slot.gpus for slot in slots] == [("0",), ("1",), ("2",), ("3",)]
    assert [slot.cores for slot in slots] == [tuple(range(n, n + 4)) for n in (0, 4, 8, 12)]
    assert slots[1].environment == {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "4"}


def test_workers_without_gpus_share_the_cores_unless_they_get_some():
    assert divided(0, 0, 0, [], [0, 1]) == [Slot(0), Slot(1)]
    assert divided(2, 0, 3, [], [2, 3, 4, 5, 6, 7, 8]) == [
        Slot(0, (), (2, 3, 4)),
        Slot(1, (), (5, 6, 7)),
    ]
    assert divided(5, 0, 0, [], [0, 1])[4] == Slot(4)


def test_a_worker_may_have_several_gpus():
    slots = divided(0, 2, 0, ["GPU-a", "GPU-b", "GPU-c"], range(8))
    assert slots == [Slot(0, ("GPU-a", "GPU-b"), tuple(range(8)))]
    assert divided(2, 1, 2, ["0", "1", "2"], range(8))[1] == Slot(1, ("1",), (2, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((2, 1, 0, ["0"], range(4)), "2 workers with 1 GPUs each, got a machine with 1 GPUs"),
        ((0, 2, 0, ["0"], range(4)), "1 workers with 2 GPUs each, got a machine with 1 GPUs"),
        ((2, 0, 3, [], range(4)), "launcher.cpus=3: expected at most 2 for 2 workers on 4 cores"),
    ],
)
def test_too_small_a_machine_is_refused(given, message: str):
    with pytest.raises(UserError, match=message):
        divided(*given)


def test_gpus_that_the_user_hides_are_not_used():
    assert gpu_names({"CUDA_VISIBLE_DEVICES": "3, GPU-x"}) == ["3", "GPU-x"]
    assert gpu_names({"CUDA_VISIBLE_DEVICES": ""}) == []
