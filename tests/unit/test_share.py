from __future__ import annotations

import numpy as np
import pytest
from tiny import TinyWorkload

from timetrial.framework.types import Split
from timetrial.framework.workload import WHOLE, Share


def test_shares_are_consecutive_parts_of_all_batches():
    workload = TinyWorkload()
    hosts = [Share(index, 2) for index in range(2)]
    whole = workload.train_batch(3, 7)
    parts = [next(workload.batches(3, 7, host)) for host in hosts]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
    for number, batch in enumerate(workload.eval_batches(Split.TEST)):
        parts = [list(workload.evaluation(Split.TEST, host))[number] for host in hosts]
        for name, values in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def test_the_whole_batch_is_passed_on_as_it_is():
    batch = {"x": np.zeros(3), "n": np.zeros(2)}
    assert WHOLE.rows(batch) is batch


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="expected a multiple of 2 hosts, got 3"):
        Share(0, 2).rows({"x": np.zeros(3)})
    with pytest.raises(ValueError, match="equally many rows to divide"):
        Share(0, 2).rows({"x": np.zeros(4), "y": np.zeros(2)})
    with pytest.raises(ValueError, match="expected 0 <= index < count"):
        Share(2, 2)
