"""Help texts of the commands of ``timetrial``.

Boundary: text only; completion reads the keys of a command from its text.
"""

from __future__ import annotations

from timetrial.bench.usage_launching import LAUNCHER

TOP = """\
Races optimizers on fixed workloads under a fixed budget, and records every run in MLflow. Without a
command it says what to do next, from what is recorded.
"""

START = """\
start here:
  timetrial list
  timetrial bench --plan
  timetrial bench
  timetrial report --paper
"""

OVERRIDES = """\
Settings are given as key=value, nested keys with dots, lists as [a,b]:
  seed=1  budget.steps=300  optimizer.learning_rate=1e-3  tracking.root=/data/runs
For an unknown key the nearest known one is suggested.
"""

TRAIN = """\
Makes one run and records it in MLflow.

  workload=NAME           the workload (timetrial list); workload.KEY sets one of its settings
  optimizer=NAME          the optimizer (timetrial list), or path/to/file.py:make, a function that
                          returns an optax transformation; optimizer.KEY sets one of its settings
  budget.steps=N          number of updates (default: the workload's step hint), or
  budget.seconds=S        charged seconds; evaluation is not charged
  budget.calibration=FILE seconds from a calibration file (timetrial calibrate)
  budget.charge_compile=true    charge compilation too (default: false)
  budget.expected_steps=N number of steps expected in budget.seconds (default: measured)
  seed=N                  initialisation and order of the data (default: 0)
  label=TEXT              name in tables and plots (default: the optimizer's)
  train.microbatches=N    parts of a batch, one after the other, to save memory (default: 1);
                          batch norm and dropout then see the parts
  train.devices=N         devices (default: all; mini workloads: 1); batches are divided among them
  train.shard=HOW         large parameters and their state on several devices: auto (default:
                          divided where they do not fit otherwise), always, never
  hosts.coordinator=ADDR  several processes make one run, each started with this command: HOST:PORT
                          of the first, or auto (under Slurm, Open MPI, Kubernetes, Cloud TPU)
  hosts.count=N           number of processes; hosts.index=0, 1, ... is the number of this one
  stop.target=X           end early once the workload's metric reaches X
  stop.split=SPLIT        split of that metric: train, validation (default) or test
  preset=NAME|FILE.yaml   settings from a file; the other words override it, of A,B the later one
  tracking.uri=URI        MLflow store (default: $MLFLOW_TRACKING_URI, else runs/mlflow.db)
  tracking.experiment=X   MLflow experiment (default: timetrial)
  tracking.root=DIR       directory for local files (default: runs)
  tracking.checkpoint_minutes=M    charged minutes between two checkpoints (default: 10); runs are
                          also saved at evaluations where that is cheap, when they end, and on
                          Ctrl-C, SIGTERM and SIGHUP
  tracking.final_checkpoint=false  remove the checkpoint of a run that is over (default: keep)

The same command continues an interrupted run, with the same result to the last bit. A finished
run is not repeated; --again makes it once more.
"""

TRAIN_EXAMPLES = """\
examples:
  timetrial train workload=flights_dlrm optimizer=adam
  timetrial train workload=icbm_unet optimizer=nadamw optimizer.learning_rate=3e-3 budget.seconds=60
  timetrial train preset=quick/assays_gnn optimizer=nesterov seed=2
  timetrial train workload=flights_dlrm optimizer=./mine.py:make optimizer.lr=1e-3
"""

BENCH = (
    """\
Races the optimizers of a suite, then scores the race and writes the report. Finished runs are not
repeated: after an interruption the same command continues. A suite with time budgets needs an idle
machine (timetrial doctor); runs whose seconds are suspect are made once more at its end.

  suite=NAME|FILE.yaml    which suite (timetrial list; default: quick)
  optimizers=[a,b]        only these        workloads=[a,b]   only these
  seeds=[0,1]             other seeds       tracking.KEY      as in timetrial train
  conditions=[step,time]  kinds of budget
  calibrations=DIR        time budgets from DIR/WORKLOAD.yaml (timetrial calibrate)
"""
    + LAUNCHER
)

BENCH_EXAMPLES = """\
examples:
  timetrial bench --plan
  timetrial bench suite=mini optimizers=[adam,velo] seeds=[0]
  timetrial bench suite=quick conditions=[step] launcher=local launcher.workers=2
  timetrial bench suite=paper-step --plan --price 2.5
  timetrial bench suite=paper-step launcher=ray launcher.gpus=1 tracking.uri=postgresql://me@db/t
  timetrial bench suite=paper-step launcher=slurm launcher.workers=9 tracking.uri=postgresql://db/t
"""

TUNE = (
    """\
Tunes an optimizer on a workload: makes the trials of a study, each an ordinary recorded run, and
summarises them. The study is kept in a database: after an interruption the same command continues
it, from checkpoints. Several workers, also on several machines, may share one study.

  workload=, optimizer=, budget.steps=, budget.seconds=, seed=, stop.target=, preset=,
  tracking.experiment=, tracking.root=, tracking.uri=    the run of a trial, as in timetrial train;
                          given settings of the optimizer are not tuned
  study.trials=N          number of trials, earlier ones included (default: 20)
  study.search=HOW        sobol (default), halton, random, algoperf_halton, tpe
  study.points=FILE       JSON list of points, [{"learning_rate": 0.001}, ...]
  study.space=FILE        YAML: KEY: {low: 1e-4, high: 1e-1, scale: log} or KEY: {choices: [1, 2]};
                          KEY is a setting, one_minus_SETTING or workload.SETTING
                          (default: the optimizer's own space)
  study.seed=N            seed of the search (default: 0)
  study.objective=WHAT    best (default) or final validation metric, or time_to_target
  study.regularisation=true    also tune AlgoPerf's settings of the workload
  study.pruning=HOW       none (default), median, hyperband
  study.diverged=HOW      fail (default), or bad: a diverged trial counts as an untrained one
  study.storage=URL       sqlite:///PATH (default: studies.db in tracking.root), postgresql://...,
                          journal:PATH
  study.name=NAME         name of the study in the storage (default: made from the above)
"""
    + LAUNCHER
)

TUNE_EXAMPLES = """\
examples:
  timetrial tune workload=flights_dlrm optimizer=nadamw study.trials=20
  timetrial tune preset=quick/icbm_unet optimizer=velo study.trials=16 --workers 2
  timetrial tune workload=assays_gnn optimizer=nesterov study.search=tpe --export best.yaml
"""

METATRAIN = """\
Meta-trains a small learned optimizer on synthetic tasks, by persistent evolution strategies, and
records the training in MLflow. It is saved every minute: after an interruption, or the end of a
piece, the same command continues it with bitwise the same result.

  rule=NAME               velo (default) or celo2: Celo2's 347 numbers, in two stages: rules that
                          are linear in the inputs, then all numbers
  steps=N                 number of outer steps     minutes=M   length of this piece
  pairs=N                 antithetic pairs of lanes per family: 16 for 2 cores, hundreds for a GPU
  families=[a,b]          perceptron, deep_perceptron, convnet, embedding, denoiser, autoencoder,
                          graph (default: all; celo2: four of them)
  truncation=, shortest=, longest_at_first=, longest=, sigma=, learning_rate=, clip=, ema=, seed=
                          further settings; the embedded weights were made with the defaults
  validate_every=N, validation_tasks=N, horizons=[300,1000,3000]
                          choice of the best checkpoint
  name=NAME               name of the training (default: velo, celo2_base, or celo2 with
                          orthogonalize=true); its checkpoint is in tracking.root/metatrain/NAME
  checkpoint_seconds=S    pause between checkpoints (default: 60)
  cores=N                 CPU cores to spread the lanes over (default: all that divide the pairs)
  tracking.experiment=, tracking.root=, tracking.uri=    as in timetrial train

rule=velo:
  start=WHAT              first weights: warm (default, made by hand), embedded or FILE
  hidden_size=N, bank_size=N    size of the network with start=warm

rule=celo2:
  start=WHAT              linear (default: made by hand, then the linear stage), random, embedded
                          or FILE
  orthogonalize=true      Newton-Schulz for matrices; AdamW for vectors, scalars and embeddings
  vector_rate=X           rate of that AdamW, as a factor (default: 1)
  lowest_rate=, highest_rate=   range of the inner learning rate (default: 3e-3 to 3e-2)
  linear.steps=N          outer steps of the linear stage; 0 leaves it out
  linear.sigma=, linear.learning_rate=, linear.longest=   its further settings
  validation_families=[a,b], rates=[3e-3,1e-2,3e-2,1e-1]
                          the best checkpoint is chosen at each family's best rate and the next one
"""

METATRAIN_EXAMPLES = """\
examples:
  timetrial metatrain minutes=10
  timetrial metatrain minutes=10 --export mine.params
  timetrial metatrain name=gpu hidden_size=64 bank_size=32 pairs=256 steps=4000
  timetrial train preset=quick/icbm_unet optimizer=velo optimizer.weights=mine.params
  timetrial metatrain rule=celo2 minutes=10 --export mine.state
  timetrial metatrain rule=celo2 orthogonalize=true minutes=10
"""

CALIBRATE = """\
Transfers a time budget to this hardware. The target-setting algorithm of a workload runs for a few
per cent of its steps and is timed in windows after a warm-up. The budget is the runtime on the
reference machine times the ratio of the times per step. The result is written to
calibrations/WORKLOAD.yaml under tracking.root. Runs take their budget from it, and record it, with
budget.calibration=FILE. Leave the machine idle meanwhile.

  preset=NAME, workload.KEY, budget.steps=N   as in timetrial train: the run to time, and the number
                          of steps of the budget if this machine is the reference
  tracking.root=DIR       directory for local files (default: runs)
"""

CALIBRATE_EXAMPLES = """\
examples:
  timetrial calibrate flights_dlrm preset=mini/flights_dlrm
  timetrial calibrate flights_dlrm preset=mini/flights_dlrm --reference other/flights_dlrm.yaml
  timetrial train preset=mini/flights_dlrm optimizer=adam budget.calibration=FILE
"""

POOL = """\
Describes this machine as one of a pool, in pools/NAME.yaml: devices, processor, cores, driver,
versions, and the time per step of the reference run on each workload of a suite. Seconds of all
machines of a pool compare. A machine belongs to it if it has the same, and 20 warm steps take the
same time within 5 %. Leave the machine idle meanwhile.

Workloads that the file holds already are kept. Start it as the runs will be started: with the same
CUDA_VISIBLE_DEVICES and the same cores (taskset, cgroups).

  suite=NAME|FILE.yaml    which suite to measure (default: quick); its presets hold the settings
  workloads=[a,b]         only these; with --check, of the pool's workloads (default: all of them)
"""

POOL_EXAMPLES = """\
examples:
  timetrial pool lab suite=mini
  timetrial pool lab --check
  CUDA_VISIBLE_DEVICES=0 taskset -c 0-7 timetrial pool h100 suite=paper-time
"""

REPORT = """\
Scores recorded runs and writes report.html, with the numbers (CSV, Parquet), every table (LaTeX,
Markdown) and every plot (PNG, SVG) beside it. There are three sources:

  suite=NAME|FILE.yaml    the runs of a suite (default: quick), into tracking.root/reports/NAME;
                          also logged to MLflow, as the run "report" of the suite's experiment
  --paper                 the paper's own tables; needs no run
  --from SOURCE ...       any of these, scored together: directories of runs (their journals), of
                          AlgoPerf's logs (SUBMISSION/STUDY/WORKLOAD_FRAMEWORK/trial_k), tables of
                          times to target (CSV: optimizer, workload, value), MLflow stores (URI);
                          into tracking.root/reports/from

  tracking.experiment=, tracking.root=, tracking.uri=    as in timetrial train
"""

REPORT_EXAMPLES = """\
examples:
  timetrial report suite=quick
  timetrial report --paper
  timetrial report --from mine/journals --from theirs.csv --rules algoperf tracking.root=/data
  timetrial report --from logs/self_tuning --rules algoperf-v0.5-self --r-max 2
"""

COMPARE = """\
Compares two optimizers in one paragraph: who wins where, by how much, and how sure that is. Writes
one plot of both learning curves per workload, with the range over seeds, as PNG and SVG.

  A, B                    optimizers as in the report (adam, velo[embedded]; velo, if there is one
                          variant), or EXPERIMENT:OPTIMIZER for runs of another experiment
  suite=NAME              experiment of which suite (default: quick)
  tracking.experiment=, tracking.root=, tracking.uri=    as in timetrial train
"""

COMPARE_EXAMPLES = """\
examples:
  timetrial compare velo adam
  timetrial compare nadamw timetrial-mini:nadamw tracking.root=/data/runs
  timetrial compare mine baseline --from mine/journals theirs/journals
"""

CHECK = """\
Runs the contract tests on an optimizer or a workload: of this package, of another package, or of
your own file or module. The tests ship with the package. An optimizer that passes is measured:
CPU time per update and bytes of state per parameter, as factors of Adam's.

  optimizer=NAME          or path/to/file.py:make, or package.module:entry
  optimizer.KEY=VALUE     settings
  workload=NAME           or path/to/file.py:Class, or package.module:entry
"""

CHECK_EXAMPLES = """\
examples:
  timetrial check optimizer=adam
  timetrial check optimizer=./mine.py:make optimizer.lr=1e-3
  timetrial check workload=flights_dlrm
"""

DOCTOR = """\
Says what this machine is, whether it is fit for time budgets now, and what is missing for which
suite; each finding (ok, warn, fail) comes with its remedy. The reference run of the suite is timed
for 20 warm steps, against its calibration where there is one. Exit code 0 if fit, else 1.

  suite=NAME|FILE.yaml    which suite to time (default: quick)
  workloads=[a,b]         only these; without a calibration the first one is timed
  calibrations=DIR        calibrations to compare with (default: those in tracking.root)
  tracking.root=DIR       directory of the runs (default: runs)
"""

DOCTOR_EXAMPLES = """\
examples:
  timetrial doctor
  timetrial doctor suite=mini workloads=flights_dlrm
  timetrial doctor --no-steps --json
"""

UI = """\
Opens the recorded runs of a suite in the MLflow UI, at the saved views. Ctrl-C ends the server.

  suite=NAME              which suite (default: quick)
  tracking.experiment=, tracking.root=, tracking.uri=    as in timetrial train
"""

FETCH = """\
Downloads published weights of a learned optimizer into the cache directory ($TIMETRIAL_CACHE, else
~/.cache/timetrial), with the model card where there is one, and shows their licence:

  velo          Google's VeLO (9.3 MB), then used by optimizer=velo
  celo2         Celo2 with orthogonalized matrices; celo2-base: Celo2 for every parameter
  celo          Celo, for optimizer=celo
  celo-adam     Celo-Adam, for optimizer=celo_adam

A file is checked before it is taken. URL, size, sha256 and date are recorded beside it; a later
fetch of other bytes says so. An interrupted download continues; --from FILE takes a copy instead,
for machines without network. HF_ENDPOINT names a mirror of the Hugging Face hub.
"""

SYNC = """\
Sends runs from their journals to MLflow, for runs made while MLflow was out of reach, and to a
store that was lost or damaged. Without --file: all runs under tracking.root that MLflow lacks.
Sending a run twice changes nothing. Exit code 1: a run is left, or MLflow is out of reach.

  tracking.root=, tracking.uri=    as in timetrial train
"""

UI_EXAMPLES = """\
examples:
  timetrial ui
  timetrial ui suite=mini --port 5001
"""

FETCH_EXAMPLES = """\
examples:
  timetrial fetch velo
  timetrial fetch celo2 --from ~/Downloads/theta.state
"""

SYNC_EXAMPLES = """\
examples:
  timetrial sync
  timetrial sync tracking.root=/data/runs tracking.uri=http://127.0.0.1:5000
"""

DATA = """\
Prepares, verifies and lists the data sets of the full-size workloads: imagenet_resnet, fastmri,
ogbg, criteo1tb. They need the extra [data], and raw files that you download yourself.

  prepare WORKLOAD --source DIR
                          says what it needs, then writes records. After an interruption the same
                          command continues. A bad record ends it, unless --skip-bad allows it
  verify WORKLOAD         checks counts, digests and records; exit code 1 if a check failed. On an
                          accelerator it also checks loss and gradient of the untrained model
  list                    what is prepared, and the commands for what is missing
  fixture --data DIR      makes tiny synthetic raw files of all of them and prepares these, for
                          suites paper-step-fixture and paper-time-fixture
"""

DATA_EXAMPLES = """\
examples:
  timetrial data list
  timetrial data prepare ogbg --source ~/downloads
  timetrial data prepare criteo1tb --source /raw/criteo --workers 16 --data /fast/data
  timetrial data verify ogbg
"""
