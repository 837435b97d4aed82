"""Races of any size, and how long their runs take.

Boundary: suites and random numbers; makes no run.
"""

from __future__ import annotations

import collections
import math
import random
from collections.abc import Sequence
from pathlib import Path

from timetrial.bench.lengths import readable_store, recorded
from timetrial.bench.suite import Suite, load_suite
from timetrial.framework.config import Tracking

RUNS_PER_SEED = 44
"""Runs of suite mini with one seed: 4 workloads, 9 optimizers, VeLO's twice, one without steps."""

MEDIAN_SECONDS = {
    "fashion_mnist_resnet": 60.0,
    "icbm_unet": 50.0,
    "assays_gnn": 40.0,
    "flights_dlrm": 30.0,
}
SPREAD = 0.3
"""Standard deviation of the logarithm of a duration."""


def race_of(runs: int, root: Path) -> tuple[Suite, Tracking]:
    """Suite mini with so many seeds that it has about this number of runs, and its place."""
    seeds = ",".join(map(str, range(max(1, math.ceil(runs / RUNS_PER_SEED)))))
    words = ["suite=mini", f"seeds=[{seeds}]", f"tracking.root={root}"]
    return load_suite([*words, f"tracking.experiment=scale-{runs}"])


class Durations:
    """Draws wall seconds of runs.

    Args:
        seed: seed of the draws.
        root: tracking root with recorded runs to draw from; None draws from lognormal
            distributions with the medians ``MEDIAN_SECONDS``.
    """

    def __init__(self, seed: int, root: Path | None = None) -> None:
        self._random = random.Random(f"durations {seed}")
        self._known: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
        if root is not None:
            for one in recorded(readable_store(Tracking(root=str(root)))):
                self._known[one.workload, one.optimizer].append(one.wall_seconds)

    def draw(self, name: str) -> float:
        """Seconds of a run with a name such as ``flights_dlrm adam seed 3``."""
        workload, optimizer = name.split()[:2]
        known: Sequence[float] = self._known.get((workload, optimizer), ())
        if known:
            return self._random.choice(known)
        return self._random.lognormvariate(math.log(MEDIAN_SECONDS[workload]), SPREAD)
