"""Progress of a meta-training: a bar on a terminal, now and then a line elsewhere.

Boundary: shows numbers it is told.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from timetrial.bench.metatrain.loop import Moment
from timetrial.bench.progress import PLAIN_LINE_EVERY_SECONDS, duration


class Progress:
    """Shows how far a training is; use it as a context manager.

    Args:
        minutes: length of the piece, None where it is not limited.
        stream: where to show it; bars are drawn on a terminal only.
    """

    def __init__(self, minutes: float | None, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._live = self._console.is_terminal
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}% {task.fields[text]}", markup=False),
            console=self._console,
            disable=not self._live,
            transient=True,
        )
        self._bar = self._bars.add_task("metatrain", total=1.0, text="")
        self._minutes = minutes
        self._started = time.monotonic()
        self._last_line = float("-inf")

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, soft_wrap=True, markup=False)

    def show(self, view: Moment) -> None:
        """Takes in how far the training is."""
        losses = [v for key, v in view.metrics.items() if key.startswith("batch/loss_")]
        text = f"outer step {view.step}/{view.steps}  loss {losses[0]:.3f}"
        if view.seconds_per_step is not None:
            text += f"  {duration((view.steps - view.step) * view.seconds_per_step)} left"
        if self._minutes is not None:
            gone = time.monotonic() - self._started
            text += f" ({duration(max(0.0, 60 * self._minutes - gone))} of this piece)"
        self._bars.update(self._bar, completed=view.step / view.steps, text=text)
        now = time.monotonic()
        if not self._live and now - self._last_line > PLAIN_LINE_EVERY_SECONDS:
            self._last_line = now
            self.say(text)
