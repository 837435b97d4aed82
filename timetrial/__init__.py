"""Timetrial: a time trial for optimizers. The public API, loaded lazily.

Boundary: names only; each is imported from its room when it is first used, so that
``import timetrial`` loads neither JAX nor MLflow.

    from timetrial import Budget, load_runs, score, train

    train("flights_dlrm", "adam", Budget(seconds=20), experiment="mine")
    train("flights_dlrm", "velo", Budget(seconds=20), experiment="mine")
    print(score(load_runs("mine")))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timetrial.bench.by_words import race, tune
    from timetrial.bench.comparison import Comparison, compare
    from timetrial.bench.library import load_runs, score, train
    from timetrial.framework.budget import Budget, StopReason
    from timetrial.framework.callbacks import Callback
    from timetrial.framework.entries import Horizon, OptimizerEntry, WorkloadEntry
    from timetrial.framework.errors import UserError
    from timetrial.framework.records import Row, RunRecord, RunResult
    from timetrial.framework.step import Program
    from timetrial.framework.trainer import Trainer
    from timetrial.framework.types import Condition, Direction, Split, Status
    from timetrial.framework.workload import Workload
    from timetrial.optimizers.velo import velo
    from timetrial.tracking.report.sections.runs import evaluation_frame
    from timetrial.workloads.supervised import supervised

__version__ = "0.2.0"

__all__ = [
    "Budget",
    "Callback",
    "Comparison",
    "Condition",
    "Direction",
    "Horizon",
    "OptimizerEntry",
    "Program",
    "Row",
    "RunRecord",
    "RunResult",
    "Split",
    "Status",
    "StopReason",
    "Trainer",
    "UserError",
    "Workload",
    "WorkloadEntry",
    "__version__",
    "compare",
    "evaluation_frame",
    "load_runs",
    "race",
    "score",
    "supervised",
    "train",
    "tune",
    "velo",
]

_HOMES = {
    "bench.by_words": ("race", "tune"),
    "bench.comparison": ("Comparison", "compare"),
    "bench.library": ("load_runs", "score", "train"),
    "framework.budget": ("Budget", "StopReason"),
    "framework.callbacks": ("Callback",),
    "framework.entries": ("Horizon", "OptimizerEntry", "WorkloadEntry"),
    "framework.errors": ("UserError",),
    "framework.records": ("Row", "RunRecord", "RunResult"),
    "framework.step": ("Program",),
    "framework.trainer": ("Trainer",),
    "framework.types": ("Condition", "Direction", "Split", "Status"),
    "framework.workload": ("Workload",),
    "optimizers.velo": ("velo",),
    "tracking.report.sections.runs": ("evaluation_frame",),
    "workloads.supervised": ("supervised",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Imports a public name from its room (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'timetrial' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"timetrial.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
