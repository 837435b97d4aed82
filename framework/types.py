"""Basic types: trees, metrics, conditions, splits, directions.

Boundary: data only; imports neither JAX nor another module of this package.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from typing import Any

PyTree = Any
"""Any nesting of dicts, tuples and dataclasses with arrays as leaves."""


Metrics = dict[str, float]
"""Value by name; evaluated metrics are named ``"<split>/<metric>"``."""


class Condition(enum.StrEnum):
    """Kind of budget: the paper's time control or step control."""

    TIME = "time"
    STEP = "step"

    @property
    def unit(self) -> str:
        """Unit of budgets and times to target: ``seconds`` or ``steps``."""
        return "seconds" if self is Condition.TIME else "steps"


class Split(enum.StrEnum):
    """A fixed set of examples to evaluate on; evaluated metrics are ``"<split>/<metric>"``."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Status(enum.StrEnum):
    """Status of a run, with MLflow's names."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


class Direction(enum.Enum):
    """Direction of a metric: smaller or larger is better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    @property
    def sign(self) -> float:
        """Factor that makes a cost of a value: 1 for ``MINIMIZE``, -1 for ``MAXIMIZE``."""
        return 1.0 if self is Direction.MINIMIZE else -1.0

    @property
    def worst(self) -> float:
        """The worst possible value: ``inf`` for ``MINIMIZE``, ``-inf`` for ``MAXIMIZE``."""
        return self.sign * math.inf

    def reached(self, value: float, target: float) -> bool:
        """True when ``value`` is finite and at least as good as ``target``."""
        beyond = value <= target if self is Direction.MINIMIZE else value >= target
        return beyond and math.isfinite(value)

    def best(self, values: Iterable[float]) -> float:
        """The best of ``values`` that are not NaN; NaN when there is none."""
        finite = [v for v in values if not math.isnan(v)]
        if not finite:
            return math.nan
        return min(finite) if self is Direction.MINIMIZE else max(finite)
