"""The benchmark of the data pipelines, on tiny input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from raw_files import needs_data

from benchmarks import data
from benchmarks.data_steps import Step


@needs_data
def test_it_measures_every_step(tmp_path: Path):
    shown: list[str] = []
    assert data.main(["--quick", "--json", str(tmp_path / "table.json")], shown.append) == 0
    rows = json.loads((tmp_path / "table.json").read_text())
    found = {(row["workload"], row["step"]) for row in rows}
    assert {(workload, step) for workload in data.NEED for step in ("prepare", "part")} <= found
    assert set(data.GOALS) <= found
    assert len(rows) == len(found) == len(shown) - 2
    for row in rows:
        assert row["rate"] > 0
        if row["step"] == "prepare":
            assert row["need"] is row["cores"] is None
        else:
            assert row["cores"] == pytest.approx(data.NEED[row["workload"]] / row["rate"])


def test_a_rate_is_that_of_cpu_time(monkeypatch):
    now = 0.0

    class Clock:
        @staticmethod
        def process_time() -> float:
            return now

    def run(number: int) -> int:
        nonlocal now
        now += 0.25 if number < 9 else 0.125  # a busy machine at first
        return 50

    monkeypatch.setattr(data, "time", Clock)
    assert data.rate(Step("part", run), seconds=1.0, repeats=3) == pytest.approx(400)


def test_a_missed_goal_is_said():
    slow = data.row("fastmri", "part", 300.0)
    assert slow.missed
    assert slow.cores == pytest.approx(0.47)
    assert data.line(slow).endswith("450  MISSED")
    fast = data.row("fastmri", "part", 700.0)
    assert not fast.missed
    assert not data.row("fastmri", "read", 1.0).missed
