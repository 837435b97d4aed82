from __future__ import annotations

import io
import time

import pytest

from timetrial.bench.progress import Display, duration
from timetrial.bench.suite import load_run
from timetrial.framework.callbacks import StepInfo


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (48.2, "48 s"),
        (89.4, "89 s"),
        (430, "7 min"),
        (3900, "65 min"),
        (5400, "1 h 30 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str):
    assert duration(seconds) == words


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watch_a_run(stream: io.StringIO, look_for_seconds: float = 0.0) -> str:
    config = load_run(["workload=flights_dlrm", "optimizer=velo", "seed=2"])
    with Display(stream, expected_seconds=7.0) as display:
        display.race(total=5, skipped=1)
        watch = display.run(config)
        for step in (1, 50):
            watch.on_step_end(StepInfo(step, 0.1, step / 200, step, {"loss": 0.5}))
        time.sleep(look_for_seconds)
        display.failed(RuntimeError("out of memory\nsecond line"))
    return stream.getvalue()


def test_plain_lines_where_there_is_no_terminal():
    text = watch_a_run(io.StringIO())
    lines = text.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("[2/5] flights_dlrm velo[")
    assert "seed 2: FAILED, RuntimeError: out of memory" in lines[0]
    assert lines[0].endswith("left")
    assert "\x1b" not in text


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    text = watch_a_run(Terminal(), look_for_seconds=1.0)
    assert "1/5 runs" in text
    assert "25% step 50  loss 0.5000" in text
    assert "velo[" in text


def test_taking_note_of_a_step_costs_microseconds():
    """It is called in timed code: it must not draw."""
    stream = Terminal()
    display = Display(stream)
    display.race(total=1, skipped=0)
    watch = display.run(load_run(["workload=flights_dlrm", "optimizer=adam"]))
    before = stream.getvalue()
    for step in range(1000):
        watch.on_step_end(StepInfo(step, 0.0, step / 1000, step))
    assert stream.getvalue() == before
