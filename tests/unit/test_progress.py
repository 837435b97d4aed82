from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
import time

import pytest

from timetrial.bench import progress
from timetrial.bench.progress import Display, duration
from timetrial.bench.suite import load_run
from timetrial.bench.terminal import wrapped
from timetrial.framework.budget import StopReason
from timetrial.framework.callbacks import StepInfo, Watch
from timetrial.framework.config import RunConfig
from timetrial.framework.records import Row, RunResult


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


class Clock:
    """Stands in for ``time`` in the module under test: it goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_run(["workload=fashion_mnist_resnet", "optimizer=velo", "seed=2"])


def evaluated(watch: Watch, used: float) -> None:
    step = round(200 * used)
    watch._on_eval(StepInfo(step, 0.1, used, step), {"train/loss": 0.5})


def test_without_a_terminal_a_line_at_the_start_and_then_one_every_minute(
    clock: Clock, config: RunConfig
):
    stream = io.StringIO()
    with Display(stream) as display:
        display.race(total=5, skipped=1)
        watch = display.run(config)
        clock.now += 100  # compiling
        for share in range(10):
            evaluated(watch, share / 10)
            clock.now += 20
        display.failed(RuntimeError("out of memory\nsecond line"))
    lines = stream.getvalue().rstrip("\n").splitlines()  # rich 14 ends with an empty line
    run = re.escape("fashion_mnist_resnet velo[embedded] seed 2")
    assert re.fullmatch(rf"\[2/5\] {run}: started", lines[0].replace("google", "embedded"))
    assert re.fullmatch(rf"\[2/5\] {run}: 0%, step 0  loss 0.5000", lines[1])
    assert re.fullmatch(rf"\[2/5\] {run}: 30%, step 60  loss 0.5000  2 min left", lines[2])
    assert "FAILED, RuntimeError: out of memory" in lines[-1]
    assert len(lines) == 2 + 3 + 1
    assert "\x1b" not in stream.getvalue()


def test_without_a_terminal_short_runs_are_one_line_each(clock: Clock, config: RunConfig):
    stream = io.StringIO()
    end = [Row(20, 3.5, {"validation/accuracy": 0.5})]
    with Display(stream) as display:
        display.race(total=5, skipped=0)
        for _ in range(5):
            watch = display.run(config)
            clock.now += 10
            evaluated(watch, 0.0)
            clock.now += 10
            result = RunResult(StopReason.BUDGET, 20, {"train": 3.5}, end, None)
            display.done(result, "accuracy")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith(": started")
    assert [line[:6] for line in lines[1:]] == [f"[{i}/5] " for i in range(1, 6)]
    assert all("20 steps in 3.5 s" in line for line in lines[1:])
    assert stream.getvalue().replace("\n", "").isprintable()


def test_without_a_terminal_a_minute_is_told_also_between_evaluations(
    clock: Clock, config: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "PLAIN_LINE_EVERY_SECONDS", 0.04)
    stream = io.StringIO()
    with Display(stream) as display:
        watch = display.run(config)
        for step in (None, 50):
            if step is not None:
                watch.on_step_end(StepInfo(step, 0.1, 0.25, step, {"loss": 0.5}))
            before = stream.getvalue()
            clock.now += 60
            while stream.getvalue() == before:  # another thread prints
                time.sleep(0.01)
    _, compiling, stepping = stream.getvalue().splitlines()
    assert compiling.endswith("seed 2: compiling")
    assert stepping.endswith("seed 2: 25%, step 50  loss 0.5000")


def test_no_time_left_is_told_before_it_is_known(clock: Clock, config: RunConfig):
    stream = io.StringIO()
    with Display(stream) as display:
        display.race(total=2, skipped=0)
        watch = display.run(config)
        clock.now += 60
        evaluated(watch, 0.0)
        clock.now += 60
        evaluated(watch, 0.0)
    assert "left" not in stream.getvalue()
    assert "0%" in stream.getvalue()


def drawn(columns: int, clock: Clock, config: RunConfig, patch: pytest.MonkeyPatch) -> list[str]:
    """Title and two bars of a race whose last run has 13 minutes left, as last drawn."""
    patch.setenv("TERM", "xterm-256color")
    patch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with Display(stream, expected_seconds=180.0) as display:
        display.race(total=5, skipped=4)
        watch = display.run(config)
        evaluated(watch, 0.0)
        clock.now += 87
        watch.on_step_end(StepInfo(20, 0.1, 0.1, 20, {"loss": 0.5}))
        display._bars.refresh()
    return [line for line in stream_text(stream).splitlines() if line.strip()][-3:]


def stream_text(stream: io.StringIO) -> str:
    """What was written, without colours; a moved cursor is a new line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "\n", plain)


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 160])
def test_the_bar_keeps_its_width_and_the_line_fits(
    columns: int, clock: Clock, config: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    title, race, run = drawn(columns, clock, config, monkeypatch)
    for line in (race, run):
        assert len(line) <= columns
        assert len(re.findall("[━╸╺]", line)) >= (10 if columns < 80 else 24)
        assert "13 min left" in line
    assert race.startswith("race ")
    named = run if columns >= 120 else title
    assert re.match(r"fashion_mnist_res\S+ velo\[\w+\] seed 2", named)
    assert len(title) <= columns or columns >= 120
    assert run.startswith("fas" if columns >= 120 else "run ")
    assert ("loss 0.5000" in run) == (columns >= 80)


ON_A_TERMINAL = """
import time
from timetrial.bench.progress import Display
from timetrial.bench.suite import load_run
from timetrial.bench.terminal import say
from timetrial.framework.callbacks import StepInfo

say("suite quick: 4 workloads x 8 optimizers x 3 seeds, step budgets: 84 runs, about 7 min")
with Display() as display:
    display.race(total=84, skipped=10)
    watch = display.run(load_run(["workload=fashion_mnist_resnet", "optimizer=velo", "seed=2"]))
    watch.on_step_end(StepInfo(50, 0.1, 0.25, 50, {"loss": 0.5}))
    time.sleep(0.6)
    display.failed(RuntimeError("out of memory: 17179869184 bytes are too many for this device"))
"""


def test_on_a_terminal_of_40_columns_no_line_is_longer():
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment = {k: v for k, v in environment.items() if k not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-c", ON_A_TERMINAL]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    written = b""
    with contextlib.suppress(OSError):  # the end, on Linux
        while part := os.read(master, 65536):
            written += part
    os.close(master)
    assert process.wait() == 0, written
    plain = re.sub(r"\x1b\[[0-9;]*m", "", written.decode())
    lines = [x for x in re.split(r"\x1b\[[0-9;?]*[a-zA-Z]|[\r\n]+", plain) if x.strip()]
    assert max(map(len, lines)) <= 40
    assert any(re.match(r"fashion_mnist_res\S*… velo\[\w+\] seed 2", line) for line in lines)
    assert any(re.match("run +[━╸╺]{10,} +25% step 50", line) for line in lines)
    assert "  x 3 seeds, step budgets: 84 runs," in lines


@pytest.mark.parametrize("width", [14, 20, 40, 100])
def test_a_name_loses_the_ends_of_its_longest_words(width: int):
    name = "fashion_mnist_resnet velo[embedded] seed 2"
    shown = progress.fitted(name, width)
    assert len(shown) == min(width, len(name))
    assert [word[0] for word in shown.split(" ")] == ["f", "v", "s", "2"]
    assert (shown == name) == (width >= len(name))
    assert progress.fitted("a b", 1) == "a b"


def test_lines_are_broken_between_words_and_addresses_stay_whole():
    text = (
        "[11/84] flights_dlrm adam seed 2: FAILED, see https://example.org/a-long/address/of-a-page"
    )
    lines = wrapped(text, 40).split("\n")
    assert all(len(line) <= 40 or "https" in line for line in lines)
    assert lines[-1] == "  https://example.org/a-long/address/of-a-page"
    assert " ".join(line.strip() for line in lines) == text
    assert wrapped("  one\ntwo", 40) == "  one\ntwo"


def test_the_total_is_never_less_than_what_its_last_run_has_left(
    clock: Clock, config: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    _, race, run = drawn(100, clock, config, monkeypatch)
    left = [re.search(r"(\d+) min left", line) for line in (race, run)]
    assert [found and int(found[1]) for found in left] == [13, 13]


def test_taking_note_of_a_step_draws_nothing(config: RunConfig):
    """It is called in timed code."""
    stream = Terminal()
    display = Display(stream)
    display.race(total=1, skipped=0)
    watch = display.run(config)
    before = stream.getvalue()
    for step in range(1000):
        watch.on_step_end(StepInfo(step, 0.0, step / 1000, step))
    assert stream.getvalue() == before


def test_bars_are_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch, config: RunConfig):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    with Display(stream) as display:
        display.race(total=5, skipped=1)
        display.run(config).on_step_end(StepInfo(50, 0.1, 0.25, 50, {"loss": 0.5}))
        time.sleep(1.0)
    assert "1/5 runs" in stream_text(stream)
    assert "25% step 50  loss 0.5000" in stream_text(stream)


def test_the_seconds_of_a_run_include_its_wait_for_data(clock: Clock, config: RunConfig):
    stream = io.StringIO()
    end = [Row(20, 3.5, {"validation/accuracy": 0.5})]
    seconds = {"train": 1.5, "data_wait": 2.0, "eval": 9.0}
    with Display(stream) as display:
        display.race(total=1, skipped=0)
        display.run(config)
        display.done(RunResult(StopReason.BUDGET, 20, seconds, end, None), "accuracy")
    assert "20 steps in 3.5 s, validation/accuracy 0.5000" in stream.getvalue()
