from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping

import numpy as np
import pytest
from raw_files import needs_data

from timetrial.workloads.data import libraries
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.parts import Evaluation, Parts, joined, part_range

pytestmark = needs_data


@dataclasses.dataclass(frozen=True)
class Noise:
    """Random rows of 16, from (seed, step, row); the last of the parts are made first."""

    size: int = 16
    steps: int = 5

    def part(self, seed: int, step: int, index: int, count: int) -> Mapping[str, np.ndarray]:
        rows = part_range(self.size, index, count)
        time.sleep(0.001 * (count - index))
        return {"x": np.array([np.random.default_rng((seed, step, row)).random() for row in rows])}


@pytest.mark.parametrize("start", [0, 61, 100_003])
@pytest.mark.parametrize("threads", [0, 1, 4])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_batches_do_not_depend_on_parts_and_threads(start: int, threads: int, count: int):
    plain = [Noise().part(5, step, 0, 1)["x"] for step in range(start, start + 4)]
    made = Parts(Noise(), 5, start, count=count, threads=threads)
    batches = [next(made) for _ in plain]
    made.close()
    assert {len(parts) for parts in batches} == {count}
    np.testing.assert_array_equal([joined(parts)["x"] for parts in batches], plain)


def test_hosts_make_their_parts_of_the_same_batch():
    hosts = [Parts(Noise(), 0, 3, count=4, mine=mine) for mine in ((0, 1), (2, 3))]
    for step in (3, 4):
        parts = [part for host in hosts for part in next(host)]
        np.testing.assert_array_equal(joined(parts)["x"], Noise().part(0, step, 0, 1)["x"])
    for host in hosts:
        host.close()


class Counted:
    """Counts the parts that were asked for."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.made: list[int] = []
        self.first = threading.Event()

    def part(self, seed: int, step: int, index: int, count: int) -> Mapping[str, np.ndarray]:
        self.made.append(step)
        self.first.set()
        if step == self.fails_at:
            raise ValueError(f"no batch {step}")
        return {"x": np.array([step])}


def test_making_starts_at_construction_and_is_bounded():
    source = Counted()
    made = Parts(source, 0, threads=2, buffer=3)
    assert source.first.wait(10)  # nothing has asked for a batch
    time.sleep(0.1)
    assert sorted(source.made) == [0, 1, 2]
    assert next(made)[0]["x"] == 0
    time.sleep(0.1)
    assert len(source.made) <= 4
    made.close()
    made.close()
    before = len(source.made)
    time.sleep(0.1)
    assert len(source.made) == before


def test_threads_end_with_close():
    before = threading.active_count()
    made = Parts(Noise(), 0, threads=4)
    next(made)
    assert threading.active_count() > before
    made.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_an_error_of_the_source_comes_at_its_step():
    made = Parts(Counted(fails_at=2), 0, threads=2)
    assert [next(made)[0]["x"] for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="no batch 2"):
        next(made)
    made.close()


def test_an_evaluation_repeats_its_batches():
    batches = Evaluation(Noise(), count=2)
    assert len(batches) == 5
    first, second = ([batch["x"] for batch in batches] for _ in range(2))
    np.testing.assert_array_equal(first, [Noise().part(0, step, 0, 1)["x"] for step in range(5)])
    np.testing.assert_array_equal(first, second)


def test_an_evaluation_left_early_ends_its_threads():
    before = threading.active_count()
    for _ in Evaluation(Noise(steps=100)):
        break
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"mine": [2], "count": 2}, r"mine: expected parts from 0 to 1, got \[2\]"),
        ({"mine": []}, "mine: expected parts"),
        ({"threads": -1}, "expected threads >= 0"),
        ({"buffer": 0}, "buffer >= 1"),
        ({"start": -1}, "0 <= start <= stop"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], text: str):
    with pytest.raises(ValueError, match=text):
        Parts(Noise(), 0, **arguments)  # type: ignore[arg-type]


def test_parts_divide_the_batch():
    assert [part_range(12, index, 3) for index in range(3)] == [range(4), range(4, 8), range(8, 12)]
    with pytest.raises(ValueError, match="expected a divisor of the batch size 12, got 5"):
        part_range(12, 0, 5)
    with pytest.raises(ValueError, match="part: expected 0 to 2, got 3"):
        part_range(12, 3, 3)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(libraries, "LIBRARIES", ("numpy", "no_such_library"))
    with pytest.raises(DataError, match=r"found no no_such_library; .*timetrial\[data\]"):
        Parts(Noise(), 0)
