"""Judges the charged seconds on a clock.

Boundary: collects the measurements; ``framework.credibility`` judges them.
"""

from __future__ import annotations

import jax

from timetrial.framework.clock import TRAIN, Clock
from timetrial.framework.credibility import ChargedTime, doubt


def doubt_about(clock: Clock, usual_cpu: float | None = None) -> str:
    """Why the charged seconds of a clock are not credible, as a sentence; "" if they are.

    Args:
        clock: clock of a run that has ended; without a meter nothing speaks against it.
        usual_cpu: CPU seconds per charged second during the calibration; None without one.
    """
    if clock.meter is None:
        return ""
    usage = clock.meter.usage
    return doubt(
        ChargedTime(
            seconds=clock.train_seconds,
            cpu_seconds=clock.cpu_accounts().get(TRAIN, 0.0),
            platform=jax.default_backend(),
            cores=len(clock.meter.cores),
            others=usage.others,
            stolen=usage.stolen,
            usual_cpu=usual_cpu,
            gpu_others=clock.meter.gpu_others,
        )
    )
