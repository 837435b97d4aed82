"""Settings of all mini workloads: sizes of batches and evaluations, and cadence.

Boundary: values and their ranges; each workload checks sizes against its data.
"""

from __future__ import annotations

import dataclasses

from timetrial.framework.ranges import check
from timetrial.framework.types import Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Sizes and cadence; each workload defines its own defaults.

    Attributes:
        batch_size: examples per update, >= 1.
        step_hint: length of learning-rate schedules in updates, >= 1.
        eval_every_steps: updates between two evaluations, >= 1, or null.
        eval_every_seconds: charged seconds between two evaluations, > 0, or null.
        eval_batch_size: examples per evaluation batch, >= 1; does not affect metrics.
        train_examples: number of training examples to evaluate, >= 1; a fixed subset.
        validation_examples: number of validation examples to evaluate, >= 1.
        test_examples: number of test examples to evaluate, >= 1.
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
        """Number of evaluated examples of a split."""
        counts: dict[Split, int] = {
            Split.TRAIN: self.train_examples,
            Split.VALIDATION: self.validation_examples,
            Split.TEST: self.test_examples,
        }
        return counts[split]
