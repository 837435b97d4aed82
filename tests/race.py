"""A made-up race with the shape of a real one: curves, failures and divergence, from a seed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Direction

# Per workload: metric, direction, untrained and best value, loss at the start and at the end,
# charged seconds per step of the fastest optimizer.
WORKLOADS = {
    "fashion_mnist_resnet": ("accuracy", Direction.MAXIMIZE, 0.10, 0.89, 2.32, 0.31, 0.021),
    "icbm_unet": ("ssim", Direction.MAXIMIZE, 0.21, 0.83, 0.71, 0.118, 0.034),
    "assays_gnn": ("mean_average_precision", Direction.MAXIMIZE, 0.19, 0.47, 0.74, 0.33, 0.011),
    "flights_dlrm": ("loss", Direction.MINIMIZE, 0.81, 0.601, 0.81, 0.601, 0.008),
}
# Per optimizer: speed of convergence, share of the best quality, cost of a step.
OPTIMIZERS = {
    "adam": (7.0, 0.985, 1.0),
    "nadam": (7.5, 0.975, 1.03),
    "nadamw": (6.0, 1.0, 1.05),
    "heavy_ball": (3.0, 0.93, 0.97),
    "nesterov": (3.3, 0.94, 0.98),
    "velo": (5.0, 0.998, 1.35),
    "velo_short": (8.0, 0.99, 1.36),
}
STEPS = 400
PROMPTS = {"velo": STEPS, "velo_short": int(0.75 * STEPS)}


def race(*, conditions: tuple[str, ...] = ("time", "step"), seed: int = 0) -> list[RunRecord]:
    """4 workloads x 7 optimizers x 3 seeds per condition, with some runs gone wrong or missing."""
    records = [
        _run(condition, workload, optimizer, trial, seed)
        for condition in conditions
        for workload in WORKLOADS
        for optimizer in OPTIMIZERS
        for trial in range(3)
    ]
    return [changed for record in records if (changed := _misfortune(record)) is not None]


def study() -> list[RunRecord]:
    """Eight trials that tune Adam on one workload of the race; the sixth one diverged."""
    trials = []
    for point in range(8):
        run = _run("step", "assays_gnn", "adam", 10 + point, seed=1)
        share = 0.8 + 0.04 * ((3 * point) % 8)
        rows = [
            dataclasses.replace(
                row, metrics={key: share * value for key, value in row.metrics.items()}
            )
            for row in run.evaluations
        ]
        tags = {**run.tags, "study": "assays_gnn-adam-sobol-0", "point": str(point)}
        run = dataclasses.replace(run, run_id=f"trial{point}", evaluations=rows, tags=tags, seed=0)
        trials.append(_cut(run, 3, status="FINISHED", reason="DIVERGED") if point == 5 else run)
    return trials


def rates() -> pd.DataFrame:
    """A learning rate that falls to 0, for two optimizers on two workloads."""
    return pd.DataFrame(
        [
            (workload, optimizer, step, peak * (1 - step / STEPS))
            for workload in ("assays_gnn", "flights_dlrm")
            for optimizer, peak in (("adam", 5e-3), ("nadam", 1e-2))
            for step in range(0, STEPS + 1, 100)
        ],
        columns=["workload", "optimizer", "step", "learning_rate"],
    )


def _run(condition: str, workload: str, optimizer: str, trial: int, seed: int) -> RunRecord:
    metric, direction, start, best, loss0, loss1, step_seconds = WORKLOADS[workload]
    speed, quality, cost = OPTIMIZERS[optimizer]
    key = [seed, list(WORKLOADS).index(workload), list(OPTIMIZERS).index(optimizer)]
    taste = np.random.default_rng(key).normal(size=2)
    noise = np.random.default_rng([*key, trial])
    speed *= math.exp(0.3 * taste[0])
    quality *= 1 - 0.02 * abs(taste[1])
    budget = STEPS * step_seconds if condition == "time" else float(STEPS)
    steps = int(STEPS / cost) if condition == "time" else STEPS
    rows = []
    for step in sorted({*range(0, steps, 20), steps}):
        done = 1 - math.exp(-speed * step / STEPS)
        metrics = {}
        for split, gap in (("train", 1.02), ("validation", 1.0)):
            share = done * quality * gap + (noise.normal(0, 0.006) if step else 0.0)
            metrics[f"{split}/loss"] = loss0 + (loss1 - loss0) * share
            metrics[f"{split}/{metric}"] = start + (best - start) * share
        seconds = step * step_seconds * cost * (1 + noise.normal(0, 0.004))
        rows.append(Row(step, seconds, metrics))
    return RunRecord(
        run_id=f"{condition[0]}{key[1]}{key[2]}{trial}c0ffee",
        workload=workload,
        optimizer=optimizer,
        seed=trial,
        condition=condition,
        budget=budget,
        metric=metric,
        direction=direction,
        status="FINISHED",
        reason="BUDGET",
        step=steps,
        train_seconds=rows[-1].train_seconds,
        evaluations=rows,
        config={
            "optimizer": optimizer,
            "workload": workload,
            "seed": str(trial),
            **(
                {"optimizer.prompt": str(PROMPTS[optimizer] / STEPS)}
                if optimizer in PROMPTS
                else {"optimizer.learning_rate": "0.01"}
            ),
        },
        tags={
            "workload": workload,
            "optimizer_name": optimizer,
            "learned": str(optimizer in PROMPTS).lower(),
            "config_hash": f"{abs(hash((key[1], key[2]))) % 16**8:08x}",
            "device_kind": "cpu",
            "host": "alpha",
            "host_cores": "2",
            "git_commit": "0123abcd" * 5,
            "version.jax": "0.9.0",
            "version.python": "3.12.4",
            **({"velo.num_steps": str(PROMPTS[optimizer])} if optimizer in PROMPTS else {}),
        },
    )


def _misfortune(record: RunRecord) -> RunRecord | None:
    """Diverged, failed, killed, running and missing runs, one or two of each."""
    place = (record.condition, record.workload, record.optimizer, record.seed)
    if record.optimizer == "nadam" and record.workload == "icbm_unet" and record.seed == 2:
        return _cut(record, 9, status="FAILED", reason="DIVERGED")
    if place == ("step", "assays_gnn", "nesterov", 1):
        return _cut(record, 6, status="FAILED", reason="")
    if place == ("step", "flights_dlrm", "velo", 2):
        return _cut(record, 11, status="RUNNING", reason="")
    if place == ("time", "flights_dlrm", "velo", 0):
        return _cut(record, 4, status="KILLED", reason="INTERRUPTED")
    if place == ("time", "assays_gnn", "heavy_ball", 1):
        return None
    if record.optimizer == "heavy_ball" and record.workload == "fashion_mnist_resnet":
        return _cut(record, 5, status="FAILED", reason="DIVERGED")
    return record


def _cut(record: RunRecord, rows: int, *, status: str, reason: str) -> RunRecord:
    kept = record.evaluations[:rows]
    last = kept[-1]
    return dataclasses.replace(
        record,
        status=status,
        reason=reason,
        evaluations=kept,
        step=last.step + 7,
        train_seconds=last.train_seconds * 1.02,
    )
