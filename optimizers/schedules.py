"""Learning-rate schedules of the baselines, as functions of the number of updates made.

Boundary: pure; the only module that scales a schedule to a workload's step hint.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax

from timetrial.framework.entries import Horizon

SCHEDULE_SHARE = 0.75
"""Share of the workload's step hint spent in warm-up and decay together."""


def warmup_cosine(
    peak: float, horizon: Horizon, *, warmup_fraction: float, end_factor: float
) -> optax.Schedule:
    """Linear warm-up from 0 to ``peak``, then cosine decay to ``end_factor * peak``, then flat.

    With ``S = int(0.75 * step_hint)`` the warm-up takes ``w = warmup_fraction * S`` updates (not
    rounded) and the cosine the remaining ``S - w``; the first update has learning rate 0.

    Args:
        peak: highest learning rate, >= 0.
        horizon: its ``step_hint`` is the workload's, in both budget conditions.
        warmup_fraction: in [0, 1).
        end_factor: final learning rate as a *factor* of ``peak``: the paper's Table 8 prints
            "1e-4", its code passes it to optax as ``alpha``.

    Source: Rezk et al., "Is Scaling Learned Optimizers Worth It? Evaluating the Value of VeLO's
    4000 TPU Months", 2023, section 4 and Table 8, https://arxiv.org/abs/2310.18191; cosine:
    Loshchilov and Hutter, "SGDR", 2017, https://arxiv.org/abs/1608.03983.
    """
    steps = int(SCHEDULE_SHARE * horizon.step_hint)
    warmup = warmup_fraction * steps

    def schedule(count: object) -> jnp.ndarray:
        made = jnp.asarray(count, jnp.float32)
        rising = made / max(warmup, 1e-9)
        decayed = jnp.clip((made - warmup) / max(steps - warmup, 1e-9), 0.0, 1.0)
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * decayed))
        falling = (1.0 - end_factor) * cosine + end_factor
        return peak * jnp.where(made < warmup, rising, falling)

    return schedule


def warmup_linear(
    peak: float,
    horizon: Horizon,
    *,
    warmup_fraction: float,
    decay_fraction: float,
    end_factor: float,
) -> optax.Schedule:
    """Linear warm-up from 0 to ``peak``, then linear decay to ``end_factor * peak``, then flat.

    With ``S = int(0.75 * step_hint)`` the warm-up takes ``w = warmup_fraction * S`` updates and
    the decay ``int((S - w) * decay_fraction)``; the first update has learning rate 0.

    Args:
        peak: highest learning rate, >= 0.
        horizon: its ``step_hint`` is the workload's, in both budget conditions.
        warmup_fraction: in [0, 1).
        decay_fraction: share of the updates after the warm-up that the decay takes, in (0, 1].
        end_factor: final learning rate as a factor of ``peak``.

    Source: the target-setting heavy-ball and Nesterov runs of AlgoPerf: Dahl et al.,
    "Benchmarking Neural Network Training Algorithms", 2023, https://arxiv.org/abs/2306.07179.
    """
    steps = int(SCHEDULE_SHARE * horizon.step_hint)
    warmup = warmup_fraction * steps
    decay = int((steps - warmup) * decay_fraction)

    def schedule(count: object) -> jnp.ndarray:
        made = jnp.asarray(count, jnp.float32)
        rising = made / max(warmup, 1e-9)
        decayed = jnp.clip((made - warmup) / max(decay, 1), 0.0, 1.0)
        falling = 1.0 + (end_factor - 1.0) * decayed
        return peak * jnp.where(made < warmup, rising, falling)

    return schedule


def warmup_constant(peak: float, horizon: Horizon, *, warmup_fraction: float) -> optax.Schedule:
    """Linear warm-up to ``peak``, then flat; the first update has a learning rate above 0.

    With ``S = int(0.75 * step_hint)`` the warm-up takes ``w = max(1, int(warmup_fraction * S))``
    updates, and update t, from 1, has ``peak * min(t / w, 1)``.

    Args:
        peak: learning rate after the warm-up, >= 0.
        horizon: its ``step_hint`` is the workload's, in both budget conditions.
        warmup_fraction: in [0, 1).

    Source: the warm-up of https://github.com/facebookresearch/schedule_free.
    """
    warmup = max(1, int(warmup_fraction * int(SCHEDULE_SHARE * horizon.step_hint)))
    return lambda made: peak * jnp.minimum((jnp.asarray(made, jnp.float32) + 1) / warmup, 1.0)


def sampled(rates: float | optax.Schedule, steps: int, count: int) -> list[tuple[int, float]]:
    """Points ``(step, learning rate)`` of a schedule, for a plot or a record.

    Args:
        rates: a learning rate, or a schedule by number of updates made.
        steps: last step, >= 0; the first is 0.
        count: number of points; fewer if there are fewer steps.

    Returns:
        Points in order of step; rates rounded to 5 significant digits, finite ones only.
    """
    grid = np.unique(np.linspace(0, steps, count).round().astype(int))
    found = _rates(rates, grid) if callable(rates) else np.full(len(grid), float(rates))
    return [
        (int(step), float(f"{rate:.5g}"))
        for step, rate in zip(grid, found, strict=True)
        if np.isfinite(rate)
    ]


def _rates(schedule: optax.Schedule, grid: np.ndarray) -> np.ndarray:
    """The rates at all steps of a grid at once, or one by one for scalar schedules."""
    try:
        found = np.asarray(schedule(jnp.asarray(grid)))
    except Exception:  # a scalar schedule may raise anything
        found = np.empty(0)
    if found.shape == grid.shape:
        return found
    return np.array([float(schedule(jnp.asarray(step))) for step in grid])
