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

from timetrial.bench import usage
from timetrial.framework.errors import UserError
from timetrial.framework.paths import user_path
from timetrial.tracking.record import schema


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
            epilog=epilog + ("\n" if epilog else "") + (usage.OVERRIDES if overrides else ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--debug", action="store_true", help="show a traceback with errors")
        if overrides:
            sub.add_argument("overrides", nargs="*", metavar="key=value")
        sub.set_defaults(command=command)
        return sub

    train = add("train", _train, "make one run", usage.TRAIN, usage.TRAIN_EXAMPLES)
    train.add_argument("--print-config", action="store_true", help="show what would be run")
    bench = add("bench", _bench, "race the optimizers of a suite", usage.BENCH)
    bench.add_argument("--plan", action="store_true", help="show what would be run")
    tune = add("tune", _tune, "tune an optimizer on a workload", usage.TUNE, usage.TUNE_EXAMPLES)
    tune.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes on this machine (default: 1)"
    )
    tune.add_argument(
        "--export",
        type=user_path,
        metavar="FILE",
        help="write the best configuration as a run preset",
    )
    tune.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # one of so many
    metatrain = add(
        "metatrain",
        _metatrain,
        "meta-train small weights of the VeLO architecture",
        usage.METATRAIN,
        usage.METATRAIN_EXAMPLES,
    )
    metatrain.add_argument(
        "--export",
        type=user_path,
        metavar="FILE",
        help="write the best weights so far, and their sha256",
    )
    calibrate = add(
        "calibrate",
        _calibrate,
        "carry a time budget over to this hardware",
        usage.CALIBRATE,
        f"{usage.CALIBRATE_EXAMPLES}\n{usage.OVERRIDES}",
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
        "report", _report, "score the recorded runs of a suite and write the report", usage.REPORT
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
        default=schema.STUDIES,
        help=f"where tuning studies are recorded (default: {schema.STUDIES})",
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
        usage.FETCH,
        overrides=False,
    )
    fetch.add_argument("what", choices=["velo"], help="whose weights")
    fetch.add_argument(
        "--from", dest="source", type=user_path, metavar="FILE", help="take this copy"
    )
    replay = add(
        "replay",
        _replay,
        "bring runs from spool files into MLflow",
        "Brings runs that MLflow could not take when they were made from their spool files into\n"
        "MLflow. Without FILE: all such runs under tracking.root. Doing it twice changes nothing.",
    )
    replay.add_argument(
        "--file", type=user_path, action="append", help="spool file; may be repeated"
    )
    return top


# Each command imports what it needs itself, so that --help does not wait for JAX and MLflow.


def _train(options: argparse.Namespace) -> int:
    from timetrial.bench.race import train
    from timetrial.bench.suite import load_run
    from timetrial.framework.config import to_yaml

    config = load_run(options.overrides)
    if options.print_config:
        print(to_yaml(config), end="")
        return 0
    return train(config)


def _bench(options: argparse.Namespace) -> int:
    from timetrial.bench.planning import show_plan
    from timetrial.bench.race import race
    from timetrial.bench.suite import load_suite

    suite, tracking = load_suite(options.overrides)
    if options.plan:
        show_plan(suite, tracking)
        return 0
    return race(suite, tracking)


def _tune(options: argparse.Namespace) -> int:
    from timetrial.bench.tune.study import tune, worker

    if options.worker is not None:
        return worker(options.overrides, options.worker)
    return tune(options.overrides, options.workers, options.export)


def _metatrain(options: argparse.Namespace) -> int:
    from timetrial.bench.metatrain.command import metatrain

    return metatrain(options.overrides, options.export)


def _calibrate(options: argparse.Namespace) -> int:
    from timetrial.bench.timing.calibrate import run

    return run(
        options.workload,
        options.overrides,
        reference=options.reference,
        share=options.share,
        warm_up_steps=options.warm_up,
    )


def _report(options: argparse.Namespace) -> int:
    from timetrial.bench.report import paper_report, report
    from timetrial.bench.suite import load_suite
    from timetrial.tracking.scores.resampling import Bootstrap

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
    from timetrial.bench.listing import listing

    print(listing())
    return 0


def _ui(options: argparse.Namespace) -> int:
    from timetrial.bench.suite import load_suite
    from timetrial.bench.ui import serve

    _, tracking = load_suite(options.overrides)
    return serve(tracking, options.port)


def _fetch(options: argparse.Namespace) -> int:
    from timetrial.bench.progress import download_bar
    from timetrial.optimizers.velo.weights.fetch import LICENCE_NOTE, fetch_velo

    print(LICENCE_NOTE)
    with download_bar("VeLO weights") as progress:
        path = fetch_velo(source_file=options.source, progress=progress)
    print(path)
    return 0


def _replay(options: argparse.Namespace) -> int:
    from timetrial.bench.suite import load_suite
    from timetrial.tracking.store.mirror import sync
    from timetrial.tracking.store.opening import open_store

    _, tracking = load_suite(options.overrides)
    store = open_store(tracking.uri, root=Path(tracking.root))
    runs = sync(store, options.file or [])
    print(f"{len(runs)} runs brought into {store.uri}")
    return 0


if __name__ == "__main__":
    main()
