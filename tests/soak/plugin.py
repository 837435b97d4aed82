"""A workload of microseconds with slow batches, as an installed plug-in of every process.

Boundary: tests only; ``SOAK_STEP_SECONDS`` is the time of a batch, ``SOAK_EVAL_SECONDS`` that of an
evaluation.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

from plugins import package
from tiny import TinyWorkload

from timetrial.framework.types import Split
from timetrial.framework.workload import Batch

STEPS = 20
SUITE = """\
summary: a race to be killed
presets: soaked
workloads: [soaked]
optimizers: [adam, nesterov]
seeds: [0, 1]
conditions: [step]
"""
PRESET = f"""\
workload: {{name: soaked, step_hint: {STEPS}, eval_every_steps: 5}}
budget: {{steps: {STEPS}}}
"""


@dataclasses.dataclass(frozen=True)
class SoakedSettings:
    step_hint: int = STEPS
    eval_every_steps: int = 5


class Soaked(TinyWorkload):
    """The tiny workload with slow batches and evaluations."""

    def train_batch(self, seed: int, step: int) -> Batch:
        time.sleep(float(os.environ.get("SOAK_STEP_SECONDS", "0")))
        return super().train_batch(seed, step)

    def eval_batches(self, split: Split) -> Sequence[Batch]:
        time.sleep(float(os.environ.get("SOAK_EVAL_SECONDS", "0")))
        return super().eval_batches(split)


def make(settings: SoakedSettings) -> Soaked:
    return Soaked(step_hint=settings.step_hint, eval_every_steps=settings.eval_every_steps)


def install(site: Path) -> None:
    """Lays the plug-in, a suite with its preset and the hook into a directory for PYTHONPATH."""
    (site / "soaked").mkdir(parents=True)
    package(site, "soaked", {}, "[timetrial.workloads]\nsoaked = soak.plugin:make\n")
    (site / "soaked" / "soaked.yaml").write_text(PRESET)
    (site / "race.yaml").write_text(SUITE)
    (site / "sitecustomize.py").write_text("import soak.hook\n\nsoak.hook.install()\n")
