"""Progress of runs: live bars on a terminal, a line per finished run or minute elsewhere.

Boundary: numbers in, text out. Timed code only stores the latest numbers; a thread shows them.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from timetrial.bench.naming import run_name
from timetrial.bench.terminal import wrapped
from timetrial.framework.budget import StopReason
from timetrial.framework.callbacks import StepInfo, Watch
from timetrial.framework.config import RunConfig
from timetrial.framework.errors import reason_of
from timetrial.framework.records import RunResult

REFRESH_PER_SECOND = 4
PLAIN_LINE_EVERY_SECONDS = 60.0
WIDE, NARROW = 120, 80
"""Terminal widths: from ``WIDE`` on a run is one line, below ``NARROW`` without its loss."""


def duration(seconds: float) -> str:
    """Seconds in words: ``48 s``, ``7 min``, ``1 h 05 min``, ``33 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes >= 3 * 24 * 60:
        return f"{minutes / (24 * 60):.0f} days"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a download; yields a function of (bytes so far, bytes in all)."""
    console = Console(file=sys.stderr)
    more = [TransferSpeedColumn(), TimeRemainingColumn()] if console.width >= NARROW else []
    with Bars(
        TextColumn("{task.description}"),
        growing_bar(),
        DownloadColumn(),
        *more,
        console=console,
        transient=True,
        expand=True,
    ) as bars:
        task = bars.add_task(title, total=None, visible=False)
        yield lambda done, total: bars.update(task, completed=done, total=total, visible=True)


def growing_bar() -> BarColumn:
    """A bar that fills the width that the other columns leave."""
    return BarColumn(bar_width=None, table_column=Column(min_width=3, ratio=1))


def numbers() -> TextColumn:
    """The share that is done, and the task's field ``text``; cut where it does not fit."""
    return TextColumn(
        "{task.percentage:>3.0f}% {task.fields[text]}",
        markup=False,
        table_column=Column(no_wrap=True, overflow="ellipsis"),
    )


def fitted(name: str, width: int) -> str:
    """The words of a name within a width; the longest ones lose their ends.

    Args:
        name: words with a space between.
        width: characters to keep within, as far as two of each word allow.
    """
    words = name.split(" ")
    kept = [len(word) for word in words]
    while sum(kept) + len(words) - 1 > width and max(kept) > 2:
        kept[kept.index(max(kept))] -= 1
    cut = zip(words, kept, strict=True)
    return " ".join(word if size == len(word) else f"{word[: size - 1]}…" for word, size in cut)


class _LiveBars(Bars):
    """Bars that read the latest numbers before each drawing."""

    before_drawing: Callable[[], None] = staticmethod(lambda: None)
    title = ""
    """A line above the bars, as far as it fits."""

    def get_renderables(self) -> Iterable[RenderableType]:
        self.before_drawing()
        if self.title:
            yield Text(fitted(self.title, self.console.width), no_wrap=True, overflow="ellipsis")
        yield from super().get_renderables()


def _bars(console: Console) -> _LiveBars:
    """Description, bar, numbers; on all but wide terminals the run's name is a line above."""
    length = Column(no_wrap=True, overflow="ellipsis", width=44 if console.width >= WIDE else None)
    return _LiveBars(
        TextColumn("{task.description}", markup=False, table_column=length),
        BarColumn(bar_width=24) if console.width >= WIDE else growing_bar(),
        numbers(),
        console=console,
        refresh_per_second=REFRESH_PER_SECOND,
        disable=not console.is_terminal,
        transient=True,
        expand=console.width < WIDE,
    )


class Display:
    """Shows a race of one or more runs; use it as a context manager.

    Args:
        stream: output stream; bars are drawn on a terminal only.
        expected_seconds: expected wall seconds of one run, 0 if unknown.
    """

    def __init__(self, stream: TextIO | None = None, expected_seconds: float = 0.0) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._live = self._console.is_terminal
        self._bars = _bars(self._console)
        self._bars.before_drawing = self._draw
        self._expected_seconds = expected_seconds
        self._total = self._done = self._made = 0
        self._started = time.monotonic()
        self._last_line = float("-inf")
        self._ended = threading.Event()
        self._printing = threading.RLock()
        self._minutes = threading.Thread(target=self._tell_minutes, daemon=True)
        self._training_since: float | None = None
        self._race_bar: TaskID | None = None
        self._run_bar: TaskID | None = None
        self._config: RunConfig | None = None
        self._latest: StepInfo | None = None

    def __enter__(self) -> Display:
        self._bars.start()
        if not self._live:
            self._minutes.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()
        self._ended.set()
        if not self._live:
            self._minutes.join()

    def line(self, text: str) -> None:
        """Prints a line; on a terminal above the bars, and between words on the next line."""
        with self._printing:
            self._last_line = time.monotonic()
            if self._live:
                text = wrapped(text, self._console.width)
            self._console.print(text, soft_wrap=True, markup=False)

    def _tell_minutes(self) -> None:
        while not self._ended.wait(PLAIN_LINE_EVERY_SECONDS / 4):
            self._tell_minute()

    def _tell_minute(self) -> None:
        """Without a terminal: prints how far the run is, a minute after the last line."""
        with self._printing:
            config, info = self._config, self._latest
            silent = time.monotonic() - self._last_line
            if self._live or self._run_bar is None or silent < PLAIN_LINE_EVERY_SECONDS:
                return
            assert config is not None
            how = "compiling" if info is None else f"{info.used:.0%}, {self._run_text(info)}"
            self.line(f"{self._count(self._done + 1)}{run_name(config)}: {how}")

    def race(self, total: int, skipped: int) -> None:
        """Starts a race of ``total`` runs; ``skipped`` of them are recorded already."""
        self._total, self._done = total, skipped
        self._started = time.monotonic()
        if total > 1:
            self._race_bar = self._bars.add_task("race", total=total, completed=skipped, text="")
            self._draw()

    def at(self, done: int, total: int) -> None:
        """Sets the number of ended runs and of all: other workers make some."""
        self._done, self._total = done, total
        if self._race_bar is None and total > 1:
            self._race_bar = self._bars.add_task("race", total=total, completed=done, text="")
        if self._race_bar is not None:
            self._bars.update(self._race_bar, total=total)
            self._draw()

    def again(self, count: int) -> None:
        """Adds repeated runs to the race."""
        self._total += count
        if self._race_bar is not None:
            self._bars.update(self._race_bar, total=self._total)

    def run(self, config: RunConfig) -> Watch:
        """Starts a run; returns its progress hooks."""
        self._config, self._latest, self._training_since = config, None, None
        name = run_name(config)
        self._bars.title = name if self._console.width < WIDE else ""
        self._run_bar = self._bars.add_task(
            "run" if self._bars.title else name, total=1.0, text="compiling"
        )
        self._tell_start()
        return Watch(self._on_step, self._on_eval, self._note)

    def _tell_start(self) -> None:
        """Without a terminal: prints that a run starts, unless a line was printed just before."""
        if self._live or time.monotonic() - self._last_line < PLAIN_LINE_EVERY_SECONDS:
            return
        assert self._config is not None
        self.line(f"{self._count(self._done + 1)}{run_name(self._config)}: started")

    def _note(self, line: str) -> None:
        assert self._config is not None
        self.line(f"{run_name(self._config)}: {line}")

    def done(self, result: RunResult, metric: str) -> None:
        """Shows the result of a finished run."""
        final = result.evaluations[-1].metrics
        shown = f"validation/{metric}"
        how = "" if result.reason is StopReason.BUDGET else f", {result.reason.value}"
        timed = self._config is not None and self._config.budget.limit_seconds is not None
        self._end(
            f"{result.step} steps in {result.train_seconds:.1f} s, "
            f"{shown} {final.get(shown, float('nan')):.4f}{how}"
        )
        if result.doubt and timed:
            self.line(f"  seconds suspect: {result.doubt}")

    def elsewhere(self, config: RunConfig) -> None:
        """Counts a run that another process has made."""
        self._done += 1
        self.line(f"{self._count(self._done)}{run_name(config)}: made by another process")
        self._draw()

    def failed(self, error: BaseException) -> None:
        """Shows the exception of a failed run."""
        text = reason_of(error)
        self._end(f"FAILED, {text if len(text) < 300 else f'{text[:100]} ... {text[-200:]}'}")

    def _end(self, outcome: str) -> None:
        assert self._config is not None
        self._done += 1
        self._made += 1
        self._latest = None
        name = f"{self._count(self._done)}{run_name(self._config)}"
        self.line(f"{name}: {outcome}{_left(self._race_seconds_left())}")
        if self._run_bar is not None:
            self._bars.remove_task(self._run_bar)
            self._run_bar, self._bars.title = None, ""
        self._draw()

    def _count(self, number: int) -> str:
        """``[ 3/24] ``; empty for a single run."""
        return f"[{number:>{len(str(self._total))}}/{self._total}] " if self._total > 1 else ""

    def _on_step(self, info: StepInfo) -> None:
        self._latest = info  # timed code: drawing happens later

    def _on_eval(self, info: StepInfo, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if self._training_since is None:  # the first evaluation comes after compilation
            self._training_since = now
        losses = {"loss": metrics.get("train/loss", float("nan"))}
        self._latest = dataclasses.replace(info, metrics=losses)
        self._tell_minute()

    def _draw(self) -> None:
        """Updates both bars."""
        info = self._latest
        if self._run_bar is not None and info is not None:
            text = self._run_text(info)
            self._bars.update(self._run_bar, completed=info.used, text=text)
        if self._race_bar is not None:
            runs = "" if self._console.width < NARROW else " runs"
            text = f"{self._done}/{self._total}{runs}{_left(self._race_seconds_left())}"
            self._bars.update(self._race_bar, completed=self._done, text=text)

    def _run_text(self, info: StepInfo) -> str:
        left = _left(self._run_seconds_left(), before="")
        if self._live and self._console.width < NARROW:
            return left or f"step {info.step}"
        loss = info.metrics.get("loss", float("nan"))
        return f"step {info.step}  loss {loss:.4f}  {left}".rstrip()

    def _run_seconds_left(self) -> float | None:
        """Estimated wall seconds left in the run; None while unknown."""
        info = self._latest
        if info is None or info.used <= 0 or self._training_since is None:
            return None
        elapsed = time.monotonic() - self._training_since
        return elapsed * max(0.0, 1 - info.used) / info.used

    def _race_seconds_left(self) -> float | None:
        """Estimated wall seconds left in the race; None while unknown."""
        waiting = self._total - self._done
        if self._total < 2 or waiting <= 0:
            return None
        per_run = self._expected_seconds
        if self._made:
            per_run = (time.monotonic() - self._started) / self._made
        own = self._run_seconds_left()
        if own is None:
            return per_run * waiting or None
        return own + per_run * (waiting - 1)


def _left(seconds: float | None, before: str = ", ") -> str:
    return "" if seconds is None else f"{before}{duration(seconds)} left"
