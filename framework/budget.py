"""Budgets of steps or charged seconds, and stop reasons.

Boundary: data and arithmetic; ``framework.clock`` measures.
"""

from __future__ import annotations

import dataclasses
import enum
import math

from timetrial.framework.paths import UserPath
from timetrial.framework.types import Condition

TARGET_SHARE = 0.75
"""Share of the budget at which targets are established; every run is evaluated there.

Source: Rezk et al., "Is Scaling Learned Optimizers Worth It? Evaluating the Value of VeLO's 4000
TPU Months", 2023, section 5, https://arxiv.org/abs/2310.18191.
"""


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limit of a run: a number of updates or of charged seconds, exactly one of the two.

    Attributes:
        steps: updates allowed, > 0.
        seconds: charged seconds allowed, > 0, finite; evaluation and logging are not charged.
        charge_compile: also charge the compilation of the training step.
        also_seconds: charged seconds to use up as well, only with ``steps``. One run then covers
            both budgets, with an evaluation at the end of each.
        calibration: source file of ``seconds`` or ``also_seconds``, recorded with the run.
        expected_steps: number of steps the optimizer is built for, only with ``seconds``; measured
            when needed and not given.
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
        """Share used of each limit after ``steps`` updates and ``seconds`` charged seconds."""
        limits = ((steps, self.steps), (seconds, self.seconds), (seconds, self.also_seconds))
        return [used / limit for used, limit in limits if limit is not None]

    def used(self, steps: int, seconds: float) -> float:
        """Share of the budget used, 1 is all; the smaller share where there are two limits."""
        return min(self.shares(steps, seconds))

    def marks_passed(self, steps: int, seconds: float) -> int:
        """Number of marks at or behind this moment; an evaluation is due at each.

        Each limit has two: ``TARGET_SHARE`` of it, and its end.
        """
        shares = self.shares(steps, seconds)
        return sum(share >= mark for share in shares for mark in (TARGET_SHARE, 1))

    def seconds_to_mark(self, seconds: float) -> float:
        """Charged seconds to the next mark in seconds; inf behind the last one, or without."""
        limit = self.limit_seconds or 0.0
        left = (mark * limit - seconds for mark in (TARGET_SHARE, 1))
        return min((gap for gap in left if gap > 0), default=math.inf)

    @property
    def limit_seconds(self) -> float | None:
        """The limit in charged seconds, or None."""
        return self.seconds if self.seconds is not None else self.also_seconds

    @property
    def condition(self) -> Condition:
        """Kind of budget, as named in the paper."""
        return Condition.STEP if self.steps is not None else Condition.TIME


class StopReason(enum.Enum):
    """Reason for the end of a run; the value is the message."""

    BUDGET = "the budget is used up"
    COMPLETE = "the optimizer has made all its updates"
    TARGET = "the target is reached"
    DIVERGED = "the loss is no longer finite"
    INTERRUPTED = "interrupted by the user"
    PRUNED = "pruned by the study"
