"""Budgets of steps or seconds, and the reasons why a run ends.

Boundary: data and arithmetic; measuring is for ``framework.clock``.
"""

from __future__ import annotations

import dataclasses
import enum
import math

from timetrial.framework.paths import UserPath
from timetrial.framework.types import Condition


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a run may use up: a number of updates or of charged seconds, exactly one of the two.

    Attributes:
        steps: updates allowed, > 0.
        seconds: seconds of training allowed, > 0, finite; evaluation and logging are not charged.
        charge_compile: also charge the compilation of the training step.
        also_seconds: with ``steps``: go on until this many seconds are used up as well, so that
            one run shows what both budgets would have given; it is evaluated where either ends.
        calibration: with ``seconds`` or ``also_seconds``: the file that they come from, recorded
            with the run.
        expected_steps: with ``seconds``: updates that they are expected to allow, for optimizers
            that must be told; measured when it is needed and not given.
    """

    steps: int | None = None
    seconds: float | None = None
    charge_compile: bool = False
    also_seconds: float | None = None
    expected_steps: int | None = None
    calibration: UserPath | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise ValueError(
                "a budget is either budget.steps or budget.seconds: expected exactly one, "
                f"got steps={self.steps}, seconds={self.seconds}"
            )
        for name, value in (("steps", self.steps), ("expected_steps", self.expected_steps)):
            if value is not None and value <= 0:
                raise ValueError(f"budget.{name}: expected a whole number > 0, got {value}")
        for name, limit in (("seconds", self.seconds), ("also_seconds", self.also_seconds)):
            if limit is not None and not 0 < limit < math.inf:
                raise ValueError(f"budget.{name}: expected finite seconds > 0, got {limit}")
        for name, other in (("also_seconds", "steps"), ("expected_steps", "seconds")):
            if getattr(self, name) is not None and getattr(self, other) is None:
                raise ValueError(f"budget.{name} goes with budget.{other}, which is not given")
        if self.calibration is not None and self.limit_seconds is None:
            raise ValueError("budget.calibration goes with budget.seconds, which is not given")

    def shares(self, steps: int, seconds: float) -> list[float]:
        """Share used of each limit after ``steps`` updates and ``seconds`` charged; 1 is all."""
        limits = ((steps, self.steps), (seconds, self.seconds), (seconds, self.also_seconds))
        return [used / limit for used, limit in limits if limit is not None]

    def used(self, steps: int, seconds: float) -> float:
        """Share of the budget used: of its only limit, or of the one used less; 1 is all."""
        return min(self.shares(steps, seconds))

    def limits_reached(self, steps: int, seconds: float) -> int:
        """How many limits are used up: an evaluation is due where one is."""
        return sum(share >= 1 for share in self.shares(steps, seconds))

    @property
    def limit_seconds(self) -> float | None:
        """The limit in seconds, where there is one."""
        return self.seconds if self.seconds is not None else self.also_seconds

    @property
    def condition(self) -> Condition:
        """The paper's name for the kind of budget."""
        return Condition.STEP if self.steps is not None else Condition.TIME


class StopReason(enum.Enum):
    """Why a run ended; the value is the message."""

    BUDGET = "the budget is used up"
    COMPLETE = "the optimizer has made all its updates"
    TARGET = "the target is reached"
    DIVERGED = "the loss is no longer finite"
    INTERRUPTED = "interrupted by the user"
    PRUNED = "pruned by the study"
