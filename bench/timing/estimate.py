"""Estimates how many steps fit a time budget.

Boundary: measures and divides; ``experiment`` uses the number.

Source: Rezk et al., "Is Scaling Learned Optimizers Worth It? Evaluating the Value of VeLO's 4000
TPU Months", 2023, appendix B, https://arxiv.org/abs/2310.18191.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Sequence

import jax
import numpy as np

from timetrial.framework.hosts import Team
from timetrial.framework.step import Program

SHARE_OF_STEP_HINT = 0.05
WARM_UP_STEPS = 3
ESTIMATES = 2


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimated number of steps in a time budget.

    Attributes:
        steps: the estimate.
        step_seconds: measured seconds per step, one number per estimate.
    """

    steps: int
    step_seconds: tuple[float, ...]


def steps_within(seconds: float, step_seconds: Sequence[float]) -> int:
    """Number of steps that fit: the mean of budget / seconds per step, each rounded down.

    The mean is rounded down, too; the result is at least 1.

    Args:
        seconds: the time budget, in charged seconds, > 0.
        step_seconds: measured seconds per step, at least one, each > 0.
    """
    return max(1, math.floor(statistics.fmean(math.floor(seconds / s) for s in step_seconds)))


def estimate_steps(program: Program, seconds: float) -> Estimate:
    """Times 5 % of the workload's step hint, twice, without compilation and the first steps.

    Args:
        program: the workload with the optimizer; the optimizer's horizon must not change the
            time of an update.
        seconds: the time budget, in charged seconds.
    """
    count = max(10, math.ceil(SHARE_OF_STEP_HINT * program.workload.step_hint))
    measured = tuple(warm_step_seconds(program, count)[0] for _ in range(ESTIMATES))
    return Estimate(steps_within(seconds, measured), measured)


def warm_step_seconds(program: Program, count: int, groups: int = 1) -> tuple[float, ...]:
    """Mean seconds per step of groups of steps, without compilation and the first steps.

    Args:
        program: the workload with the optimizer.
        count: number of steps of a group, >= 1.
        groups: number of groups, one right after the other, >= 1.
    """
    fed = {"remaining_fraction": np.asarray(1.0, np.float32), **Team(program.devices).inputs(0.0)}
    state = program.init(0)
    program.compile(state, fed)
    edges = []
    feed = program.feed(0, 0)
    for step in range(WARM_UP_STEPS + count * groups):
        if step >= WARM_UP_STEPS and (step - WARM_UP_STEPS) % count == 0:
            jax.block_until_ready(state)
            edges.append(time.perf_counter())
        state, metrics = program.train_step(state, next(feed), fed)
        jax.block_until_ready(metrics)
    edges.append(time.perf_counter())
    feed.close()
    return tuple((end - start) / count for start, end in itertools.pairwise(edges))
