"""Settings that all mini workloads share: sizes of batches and of what is evaluated, and cadence.

Boundary: values and their ranges; what a size may be at most, the data of a workload decide.
"""

from __future__ import annotations

import dataclasses

from timetrial.framework.ranges import check
from timetrial.framework.types import Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What surrounds the model; each workload has its own defaults.

    Attributes:
        batch_size: examples per update, >= 1.
        step_hint: updates that learning-rate schedules are laid out for, >= 1.
        eval_every_steps: updates between two evaluations, >= 1, or None for none by steps.
        eval_every_seconds: charged seconds between two evaluations, > 0, or None.
        eval_batch_size: examples per evaluation batch, >= 1; changes no metric.
        train_examples: how many training examples are evaluated, >= 1, always the same.
        validation_examples: how many validation examples are evaluated, >= 1.
        test_examples: how many test examples are evaluated, >= 1.
    """

    batch_size: int
    step_hint: int
    eval_every_steps: int | None
    eval_every_seconds: float | None = None
    eval_batch_size: int
    train_examples: int
    validation_examples: int
    test_examples: int

    def __post_init__(self) -> None:
        check(self, batch_size=">= 1", step_hint=">= 1", eval_batch_size=">= 1")
        check(self, eval_every_steps=">= 1", eval_every_seconds="> 0")
        check(self, train_examples=">= 1", validation_examples=">= 1", test_examples=">= 1")

    def examples(self, split: Split) -> int:
        """How many examples of a split are evaluated."""
        counts: dict[Split, int] = {
            Split.TRAIN: self.train_examples,
            Split.VALIDATION: self.validation_examples,
            Split.TEST: self.test_examples,
        }
        return counts[split]
