"""``benchmarks.race`` and ``benchmarks.machine``: sums of phases, busy machines."""

from __future__ import annotations

import pytest

from benchmarks.machine import Conditions, spread, watched
from benchmarks.race import PHASES, Race, cpu_phases, table, wall_phases
from timetrial.framework.machine import Usage
from timetrial.framework.types import Status
from timetrial.tracking.record.journal import End


def end(at: float, wall: float, **seconds: float) -> End:
    summary = {f"time/{name}_seconds": value for name, value in seconds.items()}
    return End(Status.FINISHED, round(at * 1000), {}, {**summary, "time/wall_seconds": wall})


def race(scale: float = 1.0) -> Race:
    first = end(
        107,
        4,
        compile=1.5,
        train=scale,
        data_wait=0.25,
        eval=0.5,
        log=0.25,
        checkpoint=0.125,
        compile_cpu=2.0,
        other_cpu=0.5,
    )
    second = end(110, 2, train=1.5 * scale, other=0.5, train_cpu=2.5)
    return Race(100.0, 116.0, 9.0, [first, second])


def test_phases_sum_to_the_wall_time():
    found = wall_phases(race())
    assert tuple(found) == PHASES
    assert sum(found.values()) == pytest.approx(16)
    assert found["start-up"] == pytest.approx(3)
    assert found["train"] == pytest.approx(2.5)
    assert found["log"] == pytest.approx(0.375)
    assert found["set-up"] == pytest.approx(6 - 2.5 - 1.5 - 0.5 - 0.375)
    assert (found["between"], found["report"]) == (pytest.approx(1), pytest.approx(6))


def test_cpu_seconds_of_no_run_are_the_rest():
    found = cpu_phases(race())
    assert (found["compile"], found["train"], found["set-up"]) == (2.0, 2.5, 0.5)
    assert found["rest"] == pytest.approx(4)


def test_the_table_has_both_races_and_the_spread_of_equal_work():
    text = table({"cold": race(), "warm": race(scale=0.8)})
    lines = text.splitlines()
    assert "cold, s" in lines[0]
    assert "warm, s" in lines[0]
    assert [line.split()[0] for line in lines[1:10]] == [*PHASES, "total"]
    assert "wall 18.2%" in lines[-1]  # (3 - 2.5) / 2.75


@pytest.mark.parametrize(
    ("usage", "doubt"),
    [
        (Usage(60.0, 30.0, 31.0, 0.0, 89.0), ""),
        (Usage(60.0, 30.0, 80.0, 0.0, 40.0), "other processes used 42% of the cores"),
        (Usage(60.0, 30.0, 31.0, 20.0, 69.0), "the hypervisor took 17% of the cores"),
        (Usage(60.0, 30.0), "the use of the cores is unknown"),
    ],
)
def test_numbers_of_a_busy_machine_are_not_valid(usage: Usage, doubt: str):
    conditions = Conditions("a CPU, 2 cores usable", 2, usage, (0.5, None))
    assert conditions.doubt.startswith(doubt)
    assert bool(conditions.doubt) == bool(doubt)
    assert ("NOT VALID: " in conditions.text) == bool(doubt)
    assert "load average 0.5 before, unknown after" in conditions.text


def test_conditions_are_complete_after_the_block():
    with watched() as machine:
        sum(range(300_000))
    assert machine.usage.seconds > 0
    assert machine.text.startswith("machine: ")


def test_spread():
    assert spread([1.0, 1.0]) == 0
    assert spread([2.0, 4.0, 3.0]) == pytest.approx(2 / 3)
