"""The benchmark of training steps at its quick size."""

from __future__ import annotations

import json

import pytest

from benchmarks import steps


def test_both_steps_make_the_same_update(tmp_path, capsys):
    file = tmp_path / "steps.json"
    arguments = ["--quick", "--workload", "criteo1tb", "--repeats", "2", "--json", str(file)]
    assert steps.main(arguments) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row["turns"] == 2
    assert row["first_loss"]["timetrial"] == row["first_loss"]["plain"]
    low, middle, high = row["ratio"]["plain"]
    assert 0 < low <= middle <= high
    assert "criteo1tb" in capsys.readouterr().out


def test_a_directory_that_is_no_checkout_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        steps.main(["--algoperf", str(tmp_path)])
    assert "expected a checkout of mlcommons/algorithmic-efficiency" in capsys.readouterr().err
