"""The names under which a run is recorded: one list for the writer, the reader and the views.

Boundary: constants only.
"""

from __future__ import annotations

from typing import Final

STUDIES: Final = "timetrial-tune"
"""Experiment that tuning studies are recorded in unless they are told another."""

# Tags that make a run one of ours. The caller composes them, ``load_runs`` reads them back.
WORKLOAD: Final = "workload"
OPTIMIZER: Final = "optimizer"  # the label to show; tells variants apart
SEED: Final = "seed"
CONDITION: Final = "condition"  # "step" or "time"
BUDGET: Final = "budget"  # limit of the budget, in steps or seconds
METRIC: Final = "metric"  # the workload's deciding metric, without its split
DIRECTION: Final = "direction"  # "minimize" or "maximize"

REQUIRED_TAGS: Final = (WORKLOAD, OPTIMIZER, SEED, CONDITION, BUDGET, METRIC, DIRECTION)

# Tags that say what an optimizer is; reports draw by them, never by its name.
OPTIMIZER_NAME: Final = "optimizer_name"  # its name in the registry, without variant
LEARNED: Final = "learned"  # "true" or "false"
COLOR: Final = "color"  # colour on a light background, "#rrggbb"; absent: the report chooses one
LEARNING_RATES: Final = "learning_rates"  # JSON [[step, rate], ...]; absent: it has none

# Tags that the caller adds where they apply.
SUITE: Final = "suite"
CONFIG_HASH: Final = "config_hash"  # identity of a configuration: a finished one is not repeated
SETS_TIME_BUDGET: Final = "sets_time_budget"  # "true": its seconds are the suite's time budget
CALIBRATION: Final = "calibration"  # identity of the calibration that the budget comes from
STUDY: Final = "study"  # name of the HPO study that a run is a trial of
TRIAL: Final = "trial"  # number of the trial in its study's storage
POINT: Final = "point"  # number of the trial's point, from 0; a retried trial has the same one
STUDY_SUMMARY: Final = "study_summary"  # name of the study that a run is the summary of
REPORT: Final = "report"  # name of the suite that a run holds the report of
ABOUT_RUNS: Final = (STUDY_SUMMARY, REPORT)  # a run with one of these tags is about other runs
RESUMED_AT: Final = "resumed_at"  # step of the checkpoint that a run went on from
CONCURRENT_RUNS: Final = "concurrent_runs"  # workers of the study on this host: no valid timing
UNCOMPILED: Final = "uncompiled"  # "true": run without jit; its seconds compare with no others
EXPECTED_STEPS_SOURCE: Final = "expected_steps_source"  # how budget.expected_steps came about
GIVEN_TARGET: Final = "target."  # "target.<split>": a target that comes with the run
STOP_REASON: Final = "stop_reason"  # name of a StopReason, set at the end
DIVERGED: Final = "diverged"  # "true" or "false", set at the end

# Tags that the mirror adds in MLflow; no part of the journal.
JOURNAL_ID: Final = "journal_id"  # identity of the run's journal: sending it again finds the run
JOURNAL: Final = "journal"  # file name of the journal
DESCRIBED: Final = "described"  # "true" once configuration and data sets are there
OLD_JOURNAL_ID: Final = "spool_id"  # of version 0.1, which called a journal a spool file

# Tags of environment.py; the first three say whether the process of a run is still alive.
HOST: Final = "host"
PID: Final = "pid"
PROCESS_START: Final = "process_start"
HOST_CORES: Final = "host_cores"
HOST_CPU: Final = "host_cpu"
PLATFORM: Final = "platform"
DEVICE_PLATFORM: Final = "device_platform"
DEVICE_KIND: Final = "device_kind"
DEVICE_COUNT: Final = "device_count"
GIT_COMMIT: Final = "git_commit"
GIT_DIRTY: Final = "git_dirty"
VERSION_PREFIX: Final = "version."  # version.jax, version.python, ...

# Tags about identity, outcome and look of a run; a report does not show them as settings.
NOT_SETTINGS: Final = frozenset(
    {*REQUIRED_TAGS, OPTIMIZER_NAME, LEARNED, COLOR, LEARNING_RATES, CONFIG_HASH, SETS_TIME_BUDGET}
    | {STOP_REASON, DIVERGED, DESCRIBED, PID, PROCESS_START}
)
NOT_SETTINGS_PREFIXES: Final = ("mlflow.", "spool", "journal")  # of store and journal

# Metrics. An evaluation's are "<split>/<metric>", those of single updates are "batch/<metric>".
EVAL_PREFIXES: Final = ("train/", "validation/", "test/")
TRAIN_SECONDS: Final = "time/train_seconds"  # charged seconds, logged at every step that logs
EVAL_SECONDS: Final = "time/train_seconds_at_eval"  # the same, at steps with an evaluation only
MEAN_SECONDS: Final = "time/mean_train_seconds"  # mean over seeds of the k-th EVAL_SECONDS
TIME_SPLIT: Final = (  # seconds of a whole run by what they were spent on, at its end
    TRAIN_SECONDS,
    "time/eval_seconds",
    "time/log_seconds",
    "time/compile_seconds",
)
FINAL_PREFIX: Final = "final/"  # "final/<split>/<metric>": values of the last evaluation
NONFINITE_SUFFIX: Final = "_nonfinite"  # "<key>_nonfinite" is 1 where <key> was nan or inf

CONFIG_ARTIFACT: Final = "config.yaml"
EVALUATIONS_ARTIFACT: Final = "evaluations.json"  # all evaluations of a finished run, read at once
