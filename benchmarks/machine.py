"""The machine during a benchmark: what it is, its load, and whether the numbers are valid.

Boundary: reads the machine before and after; the benchmark itself does not know of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from timetrial.framework.credibility import MOST_STEAL, allowed_others
from timetrial.framework.machine import Usage, load_average
from timetrial.framework.meter import Meter
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import host_tags


@dataclasses.dataclass
class Conditions:
    """The machine while numbers were measured.

    Attributes:
        name: its CPU and the cores that the benchmark may use.
        cores: number of these cores.
        usage: their use, by the benchmark with its ended children and by others.
        loads: load average before and after; None if unknown.
    """

    name: str
    cores: int
    usage: Usage = dataclasses.field(default_factory=Usage)
    loads: tuple[float | None, float | None] = (None, None)

    @property
    def doubt(self) -> str:
        """Why the numbers are not valid; "" if they are."""
        others, stolen = self.usage.others, self.usage.stolen
        if others is None:
            return "the use of the cores is unknown on this system"
        allowed = allowed_others("cpu", self.usage.seconds * self.cores)
        if others > allowed:
            return f"other processes used {others:.0%} of the cores (allowed: {allowed:.0%})"
        if stolen is not None and stolen > MOST_STEAL:
            return f"the hypervisor took {stolen:.0%} of the cores (allowed: {MOST_STEAL:.0%})"
        return ""

    @property
    def text(self) -> str:
        """Machine, load and verdict, in two lines."""
        before, after = ("unknown" if load is None else f"{load:.1f}" for load in self.loads)
        others = self.usage.others
        share = "unknown" if others is None else f"{others:.1%}"
        verdict = f"NOT VALID: {self.doubt}" if self.doubt else "valid: the machine was idle"
        return (
            f"machine: {self.name}; load average {before} before, {after} after; "
            f"other processes {share} of the cores\n{verdict}"
        )


@contextlib.contextmanager
def watched() -> Iterator[Conditions]:
    """Observes the machine during the block; the conditions are complete after it."""
    meter = Meter()
    found = Conditions(
        f"{host_tags()[schema.HOST_CPU]}, {len(meter.cores)} cores usable", len(meter.cores)
    )
    meter.start()
    try:
        yield found
    finally:
        meter.stop()
        found.usage, found.loads = meter.usage, (meter.load_at_start, load_average())


def spread(values: Sequence[float]) -> float:
    """(largest - smallest) / median of measurements of the same thing."""
    return (max(values) - min(values)) / statistics.median(values)


def exponent(numbers: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log costs over log numbers, by least squares; nan for one number."""
    if len(numbers) < 2:
        return float("nan")
    return float(np.polyfit(np.log(numbers), np.log(costs), 1)[0])
