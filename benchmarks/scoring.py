"""Time of scoring: 1,000 runs of 200 evaluations of 10 metrics, 10,000 bootstrap samples.

Covers a whole report: targets, times, ratios, scores, final metrics with intervals and their
coverage on all of them, probabilities of improvement with adjusted p-values, aggregates, rank
stability, sensitivity and the null test. The goal is at most 10 seconds.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.scores.aggregates import aggregates
from timetrial.tracking.scores.final_quality import final_values
from timetrial.tracking.scores.multiple import holm, smallest_difference
from timetrial.tracking.scores.null_test import null_test
from timetrial.tracking.scores.ranks import leave_one_workload_out, over_r_max
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.scoring import scores, speedups, wins
from timetrial.tracking.scores.sensitivity import sensitivity
from timetrial.tracking.scores.targets import targets, time_to_target, trial_times
from timetrial.tracking.scores.uncertainty import (
    probability_of_improvement,
    quality_intervals,
    race_intervals,
)

GOAL = 10.0
WORKLOADS, OPTIMIZERS, SEEDS, EVALUATIONS = 10, 10, 5, 200
METRICS = [f"{split}/{m}" for split in ("train", "validation") for m in ("loss", *"abcd")]
R_MAX = {"time": 3.0, "step": 1.5}


def runs(seed: int = 0) -> list[RunRecord]:
    """Ten optimizers on ten workloads with five seeds, both conditions: saturating curves."""
    random = np.random.default_rng(seed)
    return [
        _run(random, condition, f"workload{w}", f"optimizer{o}", trial)
        for condition in R_MAX
        for w in range(WORKLOADS)
        for o in range(OPTIMIZERS)
        for trial in range(SEEDS)
    ]


def _run(
    random: np.random.Generator, condition: str, workload: str, optimizer: str, trial: int
) -> RunRecord:
    speed = random.uniform(2, 8)
    done = 1 - np.exp(-speed * np.arange(EVALUATIONS) / EVALUATIONS)
    noise = random.normal(0, 0.01, (EVALUATIONS, len(METRICS)))
    rows = [
        Row(10 * i, 0.5 * i, dict(zip(METRICS, (done[i] + noise[i]).tolist(), strict=True)))
        for i in range(EVALUATIONS)
    ]
    return RunRecord(
        run_id=f"{condition}-{workload}-{optimizer}-{trial}",
        workload=workload,
        optimizer=optimizer,
        seed=trial,
        condition=condition,
        budget=rows[-1].train_seconds if condition == "time" else float(rows[-1].step),
        metric="a",
        direction=Direction.MAXIMIZE,
        status="FINISHED",
        reason="BUDGET",
        step=rows[-1].step,
        train_seconds=rows[-1].train_seconds,
        evaluations=rows,
    )


def score_everything(records: list[RunRecord], options: Bootstrap) -> None:
    """Makes the computations of a report, for both conditions and splits."""
    for condition, r_max in R_MAX.items():
        for split in ("train", "validation"):
            goals = targets(records, split=split, condition=condition)
            times = time_to_target(records, goals, split, "steps", condition=condition)
            trials = trial_times(records, goals, split, "steps", condition=condition)
            scores(times, r_max=r_max)
            wins(times)
            speedups(times, "optimizer0")
            race_intervals(trials, r_max=r_max, options=options)
            pairs = probability_of_improvement(trials, options=options)
            for _, group in pairs.groupby("optimizer"):
                holm(dict(zip(group["other"], group["p_value"], strict=True)))
            aggregates(records, split=split, condition=condition, targets=goals, options=options)
            sensitivity(records, split=split, condition=condition, r_max=r_max)
            null_test(records, split=split, condition=condition, r_max=r_max)
            leave_one_workload_out(times, r_max=r_max)
            over_r_max(times, np.arange(1.25, 4.25, 0.25))
    quality_intervals(final_values(records), options=options)
    smallest_difference(SEEDS, WORKLOADS, OPTIMIZERS - 1, options.level)


def main() -> None:
    """Prints the seconds; exits with 1 if they are above the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000, help="bootstrap samples")
    parser.add_argument("--method", choices=["percentile", "bca"], default="bca")
    options = parser.parse_args()
    records = runs()
    started, processor = time.perf_counter(), time.process_time()
    score_everything(records, Bootstrap(samples=options.samples, method=options.method))
    wall, used = time.perf_counter() - started, time.process_time() - processor
    print(
        f"{len(records)} runs x {EVALUATIONS} evaluations x {len(METRICS)} metrics, "
        f"{options.samples} samples ({options.method}): {wall:.1f} s, {used:.1f} s of processor "
        f"(goal: {GOAL:g} s)"
    )
    sys.exit(wall > GOAL)


if __name__ == "__main__":
    main()
