"""What the commands of ``timetrial`` say about themselves with ``--help``.

Boundary: words only; ``cli`` parses, the other modules of ``bench`` do.
"""

from __future__ import annotations

OVERRIDES = """\
Configuration is given as key=value, nested keys with dots, lists as [a,b]:
  seed=1  budget.steps=300  optimizer.learning_rate=1e-3  tracking.root=/data/runs
An unknown key is answered with the nearest known one.
"""

TRAIN = """\
Makes one run and records it in MLflow.

  workload=NAME           what to train (timetrial list); workload.KEY sets one of its settings
  optimizer=NAME          what to train it with; optimizer.KEY sets one of its settings
  budget.steps=N          updates to make (default: the workload's step hint), or
  budget.seconds=S        seconds of training to use up; evaluation is not charged
  budget.charge_compile   true charges compilation too (default: false)
  seed=N                  initialisation and order of the data (default: 0)
  stop.target=X           end early once the workload's metric reaches X; stop.split says where
  preset=NAME|FILE.yaml   lay a preset under the other settings
  tracking.uri=URI        MLflow store (default: $MLFLOW_TRACKING_URI, else runs/mlflow.db)
  tracking.experiment=X   MLflow experiment (default: timetrial)
  tracking.root=DIR       where files go (default: runs)
"""

TRAIN_EXAMPLES = """\
examples:
  timetrial train workload=flights_dlrm optimizer=adam
  timetrial train workload=icbm_unet optimizer=nadamw optimizer.learning_rate=3e-3 budget.seconds=60
  timetrial train preset=quick/assays_gnn optimizer=nesterov seed=2
"""

BENCH = """\
Races the optimizers of a suite, then scores and reports the race. Runs that are recorded as
finished are not repeated: after an interruption the same command continues.

  suite=NAME              which suite (timetrial list; default: quick)
  optimizers=[a,b]        only these        workloads=[a,b]   only these
  seeds=[0,1]             other seeds       tracking.KEY      as in timetrial train
  calibrations=DIR        time budgets from DIR/WORKLOAD.yaml (timetrial calibrate)
"""

TUNE = """\
Tunes an optimizer on a workload: makes the trials of a study, each an ordinary recorded run, and
summarises them. The study is kept in a database: after an interruption the same command continues
it, from checkpoints, and several may work on it at once, on several machines.

  workload=, optimizer=, budget., seed=, stop., preset=, tracking.   one trial, as in train;
                          a setting of the optimizer that is given is not tuned
  study.trials=N          trials in all, earlier ones included (default: 20)
  study.search=HOW        sobol (default), halton, random, algoperf_halton, tpe
  study.points=FILE       a JSON list of points, [{"learning_rate": 0.001}, ...]
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
  study.name=NAME         identity in the storage (default: put together from the above)
"""

TUNE_EXAMPLES = """\
examples:
  timetrial tune workload=flights_dlrm optimizer=nadamw study.trials=20
  timetrial tune preset=quick/icbm_unet optimizer=velo study.trials=16 --workers 2
  timetrial tune workload=assays_gnn optimizer=nesterov study.search=tpe --export best.yaml
"""

METATRAIN = """\
Meta-trains small weights of the VeLO architecture on synthetic tasks, by persistent evolution
strategies, and records the training in MLflow. It is saved every minute: after an interruption, or
the end of a piece, the same command continues it, bitwise as if it had not stopped.

  steps=N                 outer steps in all        minutes=M   end this piece after so long
  pairs=N                 antithetic pairs of lanes per family: 16 for 2 cores, hundreds for a GPU
  start=WHAT              warm (default, made by hand; hidden_size=, bank_size=), embedded or FILE
  families=[a,b]          perceptron, deep_perceptron, convnet, embedding, denoiser, autoencoder,
                          graph (default: all)
  truncation, shortest, longest_at_first, longest, sigma, learning_rate, clip, ema, seed
                          the rest of the method; the defaults made the embedded weights
  validate_every=N, validation_tasks=N, horizons=[300,1000,3000]
                          how the best checkpoint is chosen
  name=NAME               of the training (default: velo); its checkpoint is in
                          tracking.root/metatrain/NAME
  checkpoint_seconds=S    pause between checkpoints (default: 60)
  cores=N                 CPU cores to spread the lanes over (default: all that divide the pairs)
"""

METATRAIN_EXAMPLES = """\
examples:
  timetrial metatrain minutes=10
  timetrial metatrain minutes=10 --export mine.params
  timetrial metatrain name=gpu hidden_size=64 bank_size=32 pairs=256 steps=4000
  timetrial train preset=quick/icbm_unet optimizer=velo optimizer.weights=mine.params
"""

CALIBRATE = """\
Carries a wall-clock budget over to this hardware: runs the target-setting algorithm of a workload
for a few per cent of its steps, times it in windows behind a warm-up, and multiplies the runtime on
the reference machine by time per step here over time per step there. The result is written to
calibrations/WORKLOAD.yaml under tracking.root; runs take their budget from it, and record it, with
budget.calibration=FILE. Leave the machine alone meanwhile.

  preset=NAME, workload.KEY, budget.steps   as in timetrial train: what is timed, and the steps that
                          make up the budget where no other machine's is carried over
"""

CALIBRATE_EXAMPLES = """\
examples:
  timetrial calibrate flights_dlrm preset=mini/flights_dlrm
  timetrial calibrate flights_dlrm preset=mini/flights_dlrm --reference other/flights_dlrm.yaml
  timetrial train preset=mini/flights_dlrm optimizer=adam budget.calibration=FILE
"""

REPORT = """\
Scores the recorded runs of a suite and writes report.html into tracking.root/reports; beside it
the numbers (CSV, Parquet), every table (LaTeX, Markdown) and every plot (PNG, SVG). All of it is
also logged to MLflow, as the run "report" of the suite's experiment.

  suite=NAME              which suite (default: quick)
  tracking.KEY            where the runs are recorded, as in timetrial train

With --paper the same report is made of the paper's own tables; it needs no runs.
"""

FETCH = """\
Downloads the weights that Google published with the VeLO paper (9,282,564 bytes) into the cache
directory ($TIMETRIAL_CACHE, else ~/.cache/timetrial). From then on optimizer=velo uses them. An
interrupted download continues; --from FILE takes a copy instead, for machines without network.
"""
