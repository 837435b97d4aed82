"""The command line: ``timetrial train | bench | tune | calibrate | report | ...``.

Boundary: words in, exit code out; what a command does lives in the other modules of ``bench``.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from framework.errors import UserError

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
  start=WHAT              embedded (default), warm (made by hand; hidden_size=, bank_size=) or FILE
  families=[a,b]          perceptron, deep_perceptron, convnet, embedding, denoiser, autoencoder,
                          graph (default: all)
  truncation, shortest, longest, sigma, learning_rate, clip, ema, seed
                          the rest of the method
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
  timetrial metatrain name=gpu start=warm hidden_size=64 bank_size=32 pairs=256 steps=4000
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    options = _parsed(arguments)
    _quiet_native_logs()
    try:
        code = options.command(options)
    except KeyboardInterrupt:
        print("timetrial: interrupted; the same command continues", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except UserError as error:
        code = _complain(str(error), options.debug, 2)
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {error} (--debug shows where)"
        code = _complain(text, options.debug, 1)
    sys.exit(code)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; unlike argparse, takes ``key=value`` words on both sides of an option."""
    options, rest = parser().parse_known_args(arguments)
    others = [word for word in rest if word.startswith("-") or "=" not in word]
    if others or (rest and not hasattr(options, "overrides")):
        parser().error(f"unrecognized arguments: {' '.join(others or rest)}")
    if rest:
        options.overrides += rest
    return options


def _complain(text: str, debug: bool, code: int) -> int:
    if debug:
        traceback.print_exc()
    print(f"timetrial: {' '.join(text.split())}", file=sys.stderr)
    return code


def _quiet_native_logs() -> None:
    """XLA's C++ start-up chatter is not for users; whoever has set a level keeps it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def parser() -> argparse.ArgumentParser:
    """The argument parser of ``timetrial``."""
    top = argparse.ArgumentParser(
        prog="timetrial",
        description="Races optimizers on fixed workloads under a fixed budget.",
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str,
        command: Callable[[argparse.Namespace], int],
        summary: str,
        text: str = "",
        epilog: str = "",
        overrides: bool = True,
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=text or summary,
            epilog=epilog + ("\n" if epilog else "") + (OVERRIDES if overrides else ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--debug", action="store_true", help="show a traceback with errors")
        if overrides:
            sub.add_argument("overrides", nargs="*", metavar="key=value")
        sub.set_defaults(command=command)
        return sub

    train = add("train", _train, "make one run", TRAIN, TRAIN_EXAMPLES)
    train.add_argument("--print-config", action="store_true", help="show what would be run")
    bench = add("bench", _bench, "race the optimizers of a suite", BENCH)
    bench.add_argument("--plan", action="store_true", help="show what would be run")
    tune = add("tune", _tune, "tune an optimizer on a workload", TUNE, TUNE_EXAMPLES)
    tune.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes on this machine (default: 1)"
    )
    tune.add_argument(
        "--export", type=Path, metavar="FILE", help="write the best configuration as a run preset"
    )
    tune.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # one of so many
    metatrain = add(
        "metatrain",
        _metatrain,
        "meta-train small weights of the VeLO architecture",
        METATRAIN,
        METATRAIN_EXAMPLES,
    )
    metatrain.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="write the best weights so far, and their sha256",
    )
    calibrate = add(
        "calibrate",
        _calibrate,
        "carry a time budget over to this hardware",
        CALIBRATE,
        f"{CALIBRATE_EXAMPLES}\n{OVERRIDES}",
        overrides=False,
    )
    calibrate.add_argument("workload", metavar="WORKLOAD", help="which workload (timetrial list)")
    calibrate.add_argument("overrides", nargs="*", metavar="key=value")
    calibrate.add_argument(
        "--reference",
        metavar="v100x8|a100x1|a100x2|FILE",
        help="machine of the paper, or calibration file of another machine "
        "(default: v100x8 for the paper's workloads, else this machine)",
    )
    calibrate.add_argument(
        "--share", type=float, default=0.05, help="of the steps, to run (default: 0.05)"
    )
    calibrate.add_argument(
        "--warm-up", type=int, metavar="N", help="steps to discard (default: a fifth of them)"
    )
    report = add(
        "report", _report, "score the recorded runs of a suite and write the report", REPORT
    )
    report.add_argument(
        "--mixed-machines", action="store_true", help="score seconds of different machines, too"
    )
    report.add_argument("--paper", action="store_true", help="report the paper's own tables")
    report.add_argument(
        "--intervals",
        choices=["percentile", "bca"],
        default="percentile",
        help="kind of bootstrap interval (default: percentile)",
    )
    report.add_argument(
        "--studies",
        metavar="EXPERIMENT",
        default="timetrial",
        help="where tuning studies are recorded (default: timetrial)",
    )
    report.add_argument(
        "--mlflow-url",
        metavar="URL",
        default="",
        help="where links to runs lead (default: the tracking server, else http://127.0.0.1:5000)",
    )
    add("list", _list, "workloads, optimizers, suites and presets, one line each", overrides=False)
    ui = add("ui", _ui, "open the recorded runs in the MLflow UI")
    ui.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default: 5000)")
    fetch = add(
        "fetch",
        _fetch,
        "download the published weights of a learned optimizer",
        FETCH,
        overrides=False,
    )
    fetch.add_argument("what", choices=["velo"], help="whose weights")
    fetch.add_argument("--from", dest="source", type=Path, metavar="FILE", help="take this copy")
    replay = add(
        "replay",
        _replay,
        "bring runs from spool files into MLflow",
        "Brings runs that MLflow could not take when they were made from their spool files into\n"
        "MLflow. Without FILE: all such runs under tracking.root. Doing it twice changes nothing.",
    )
    replay.add_argument("--file", type=Path, action="append", help="spool file; may be repeated")
    return top


# Each command imports what it needs itself, so that --help does not wait for JAX and MLflow.


def _train(options: argparse.Namespace) -> int:
    from bench.race import train
    from bench.suite import load_run
    from framework.config import to_yaml

    config = load_run(options.overrides)
    if options.print_config:
        print(to_yaml(config), end="")
        return 0
    return train(config)


def _bench(options: argparse.Namespace) -> int:
    from bench.race import race, show_plan
    from bench.suite import load_suite

    suite, tracking = load_suite(options.overrides)
    if options.plan:
        show_plan(suite, tracking)
        return 0
    return race(suite, tracking)


def _tune(options: argparse.Namespace) -> int:
    from bench.tune.study import tune, worker

    if options.worker is not None:
        return worker(options.overrides, options.worker)
    return tune(options.overrides, options.workers, options.export)


def _metatrain(options: argparse.Namespace) -> int:
    from bench.metatrain.command import metatrain

    return metatrain(options.overrides, options.export)


def _calibrate(options: argparse.Namespace) -> int:
    from bench.calibrate import run

    return run(
        options.workload,
        options.overrides,
        reference=options.reference,
        share=options.share,
        warm_up_steps=options.warm_up,
    )


def _report(options: argparse.Namespace) -> int:
    from bench.race import paper_report, report
    from bench.suite import load_suite
    from tracking.resampling import Bootstrap

    suite, tracking = load_suite(options.overrides)
    if options.paper:
        return paper_report(tracking)
    return report(
        suite,
        tracking,
        mixed_machines=options.mixed_machines,
        options=Bootstrap(method=options.intervals),
        studies=options.studies,
        mlflow_url=options.mlflow_url,
    )


def _list(options: argparse.Namespace) -> int:
    from bench.suite import listing

    print(listing())
    return 0


def _ui(options: argparse.Namespace) -> int:
    from bench.suite import load_suite
    from bench.ui import serve

    _, tracking = load_suite(options.overrides)
    return serve(tracking, options.port)


def _fetch(options: argparse.Namespace) -> int:
    from bench.progress import download_bar
    from optimizers.velo.fetch import LICENCE_NOTE, fetch_velo

    print(LICENCE_NOTE)
    with download_bar("VeLO weights") as progress:
        path = fetch_velo(source_file=options.source, progress=progress)
    print(path)
    return 0


def _replay(options: argparse.Namespace) -> int:
    from bench.suite import load_suite
    from tracking.recovery import replay, replay_unsent
    from tracking.store import open_store

    _, tracking = load_suite(options.overrides)
    store = open_store(tracking.uri, root=Path(tracking.root))
    runs = [replay(path, store) for path in options.file] if options.file else replay_unsent(store)
    print(f"{len(runs)} runs brought into {store.uri}")
    return 0


if __name__ == "__main__":
    main()
