"""Fixed lists of points: reproducible, prefix-stable, spread as documented, inside their space."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import qmc

from timetrial.bench.tune import points as lists
from timetrial.bench.tune.points import SEARCHES, algoperf_bases, algoperf_halton, points
from timetrial.framework.spaces import OneOf, Range
from timetrial.optimizers import OPTIMIZERS

SPACE = {
    "a": Range(1e-4, 1e-1),
    "b": Range(-2.0, 3.0, "linear"),
    "c": OneOf((0.1, 0.2)),
    "fixed": OneOf((7,)),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_the_same_again_and_inside_the_space(search: str):
    found = points(SPACE, search, 33, seed=5)
    assert found == points(SPACE, search, 33, seed=5)
    assert found != points(SPACE, search, 33, seed=6)
    assert len(found) == len({tuple(p.values()) for p in found}) == 33
    for point in found:
        assert list(point) == list(SPACE)
        assert 1e-4 <= point["a"] <= 1e-1
        assert -2 <= point["b"] <= 3
        assert point["c"] in (0.1, 0.2)
        assert point["fixed"] == 7


@pytest.mark.parametrize("search", [s for s in SEARCHES if s != "algoperf_halton"])
def test_more_points_begin_with_the_same_ones(search: str):
    many = points(SPACE, search, 50, seed=1)
    for number in (1, 2, 7, 32, 33):
        assert points(SPACE, search, number, seed=1) == many[:number]


@pytest.mark.parametrize("search", ["sobol", "halton"])
def test_choices_and_log_ranges_are_filled_evenly(search: str):
    found = points(SPACE, search, 64, seed=0)
    assert 28 <= sum(p["c"] == 0.1 for p in found) <= 36
    decades = np.histogram([math.log10(p["a"]) for p in found], bins=3, range=(-4, -1))[0]
    assert decades.min() >= 19


def test_discrepancies_are_as_documented():
    documented = {
        5: (0.187, 0.204, 0.099, 0.117),
        20: (0.067, 0.054, 0.012, 0.011),
        64: (0.0156, 0.0176, 0.0017, 0.0010),
    }
    kinds = (lists.algoperf_halton, lists.uniform, lists.halton, lists.sobol)
    for number, expected in documented.items():
        measured = [
            np.mean([qmc.discrepancy(kind(4, number, seed)) for seed in range(20)])
            for kind in kinds
        ]
        digits = 3 if number < 64 else 4
        assert tuple(round(float(m), digits) for m in measured) == pytest.approx(
            expected, abs=1.01 * 10**-digits
        )
        assert f"{number:<5} .{str(expected[0])[2:]}" in str(lists.__doc__)


def test_algoperfs_bases_are_the_largest_primes_below_997():
    assert algoperf_bases(4) == [971, 977, 983, 991]
    assert algoperf_bases(1) == [991]
    assert len(algoperf_bases(100)) == 100
    with pytest.raises(ValueError, match="dimensions"):
        algoperf_bases(170)


def test_algoperfs_points_by_their_definition():
    """Digit by digit in plain Python; only the order is ours to seed."""
    number, dimensions = 6, 3

    def column(base: int) -> list[float]:
        generator = np.random.RandomState(base)
        digits = list(range(1, base))
        generator.shuffle(digits)
        digits = [0, *digits]
        shift = generator.random_sample()
        values = []
        for index in range(101, 101 + number):
            value, scale = 0.0, 1.0
            while index:
                scale /= base
                value += digits[index % base] * scale
                index //= base
            values.append((value + shift) % 1.0)
        return values

    expected = sorted(zip(*map(column, (977, 983, 991)), strict=True))
    for seed in (0, 1):
        np.testing.assert_allclose(
            sorted(map(tuple, algoperf_halton(dimensions, number, seed))), expected, atol=1e-12
        )
    assert not np.array_equal(algoperf_halton(3, 6, 0), algoperf_halton(3, 6, 1))


def test_algoperfs_search_counts_fixed_settings_as_dimensions():
    varied = {"a": Range(1.0, 2.0, "linear")}
    with_fixed = {**varied, "fixed": OneOf((1,))}
    one = sorted(p["a"] for p in points(varied, "algoperf_halton", 5, 0))
    other = sorted(p["a"] for p in points(with_fixed, "algoperf_halton", 5, 0))
    assert one != other


def test_the_whole_range_is_reached_and_never_left():
    among = Range(1e-7, 5e-5)
    assert among.at(0.0) == 1e-7
    assert among.at(1.0) == pytest.approx(5e-5, rel=1e-12)
    assert among.at(1.0) <= 5e-5
    assert among.at(0.5) == pytest.approx(math.sqrt(1e-7 * 5e-5))
    assert OneOf((1, 2, 3)).at(1.0) == 3
    assert [OneOf((1, 2)).at(x) for x in (0.0, 0.49, 0.5, 0.99)] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Range(2.0, 1.0),
        lambda: Range(1.0, 1.0),
        lambda: Range(0.0, 1.0),
        lambda: Range(-1.0, 1.0, "log"),
        lambda: Range(0.1, math.inf),
        lambda: Range(0.1, 1.0, "cubic"),
        lambda: OneOf(()),
        lambda: OneOf((1, 1)),
    ],
)
def test_impossible_values_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_algoperfs_spaces_are_as_published():
    spaces = {name: entry.space or {} for name, entry in OPTIMIZERS.built_in.items()}
    nadamw, adamw, momentum = spaces["nadamw"], spaces["adam"], spaces["nesterov"]
    assert nadamw["learning_rate"] == adamw["learning_rate"] == Range(1e-4, 1e-2)
    assert nadamw["one_minus_b1"] == Range(0.004, 0.1)
    assert adamw["one_minus_b1"] == Range(0.02, 0.5)
    assert nadamw["weight_decay"] == adamw["weight_decay"] == Range(0.005, 1.0)
    assert nadamw["b2"] == OneOf((0.999,))
    assert momentum == spaces["heavy_ball"]
    assert momentum["learning_rate"] == Range(0.02, 5.0)
    assert momentum["one_minus_momentum"] == Range(0.005, 0.3)
    assert momentum["weight_decay"] == Range(1e-7, 5e-5)
    assert momentum["decay_fraction"] == OneOf((0.9,))
    assert momentum["end_factor"] == OneOf((1e-3, 1e-2))
    for space in (nadamw, adamw, momentum):
        assert space["warmup_fraction"] == OneOf((0.05,))
        assert space["workload.label_smoothing"] == OneOf((0.1, 0.2))
        assert space["workload.dropout_rate"] == OneOf((0.0, 0.1))
    assert spaces["velo"]["prompt"] == Range(0.25, 2.0)
