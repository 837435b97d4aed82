"""Races a suite of your own, mine.yaml beside this file: python race.py [KEY=VALUE ...]."""

import sys
from pathlib import Path

from timetrial import race, score

SUITE = Path(__file__).with_name("mine.yaml")

runs = race(f"suite={SUITE}", *sys.argv[1:])  # the words of `timetrial bench`, as seeds=[0]
finished = [run for run in runs if run.status == "FINISHED"]
for run in finished:
    loss = run.evaluations[-1].metrics[f"validation/{run.metric}"]
    print(f"{run.optimizer:16} seed {run.seed}: {run.metric} {loss:.4f} after {run.step} updates")
print(score(finished))  # 1 = fastest to the target on every workload, 0 = never close
