from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.workloads.data import batching


@given(st.integers(1, 60), st.data(), st.integers(0, 2**32 - 1))
def test_an_epoch_takes_every_example_at_most_once(size: int, data: st.DataObject, seed: int):
    batch_size = data.draw(st.integers(1, size))
    steps = size // batch_size
    epoch = [batching.train_rows(size, batch_size, seed, step) for step in range(steps)]
    rows = np.concatenate(epoch)
    assert len(rows) == steps * batch_size
    assert len(np.unique(rows)) == len(rows)
    assert rows.min() >= 0
    assert rows.max() < size


def test_every_epoch_and_every_seed_has_its_order():
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(
            np.concatenate([batching.train_rows(32, 8, seed, epoch * 4 + i) for i in range(4)])
        )

    orders = {order(seed, epoch) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert order(3, 2) == order(3, 2)


def test_what_one_epoch_leaves_out_others_take():
    left_out = [set(range(10)) - set(batching.train_rows(10, 9, 0, epoch)) for epoch in range(50)]
    assert len(set.union(*left_out)) > 5


def test_a_fixed_subset_is_fixed_sorted_and_spread():
    rows = batching.fixed_subset(1000, 100, "n")
    np.testing.assert_array_equal(rows, batching.fixed_subset(1000, 100, "n"))
    assert (np.diff(rows) > 0).all()
    assert 400 < rows.mean() < 600
    with pytest.raises(ValueError, match=r"test_examples: expected at most 5 .* got 6"):
        batching.fixed_subset(5, 6, "test_examples")


@given(st.integers(1, 50), st.integers(1, 60))
def test_padding_has_weight_zero_and_nothing_is_lost(count: int, batch_size: int):
    data = {"x": np.arange(100)}
    batches = batching.eval_batches(data, count, batch_size, what="n")
    assert {len(b["x"]) for b in batches} == {batch_size}
    kept = np.concatenate([b["x"][b["weight"] == 1] for b in batches])
    np.testing.assert_array_equal(kept, batching.fixed_subset(100, count, "n"))
    assert sum(b["weight"].sum() for b in batches) == count


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match=r"batch_size: expected at most 10 .* got 11"):
        batching.check_batch_size(11, 10)
