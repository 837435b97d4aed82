"""A suite of the tiny workload, for tests of whole races and of calibration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tiny import TinyWorkload

from timetrial.bench import suite as suites
from timetrial.framework.entries import WorkloadEntry
from timetrial.workloads import WORKLOADS


@dataclasses.dataclass(frozen=True)
class TinySettings:
    step_hint: int = 60
    eval_every_steps: int = 25


def make_tiny(settings: TinySettings) -> TinyWorkload:
    return TinyWorkload(step_hint=settings.step_hint, eval_every_steps=settings.eval_every_steps)


def register(patch: pytest.MonkeyPatch, root: Path, *, steps: int, eval_every_steps: int) -> None:
    """Makes ``tiny`` a workload, and ``p/tiny`` a preset of so many steps, for one test."""
    patch.setitem(WORKLOADS, "tiny", WorkloadEntry("tiny", TinySettings, make_tiny))
    presets = root / "presets" / "p"
    presets.mkdir(parents=True)
    (presets / "tiny.yaml").write_text(
        "workload:\n  name: tiny\n"
        f"  step_hint: {steps}\n  eval_every_steps: {eval_every_steps}\n"
        f"budget: {{steps: {steps}}}\n"
    )
    patch.setattr(suites, "PRESETS_DIRECTORY", presets.parent)
