"""Names of recorded tags, metrics and artifacts, shared by writers, readers and views.

Boundary: constants only.
"""

from __future__ import annotations

from typing import Final

STUDIES: Final = "timetrial-tune"
"""Default experiment of tuning studies."""

# Required tags of a run. The caller sets them; ``load_runs`` reads them.
WORKLOAD: Final = "workload"
OPTIMIZER: Final = "optimizer"  # displayed label; distinguishes variants
SEED: Final = "seed"
CONDITION: Final = "condition"  # "step" or "time"
BUDGET: Final = "budget"  # limit of the budget, in steps or seconds
METRIC: Final = "metric"  # deciding metric of the workload, without its split
DIRECTION: Final = "direction"  # "minimize" or "maximize"

REQUIRED_TAGS: Final = (WORKLOAD, OPTIMIZER, SEED, CONDITION, BUDGET, METRIC, DIRECTION)

# Tags that describe an optimizer; plots depend on them, never on its name.
OPTIMIZER_NAME: Final = "optimizer_name"  # its name in the registry, without variant
LEARNED: Final = "learned"  # "true" or "false"
SETS_TARGETS: Final = "sets_targets"  # "true" or "false"
WEIGHTS: Final = "weights"  # of a learned optimizer: whose, in words
WEIGHTS_COST: Final = "weights.cost"  # compute of their meta-training, in words
WEIGHTS_TRAINED_ON: Final = "weights.trained_on"  # tasks of their meta-training, in words
COLOR: Final = "color"  # colour on a light background, "#rrggbb"; absent: from a palette
FOREIGN: Final = "foreign"  # "true": it makes whole updates by itself; absent otherwise
LACKS: Final = "lacks"  # a setting of the workload that the optimizer asks for, and does not get
SAME_UPDATES_AS: Final = "same_updates_as"  # label of another implementation of the optimizer
LEARNING_RATES: Final = "learning_rates"  # JSON [[step, rate], ...]; absent: none

# Optional tags, set by the caller.
SUITE: Final = "suite"
CONFIG_HASH: Final = "config_hash"  # identity of a configuration; finished ones are not repeated
SETS_TIME_BUDGET: Final = "sets_time_budget"  # "true" for the reference run of a time budget
CALIBRATION: Final = "calibration"  # identity of the calibration of the budget
STUDY: Final = "study"  # name of the HPO study of a trial
TRIAL: Final = "trial"  # number of the trial in the storage of its study
POINT: Final = "point"  # number of the trial's point, from 0; the same in a retry
STUDY_SUMMARY: Final = "study_summary"  # name of the summarised study
REPORT: Final = "report"  # name of the reported suite
ABOUT_RUNS: Final = (STUDY_SUMMARY, REPORT)  # tags of runs without training: summaries and reports
CHECKPOINTS: Final = "checkpoints"  # directory of the run's checkpoints, relative to the root
RESUMED_AT: Final = "resumed_at"  # step of the checkpoint of a resumed run
SUPERSEDED_BY: Final = "superseded_by"  # worker that took over the run of a dead or lost one
CONCURRENT_RUNS: Final = "concurrent_runs"  # runs at once on this host; absent: one
UNCOMPILED: Final = "uncompiled"  # "true": run without jit; its seconds compare with no others
EXPECTED_STEPS_SOURCE: Final = "expected_steps_source"  # source of budget.expected_steps
GIVEN_TARGET: Final = "target."  # "target.<split>": target given with the run
EVALUATED_AT: Final = "evaluated_at"  # share of each budget at which the run is evaluated
TARGET_SOURCE: Final = "target_source"  # source of given targets
STOP_REASON: Final = "stop_reason"  # name of a StopReason, set at the end
DIVERGED: Final = "diverged"  # "true" or "false", set at the end
ERROR: Final = "error"  # why a run failed, in one line, set at the end
NOT_FINITE: Final = "not_finite"  # of a diverged run: loss, gradient, parameters, metric NAME
COMPILE_SOURCES: Final = "compile_sources"  # of executables, set at the end: "compilation, ..."
SECONDS_SUSPECT: Final = "seconds_suspect"  # why the seconds are not credible, set at the end

# Tags of a run on a machine of a pool; absent otherwise.
POOL: Final = "pool"  # NAME@DIGEST: its name, and a digest of what its machines have in common
POOL_STEP_SECONDS: Final = "pool.step_seconds"  # of the reference optimizer, by the pool's file
ADMISSION_RATIO: Final = "admission_ratio"  # seconds per step of this node / those of the pool

# Tags added by the mirror in MLflow; absent from the journal.
JOURNAL_ID: Final = "journal_id"  # identity of the run's journal; finds the run when sent again
JOURNAL: Final = "journal"  # file name of the journal
DESCRIBED: Final = "described"  # "true" once configuration and data sets are stored
OLD_JOURNAL_ID: Final = "spool_id"  # of version 0.1, with spool files instead of journals
END_TAGS: Final = "mlflow.timetrial.end_tags"  # names of the tags set at the end, as JSON

# Tags of environment.py; the first five identify the process of a run.
HOST: Final = "host"  # its name; containers may share one
BOOT: Final = "boot"  # a running kernel: all containers of a machine have the same
PID_NAMESPACE: Final = "pid_namespace"  # the processes among which PID is a number
PID: Final = "pid"
PROCESS_START: Final = "process_start"
STARTED_MS: Final = "started_ms"  # start of the run, or of its last continuation, in ms since 1970
ENDED_MS: Final = "ended_ms"  # of a finished run, set at the end
HOST_CORES: Final = "host_cores"
HOST_CPU: Final = "host_cpu"
CPU_AFFINITY: Final = "cpu_affinity"  # cores that the process may use: "0-3,8"
GPU_UUID: Final = "gpu_uuid"  # GPUs or MIG instances of the process, comma-separated; absent: none
DRIVER: Final = "driver"  # version of the GPU driver; absent: no GPU, or unknown
PLATFORM: Final = "platform"
DEVICE_PLATFORM: Final = "device_platform"
DEVICE_KIND: Final = "device_kind"
DEVICE_COUNT: Final = "device_count"
GIT_COMMIT: Final = "git_commit"
GIT_DIRTY: Final = "git_dirty"
VERSION_PREFIX: Final = "version."  # version.jax, version.python, ...

# Tags of identity, outcome and colour of a run; reports do not list them as settings.
NOT_SETTINGS: Final = frozenset(
    {*REQUIRED_TAGS, OPTIMIZER_NAME, LEARNED, COLOR, LEARNING_RATES, CONFIG_HASH, SETS_TIME_BUDGET}
    | {SETS_TARGETS, EVALUATED_AT, STOP_REASON, DIVERGED, SECONDS_SUSPECT, ERROR, DESCRIBED}
    | {BOOT, PID_NAMESPACE, PID, PROCESS_START, STARTED_MS, ENDED_MS, GPU_UUID, ADMISSION_RATIO}
    | {SUPERSEDED_BY, COMPILE_SOURCES}
)
NOT_SETTINGS_PREFIXES: Final = ("mlflow.", "spool", "journal")  # tags of store and journal

# Metrics: "<split>/<metric>" of evaluations, "batch/<metric>" of single updates.
EVAL_PREFIXES: Final = ("train/", "validation/", "test/")
TRAIN_SECONDS: Final = "time/train_seconds"  # charged seconds, at every logged step
EVAL_SECONDS: Final = "time/train_seconds_at_eval"  # charged seconds at evaluations only
WALL_SECONDS: Final = "time/wall_seconds"  # the whole run, or its last part after a resume
MEAN_SECONDS: Final = "time/mean_train_seconds"  # mean over seeds of the k-th EVAL_SECONDS
TIME_SPLIT: Final = (  # seconds of a whole run by account, at its end
    TRAIN_SECONDS,
    "time/eval_seconds",
    "time/log_seconds",
    "time/compile_seconds",
)
CPU_SECONDS_SUFFIX: Final = "_cpu_seconds"  # "time/<account>_cpu_seconds": CPU time of the process
SYSTEM_PREFIX: Final = "system/"  # state of the machine while charged time ran, as in MLflow
FINAL_PREFIX: Final = "final/"  # "final/<split>/<metric>": last evaluation
NONFINITE_SUFFIX: Final = "_nonfinite"  # "<key>_nonfinite" is 1 when <key> is nan or inf

CONFIG_ARTIFACT: Final = "config.yaml"
TRACEBACK_ARTIFACT: Final = "traceback.txt"  # of a failed run
EVALUATIONS_ARTIFACT: Final = "evaluations.json"  # all evaluations of a finished run
