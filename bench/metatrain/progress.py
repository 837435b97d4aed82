"""Progress of a meta-training: a bar on a terminal, plain lines elsewhere.

Boundary: shows numbers given to it.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, TextColumn

from timetrial.bench.metatrain.loop import OuterStepInfo
from timetrial.bench.progress import (
    NARROW,
    PLAIN_LINE_EVERY_SECONDS,
    duration,
    growing_bar,
    numbers,
)
from timetrial.bench.terminal import wrapped


class TrainingDisplay:
    """Shows the progress of a training; use it as a context manager.

    Args:
        minutes: length of the piece, None without a limit.
        stream: output stream; a bar is drawn on a terminal only.
    """

    def __init__(self, minutes: float | None, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._live = self._console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            growing_bar(),
            numbers(),
            console=self._console,
            disable=not self._live,
            transient=True,
            expand=True,
        )
        self._bar = self._bars.add_task("metatrain", total=1.0, text="")
        self._minutes = minutes
        self._started = time.monotonic()
        self._last_line = float("-inf")

    def __enter__(self) -> TrainingDisplay:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def line(self, text: str) -> None:
        """Prints a line."""
        if self._live:
            text = wrapped(text, self._console.width)
        self._console.print(text, soft_wrap=True, markup=False)

    def show(self, info: OuterStepInfo) -> None:
        """Shows one outer step."""
        narrow = self._live and self._console.width < NARROW
        losses = [v for key, v in info.metrics.items() if key.startswith("batch/loss_")]
        text = f"outer step {info.step}/{info.steps}  loss {losses[0]:.3f}"
        if narrow:
            text = f"{info.step}/{info.steps}"
        if info.seconds_per_step is not None:
            text += f"  {duration((info.steps - info.step) * info.seconds_per_step)} left"
        if self._minutes is not None and not narrow:
            gone = time.monotonic() - self._started
            text += f" ({duration(max(0.0, 60 * self._minutes - gone))} left in this piece)"
        self._bars.update(self._bar, completed=info.step / info.steps, text=text)
        now = time.monotonic()
        if not self._live and now - self._last_line > PLAIN_LINE_EVERY_SECONDS:
            self._last_line = now
            self.line(text)
