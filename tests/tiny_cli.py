"""The command line with the tiny workload registered, for tests that start processes.

``TINY_STEP_SECONDS`` sets the time of every batch, to leave time for a kill.
"""

from __future__ import annotations

import dataclasses
import os
import time

from tiny import TinyWorkload

from timetrial.bench import cli
from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.workload import Batch
from timetrial.workloads import WORKLOADS

STEP_SECONDS = float(os.environ.get("TINY_STEP_SECONDS", "0"))


@dataclasses.dataclass(frozen=True)
class TinySettings:
    step_hint: int = 30
    eval_every_steps: int = 5
    dropout_rate: float = 0.0


class SlowTiny(TinyWorkload):
    def train_batch(self, seed: int, step: int) -> Batch:
        time.sleep(STEP_SECONDS)
        return super().train_batch(seed, step)


def make_tiny(settings: TinySettings) -> TinyWorkload:
    return SlowTiny(step_hint=settings.step_hint, eval_every_steps=settings.eval_every_steps)


def register() -> None:
    WORKLOADS["tiny"] = WorkloadEntry("tiny", TinySettings, make_tiny)


if __name__ == "__main__":
    register()
    cli.main()
