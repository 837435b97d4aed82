"""Reads recorded runs into pandas: python results.py [EXPERIMENT [DIRECTORY]].

Run compare.py first, which records the experiment `comparison`, or `make bench`, which records
`timetrial-quick`.
"""

import sys

from timetrial import evaluation_frame, load_runs

EXPERIMENT, DIRECTORY = [*sys.argv[1:], *["comparison", "runs"][len(sys.argv) - 1 :]]

runs = [run for run in load_runs(EXPERIMENT, root=DIRECTORY) if run.status == "FINISHED"]
deciding = {(run.workload, run.metric) for run in runs}
frame = evaluation_frame(runs)  # one row per run, evaluation, split and metric
frame = frame[[pair in deciding for pair in zip(frame.workload, frame.metric, strict=True)]]
validation = frame[frame.split == "validation"]

ends = validation.groupby("run_id").tail(1)
print("At the end, over the seeds:")
keys = ["workload", "metric", "condition", "optimizer"]
print(ends.groupby(keys).value.agg(["mean", "min", "max", "count"]).to_string())

print("\nOn the way, mean over the seeds:")
print(validation.pivot_table("value", ["workload", "step"], "optimizer").iloc[::2].to_string())
