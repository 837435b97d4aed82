"""Search spaces for tuning, as plain data.

Boundary: data and checks of its consistency; ``bench.tune`` applies a space to a run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Range:
    """Real numbers between two bounds.

    Attributes:
        low, high: bounds, low < high.
        scale: ``log`` (uniform in the logarithm) or ``linear``.
    """

    low: float
    high: float
    scale: str = "log"

    def __post_init__(self) -> None:
        if self.scale not in ("log", "linear"):
            raise ValueError(f"scale: expected log or linear, got {self.scale!r}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"expected finite bounds with low < high, got low={self.low}, high={self.high}"
            )
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"expected low > 0 on a log scale, got low={self.low}")

    def at(self, share: float) -> float:
        """The value at a share in [0, 1] of the way from ``low`` to ``high``."""
        if self.scale == "linear":
            value = self.low + share * (self.high - self.low)
        else:
            value = self.low * math.exp(share * math.log(self.high / self.low))
        return min(max(value, self.low), self.high)  # rounding must not leave the range


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Several values, all equally likely.

    Attributes:
        choices: distinct values, at least one.
    """

    choices: tuple[float | int | str | bool, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("expected at least one choice, got none")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"expected different choices, got {list(self.choices)}")

    def at(self, share: float) -> float | int | str | bool:
        """The value at a share in [0, 1] of the way from the first choice to the last."""
        return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]


Space = Mapping[str, Range | OneOf]
"""Search space: ranges or choices by key.

A key names a setting of the optimizer. ``one_minus_b1`` is ``1 - b1``: a log scale of it suits a
decay close to 1. ``workload.dropout_rate`` is a setting of the workload. Such keys are searched on
request, on workloads with that setting. A single choice fixes a setting.
"""
