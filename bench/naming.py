"""Names, tags and summaries under which a run is shown and recorded.

Boundary: pure functions of configurations and results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from timetrial.framework.config import RunConfig
from timetrial.framework.records import RunResult
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.record import schema


def run_name(config: RunConfig) -> str:
    """A run in a few words."""
    return f"{config.workload.name} {label(config)} seed {config.seed}"


def label(config: RunConfig) -> str:
    """The optimizer as tables show it: ``adam``, ``velo[embedded]``, or the run's own label."""
    if config.label:
        return config.label
    variant = OPTIMIZERS[config.optimizer.name].variant(config.optimizer.settings)
    return f"{config.optimizer.name}[{variant}]" if variant else config.optimizer.name


def end_tags(result: RunResult | None) -> dict[str, str]:
    """Tags known only when a run has ended; empty when it did not end by itself."""
    if result is None:
        return {}
    diverged = result.reason.name == "DIVERGED"
    return {schema.STOP_REASON: result.reason.name, schema.DIVERGED: str(diverged).lower()}


def summary(
    result: RunResult | None, accounts: Mapping[str, float], wall_seconds: float
) -> dict[str, float]:
    """Metrics of the run as a whole: seconds by account, steps, the last evaluation.

    The accounts sum to ``time/wall_seconds``, which is measured independently of the clock.
    """
    values = {f"time/{name}_seconds": seconds for name, seconds in accounts.items()}
    values["time/wall_seconds"] = wall_seconds
    if result is not None:
        values["final/step"] = result.step
        for name, value in result.evaluations[-1].metrics.items():
            if math.isfinite(value):
                values[f"final/{name}"] = value
    return values
