"""Tunes Adam on a workload: python study.py [TRIALS STEPS]. The same command continues it."""

import sys

from timetrial import tune

TRIALS, STEPS = sys.argv[1:] or (4, 100)

trials = tune(  # the words of `timetrial tune`
    "preset=quick/flights_dlrm",
    "optimizer=adam",
    f"budget.steps={STEPS}",
    f"study.trials={TRIALS}",
)
ranked = trials.sort_values("value")  # the best validation loss of each trial
print(ranked[["trial", "value", "learning_rate", "train_seconds"]].to_string(index=False))
print(f"from {ranked.value.iloc[-1]:.4f} in the worst trial to {ranked.value.iloc[0]:.4f}")
