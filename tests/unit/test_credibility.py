"""When charged seconds are credible: limits, and runs measured with and without other processes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from timetrial.framework.clock import Clock
from timetrial.framework.credibility import (
    LEAST_SECONDS,
    MOST_OTHERS,
    ChargedTime,
    allowed_others,
    doubt,
)
from timetrial.framework.meter import Meter

IDLE = ChargedTime(4.0, 6.0, "cpu", 2, others=0.005, stolen=0.0, usual_cpu=1.5)

# Charged seconds and share of other processes beside one burner per core, on 2 cores: heavy ball
# and VeLO on four workloads, some of them on a machine that was busy already.
BESIDE_BURNERS = [
    *((0.92, 0.526), (1.03, 0.564), (0.30, 0.425), (0.17, 0.555), (0.50, 0.475)),
    *((0.65, 0.482), (1.03, 0.565), (0.41, 0.558), (0.14, 0.478), (0.62, 0.578)),
    *((0.83, 0.693), (0.86, 0.706), (1.07, 0.748), (7.05, 0.765), (7.00, 0.760)),
    *((5.69, 0.722), (7.45, 0.811), (7.72, 0.822), (3.43, 0.661), (14.0, 0.847)),
]


def test_an_undisturbed_run_is_credible():
    assert doubt(IDLE) == ""
    assert doubt(ChargedTime(4.0, 6.0, "cpu", 2)) == ""  # nothing is known: nothing speaks against


def test_20_of_20_runs_beside_a_burner_per_core_are_marked():
    """Those too short to be judged are of workloads whose runs are longer in a suite."""
    for seconds, others in BESIDE_BURNERS:
        run = dataclasses.replace(IDLE, seconds=max(seconds, LEAST_SECONDS), others=others)
        assert doubt(run).startswith("Other processes used ")


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0, 20.0])
@pytest.mark.parametrize("cores", [1, 2, 16])
def test_undisturbed_runs_are_not_marked_although_cpu_time_is_counted_by_sampling(
    seconds: float, cores: int
):
    """The process is busy 80 % of the time, others 0.5 %; each tick finds a core busy or not."""
    rng = np.random.default_rng(0)
    ticks = int(100 * cores * seconds)
    busy = rng.binomial(ticks, 0.805, size=10_000) / ticks
    runs = [
        dataclasses.replace(IDLE, seconds=seconds, cores=cores, others=max(0.0, share - 0.8))
        for share in busy
    ]
    marked = [bool(doubt(dataclasses.replace(run, usual_cpu=None))) for run in runs]
    assert sum(marked[:20]) == 0
    assert sum(marked) <= 10  # of 10,000


def test_the_limit_shrinks_to_its_value_with_the_time_observed():
    assert allowed_others("cpu", 1.0) == pytest.approx(0.20)
    assert allowed_others("cpu", 100.0) == pytest.approx(0.065)
    assert allowed_others("cpu", 1e9) == pytest.approx(MOST_OTHERS, rel=1e-3)
    assert allowed_others("gpu", 1e9) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"others": 0.48},
            "Other processes used 48 % of the 2 cores during 4 charged seconds (allowed: 10 %).",
        ),
        (
            {"others": 0.9, "cores": 1, "seconds": 16.0},
            "Other processes used 90 % of the only core during 16 charged seconds (allowed: 9 %).",
        ),
        (
            {"stolen": 0.2},
            "The hypervisor took 20 % of the 2 cores during 4 charged seconds (allowed: 5 %).",
        ),
        (
            {"cpu_seconds": 3.0},
            "The run had 0.75 CPU seconds per charged second, 50 % of the 1.50 of its calibration "
            "(allowed: 70 %).",
        ),
        (
            {"gpu_others": 2.0, "platform": "gpu", "seconds": 0.01},
            "2 other processes computed on the GPU (allowed: none).",
        ),
    ],
)
def test_reasons_are_sentences_with_the_numbers(changes: dict, reason: str):
    assert doubt(dataclasses.replace(IDLE, **changes)) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"others": 0.10},
        {"stolen": 0.05},
        {"cpu_seconds": 0.7 * 1.5 * 4.0},
        {"cpu_seconds": 60.0},
        {"cpu_seconds": 0.1, "usual_cpu": None},
        {"seconds": 0.49, "others": 1.0, "stolen": 1.0},
        {"platform": "gpu", "others": 0.5, "cpu_seconds": 0.1},
        {"platform": "gpu", "gpu_others": 0.0},
    ],
)
def test_at_the_limits_and_without_measurements_seconds_are_credible(changes: dict):
    assert doubt(dataclasses.replace(IDLE, **changes)) == ""


def test_a_clock_without_a_meter_is_not_judged():
    from timetrial.bench.timing.doubts import doubt_about

    seconds = iter(np.arange(0.0, 1000.0, 10.0))
    assert doubt_about(Clock(now=lambda: next(seconds))) == ""
    clock = Clock(now=lambda: next(seconds), cpu=lambda: 0.0, meter=Meter({0, 1}))
    with clock.charge("train"):
        pass
    assert "0.00 CPU seconds per charged second" in doubt_about(clock, usual_cpu=1.5)
