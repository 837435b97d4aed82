"""Progress on the terminal: one live bar per race and run, or plain lines where there is none.

Boundary: shows numbers it is told; during training it only takes note of them, and a thread
draws them a few times a second.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from timetrial.bench.naming import run_name
from timetrial.framework.budget import StopReason
from timetrial.framework.callbacks import StepInfo, Watch
from timetrial.framework.config import RunConfig
from timetrial.framework.records import RunResult

REFRESH_PER_SECOND = 4
PLAIN_LINE_EVERY_SECONDS = 30.0


def duration(seconds: float) -> str:
    """Seconds in words: ``48 s``, ``7 min``, ``1 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for a download; yields what to call with (bytes so far, bytes in all)."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    ) as bars:
        task = bars.add_task(title, total=None, visible=False)
        yield lambda done, total: bars.update(task, completed=done, total=total, visible=True)


class _Bars(Progress):
    """Bars that ask for the newest numbers whenever they are drawn."""

    before_drawing: Callable[[], None] = staticmethod(lambda: None)

    def get_renderables(self) -> Iterable[RenderableType]:
        self.before_drawing()
        yield from super().get_renderables()


class Display:
    """Shows a race of one or more runs; use it as a context manager.

    Args:
        stream: where to show it; bars are drawn on a terminal only.
        expected_seconds: length of one run, if known, for the estimate before the first is done.
    """

    def __init__(self, stream: TextIO | None = None, expected_seconds: float = 0.0) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._live = self._console.is_terminal
        self._bars = _Bars(
            TextColumn("{task.description:<44}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}% {task.fields[text]}", markup=False),
            console=self._console,
            refresh_per_second=REFRESH_PER_SECOND,
            disable=not self._live,
            transient=True,
        )
        self._bars.before_drawing = self._show_run
        self._expected_seconds = expected_seconds
        self._total = self._done = self._made = 0
        self._started = self._run_started = self._last_line = time.monotonic()
        self._race_bar: TaskID | None = None
        self._run_bar: TaskID | None = None
        self._config: RunConfig | None = None
        self._latest: StepInfo | None = None

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def line(self, text: str) -> None:
        """Prints a line above the bars."""
        self._console.print(text, soft_wrap=True, markup=False)

    def race(self, total: int, skipped: int) -> None:
        """A race begins, of which ``skipped`` runs are recorded already."""
        self._total, self._done = total, skipped
        self._started = time.monotonic()
        if total > 1:
            self._race_bar = self._bars.add_task("race", total=total, completed=skipped, text="")
            self._show_race()

    def run(self, config: RunConfig) -> Watch:
        """A run begins; the Watch that is returned shows it."""
        self._config, self._latest = config, None
        self._run_started = self._last_line = time.monotonic()
        self._run_bar = self._bars.add_task(run_name(config), total=1.0, text="compiling")
        return Watch(self._on_step, self._on_eval)

    def done(self, result: RunResult, metric: str) -> None:
        """The run has ended by itself."""
        final = result.evaluations[-1].metrics
        shown = f"validation/{metric}"
        how = "" if result.reason is StopReason.BUDGET else f", {result.reason.value}"
        self._end(
            f"{result.step} steps in {result.seconds['train']:.1f} s, "
            f"{shown} {final.get(shown, float('nan')):.4f}{how}"
        )

    def failed(self, error: BaseException) -> None:
        """The run has raised."""
        self._end(f"FAILED, {type(error).__name__}: {str(error).splitlines()[0][:200]}")

    def _end(self, outcome: str) -> None:
        assert self._config is not None
        self._done += 1
        self._made += 1
        count = f"[{self._done:>{len(str(self._total))}}/{self._total}] " if self._total > 1 else ""
        self.line(f"{count}{run_name(self._config)}: {outcome}{self._eta_text()}")
        if self._run_bar is not None:
            self._bars.remove_task(self._run_bar)
            self._run_bar = None
        self._show_race()

    def _on_step(self, info: StepInfo) -> None:
        self._latest = info  # drawn later: this is timed code

    def _show_run(self) -> None:
        info = self._latest
        if self._run_bar is not None and info is not None:
            self._bars.update(self._run_bar, completed=info.used, text=self._run_text(info))

    def _on_eval(self, info: StepInfo, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if not self._live and now - self._last_line > PLAIN_LINE_EVERY_SECONDS:
            self._last_line = now
            assert self._config is not None
            losses = {"loss": metrics.get("train/loss", float("nan"))}
            at = dataclasses.replace(info, metrics=losses)
            self.line(f"{run_name(self._config)}: {info.used:.0%}, {self._run_text(at)}")

    def _run_text(self, info: StepInfo) -> str:
        elapsed = time.monotonic() - self._run_started
        left = elapsed * (1 - info.used) / info.used if info.used > 0 else 0.0
        loss = info.metrics.get("loss", float("nan"))
        return f"step {info.step}  loss {loss:.4f}  {duration(left)} left"

    def _show_race(self) -> None:
        if self._race_bar is not None:
            text = f"{self._done}/{self._total} runs{self._eta_text()}"
            self._bars.update(self._race_bar, completed=self._done, text=text)

    def _eta_text(self) -> str:
        if self._total < 2 or self._done >= self._total:
            return ""
        per_run = self._expected_seconds
        if self._made:
            per_run = (time.monotonic() - self._started) / self._made
        return f", {duration(per_run * (self._total - self._done))} left" if per_run else ""
