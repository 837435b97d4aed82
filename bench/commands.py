"""The commands of ``timetrial``: arguments, help texts and what each of them calls.

Boundary: options in, a job out. Preparing imports what a command needs and refuses bad input; the
job that is returned opens stores and writes files.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timetrial.bench import completion, usage
from timetrial.framework.errors import UserError
from timetrial.tracking.record import schema

if TYPE_CHECKING:
    from timetrial.bench.suite import Suite
    from timetrial.framework.config import Tracking

Options = argparse.Namespace
Parser = argparse.ArgumentParser
Job = Callable[[], int]
"""The work of a command; returns its exit code."""

CONTINUES = "the same command continues"
STARTS_AGAIN = "what was recorded is kept; the same command starts again"


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: one line for ``timetrial --help``; "" hides the command.
        prepare: imports what is needed, refuses bad input and returns the job.
        text: description for ``--help``.
        examples: shown below the arguments.
        arguments: adds the command's own arguments to its parser.
        overrides: whether it takes ``key=value`` words.
        interrupted: consequence of an interruption, if the user should know one.
    """

    summary: str
    prepare: Callable[[Options], Job]
    text: str
    examples: str = ""
    arguments: Callable[[Parser], None] = lambda parser: None
    overrides: bool = True
    interrupted: str = ""


# Each prepare function imports what it needs itself, so that --help does not wait for JAX.


def _train(options: Options) -> Job:
    from timetrial.bench.race import train
    from timetrial.bench.suite import load_run
    from timetrial.framework.config import to_yaml

    config = load_run(options.overrides)
    if options.print_config:
        return lambda: _show(to_yaml(config), end="")
    _require_devices()
    return lambda: train(config)


def _train_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--print-config", action="store_true", help="show the settings, run nothing"
    )


def _bench(options: Options) -> Job:
    from timetrial.bench.race import race, show_plan

    suite, tracking = _load_suite(options.overrides)
    if options.plan:

        def plan() -> int:
            show_plan(suite, tracking)
            return 0

        return plan
    _require_devices()
    return lambda: race(suite, tracking)


def _bench_arguments(parser: Parser) -> None:
    parser.add_argument("--plan", action="store_true", help="list the runs, run nothing")


def _tune(options: Options) -> Job:
    from timetrial.bench.tune.settings import load_plan
    from timetrial.bench.tune.study import tune, worker

    if options.worker is not None:
        return lambda: worker(options.overrides, options.worker)
    load_plan(options.overrides)
    _check_export(options.export)
    _require_devices()
    return lambda: tune(options.overrides, options.workers, options.export)


def _tune_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="number of processes on this machine (default: 1)",
    )
    _export_argument(parser, "write the best configuration as a run preset")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # one of so many


def _metatrain(options: Options) -> Job:
    from timetrial.bench.metatrain.command import metatrain
    from timetrial.bench.metatrain.config import read

    read(options.overrides)
    _check_export(options.export)
    return lambda: metatrain(options.overrides, options.export)


def _metatrain_arguments(parser: Parser) -> None:
    _export_argument(parser, "write the best weights so far, and their sha256")


def _calibrate(options: Options) -> Job:
    from timetrial.bench.timing.calibrate import run

    _require_devices()
    return lambda: run(
        options.workload,
        options.overrides,
        reference=options.reference,
        share=options.share,
        warm_up_steps=options.warm_up,
    )


def _calibrate_arguments(parser: Parser) -> None:
    workload = parser.add_argument("workload", metavar="WORKLOAD", help="name (timetrial list)")
    completion.complete(workload, completion.workloads)
    parser.add_argument(
        "--reference",
        metavar="v100x8|a100x1|a100x2|FILE",
        help="machine of the paper, or calibration file of another machine "
        "(default: v100x8 for the paper's workloads, else this machine)",
    )
    parser.add_argument(
        "--share", type=float, default=0.05, help="share of the steps to run (default: 0.05)"
    )
    parser.add_argument(
        "--warm-up",
        type=whole_number(1),
        metavar="N",
        help="number of steps to discard (default: a fifth of them)",
    )


def _report(options: Options) -> Job:
    from timetrial.bench.race import paper_report, report
    from timetrial.bench.suite import load_suite
    from timetrial.tracking.scores.resampling import Bootstrap

    if options.sources:
        return _report_from(options)
    if options.paper:
        tracking = load_suite(options.overrides)[1]
        return lambda: paper_report(tracking)
    suite, tracking = _load_suite(options.overrides)
    return lambda: report(
        suite,
        tracking,
        mixed_machines=options.mixed_machines,
        options=Bootstrap(method=options.intervals),
        studies=options.studies,
        mlflow_url=options.mlflow_url,
    )


def _report_from(options: Options) -> Job:
    from timetrial.bench.report import report_from  # type: ignore[import-not-found, unused-ignore]

    from timetrial.bench.suite import load_suite

    tracking = load_suite(options.overrides)[1]
    out = options.out or Path(tracking.root) / "reports" / "from"
    return lambda: int(
        report_from(
            options.sources,
            rules=options.rules,
            targets=options.targets,
            experiment=options.experiment,
            out=out,
        )
    )


def _report_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--paper", action="store_true", help="report the paper's own tables")
    add("--from", dest="sources", nargs="+", metavar="SOURCE", help="directory, CSV file or URI")
    add(
        "--rules", choices=["paper", "algoperf"], default="paper", help="with --from: scoring rules"
    )
    add("--targets", metavar="FILE", help="with --from: targets from a file")
    add("--experiment", metavar="NAME", help="with --from URI: which MLflow experiment")
    add("--out", type=Path, metavar="DIR", help="with --from: where the report goes")
    add("--mixed-machines", action="store_true", help="score seconds of different machines, too")
    add(
        "--intervals",
        choices=["percentile", "bca"],
        default="percentile",
        help="kind of bootstrap interval (default: percentile)",
    )
    add(
        "--studies",
        metavar="EXPERIMENT",
        default=schema.STUDIES,
        help=f"experiment of the tuning studies (default: {schema.STUDIES})",
    )
    add(
        "--mlflow-url",
        metavar="URL",
        default="",
        help="MLflow UI for links to runs (default: the server, else http://127.0.0.1:5000)",
    )


def _list(options: Options) -> Job:
    from timetrial.bench.suite import listing

    if options.name is None:
        return lambda: _show(listing())
    from timetrial.bench.listing import describe  # type: ignore[import-not-found, unused-ignore]

    return lambda: _show(describe(options.name))


def _list_arguments(parser: Parser) -> None:
    name = parser.add_argument("name", nargs="?", metavar="NAME", help="optimizer or workload")
    completion.complete(name, completion.optimizers, completion.workloads)


def _check(options: Options) -> Job:
    from timetrial.bench.check import check  # type: ignore[import-not-found, unused-ignore]

    _require_devices()
    return lambda: int(check(options.overrides))


def _ui(options: Options) -> Job:
    from timetrial.bench.suite import load_suite
    from timetrial.bench.ui import serve

    tracking = load_suite(options.overrides)[1]
    return lambda: serve(tracking, options.port)


def _ui_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--port",
        type=whole_number(1, 65535),
        default=5000,
        help="port on 127.0.0.1 (default: 5000)",
    )


def _fetch(options: Options) -> Job:
    from timetrial.bench.progress import download_bar
    from timetrial.optimizers.velo.weights.fetch import LICENCE_NOTE, fetch_velo

    def fetch() -> int:
        _show(LICENCE_NOTE)
        with download_bar("VeLO weights") as progress:
            path = fetch_velo(source_file=options.source, progress=progress)
        return _show(path)

    return fetch


def _fetch_arguments(parser: Parser) -> None:
    parser.add_argument("what", choices=["velo"], help="learned optimizer")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="take this copy")


def _sync(options: Options) -> Job:
    from timetrial.bench.suite import load_suite
    from timetrial.tracking.record.journal import read_spool
    from timetrial.tracking.store.mirror import replay, replay_unsent
    from timetrial.tracking.store.opening import open_store

    tracking = load_suite(options.overrides)[1]
    for path in options.file:
        read_spool(path)

    def sync() -> int:
        store = open_store(tracking.uri, root=Path(tracking.root))
        files = options.file
        runs = [replay(path, store) for path in files] if files else replay_unsent(store)
        return _show(f"{len(runs)} runs sent to {store.uri}")

    return sync


def _sync_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--file",
        type=Path,
        action="append",
        default=[],
        metavar="JOURNAL",
        help="journal of a run; may be repeated",
    )


def _completion(options: Options) -> Job:
    return lambda: _show(completion.script(options.shell), end="")


def _completion_arguments(parser: Parser) -> None:
    parser.add_argument("shell", choices=completion.SHELLS)


COMMANDS = {
    "train": Command(
        "make one run",
        _train,
        usage.TRAIN,
        usage.TRAIN_EXAMPLES,
        _train_arguments,
        interrupted=STARTS_AGAIN,
    ),
    "bench": Command(
        "race the optimizers of a suite",
        _bench,
        usage.BENCH,
        usage.BENCH_EXAMPLES,
        _bench_arguments,
        interrupted=CONTINUES,
    ),
    "tune": Command(
        "tune an optimizer on a workload",
        _tune,
        usage.TUNE,
        usage.TUNE_EXAMPLES,
        _tune_arguments,
        interrupted=CONTINUES,
    ),
    "metatrain": Command(
        "meta-train small weights of the VeLO architecture",
        _metatrain,
        usage.METATRAIN,
        usage.METATRAIN_EXAMPLES,
        _metatrain_arguments,
        interrupted=CONTINUES,
    ),
    "calibrate": Command(
        "carry a time budget over to this hardware",
        _calibrate,
        usage.CALIBRATE,
        usage.CALIBRATE_EXAMPLES,
        _calibrate_arguments,
        interrupted="nothing was written",
    ),
    "report": Command(
        "score recorded runs and write the report",
        _report,
        usage.REPORT,
        usage.REPORT_EXAMPLES,
        _report_arguments,
        interrupted="the report is not complete; the same command writes it again",
    ),
    "list": Command(
        "list workloads, optimizers, suites, presets, or the settings of one",
        _list,
        usage.LIST,
        usage.LIST_EXAMPLES,
        _list_arguments,
        overrides=False,
    ),
    "check": Command(
        "run the contract tests on an optimizer or workload",
        _check,
        usage.CHECK,
        usage.CHECK_EXAMPLES,
    ),
    "ui": Command("open the recorded runs in the MLflow UI", _ui, usage.UI, "", _ui_arguments),
    "fetch": Command(
        "download the published weights of a learned optimizer",
        _fetch,
        usage.FETCH,
        "",
        _fetch_arguments,
        overrides=False,
        interrupted="the same command continues the download",
    ),
    "sync": Command(
        "send runs to MLflow that it could not take",
        _sync,
        usage.SYNC,
        "",
        _sync_arguments,
        interrupted=CONTINUES,
    ),
    "replay": Command("", _sync, usage.SYNC, "", _sync_arguments, interrupted=CONTINUES),
    "completion": Command(
        "print the completion script of a shell",
        _completion,
        usage.COMPLETION,
        usage.COMPLETION_EXAMPLES,
        _completion_arguments,
        overrides=False,
    ),
}
"""Every command by name, in the order of ``timetrial --help``."""


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Returns the type of an argument: a whole number from ``low`` to ``high``."""
    allowed = f"{low} to {high}" if high is not None else f"a whole number >= {low}"

    def number(text: str) -> int:
        value = int(text) if text.lstrip("+-").isdecimal() else None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected {allowed}, got {text}")
        return value

    return number


def _export_argument(parser: Parser, text: str) -> None:
    parser.add_argument("--export", type=Path, metavar="FILE", help=text)


def _check_export(path: Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        raise UserError(f"--export: expected a file in an existing directory, got {path}")


def _load_suite(overrides: Sequence[str]) -> tuple[Suite, Tracking]:
    """Reads a suite with all presets and calibrations that its runs need.

    Raises:
        UserError: any of them is missing or wrong.
    """
    from timetrial.bench.suite import load_suite, pacemaker, plan
    from timetrial.bench.timing.calibration import calibrated_seconds

    suite, tracking = load_suite(overrides)
    for workload in suite.workloads:
        file = suite.calibration(workload)
        pace = pacemaker(suite, tracking, workload)
        seconds = None if file is None else calibrated_seconds(Path(file), pace)
        plan(suite, tracking, workload, seconds)
    return suite, tracking


def _require_devices() -> None:
    """Asks JAX for its devices.

    Raises:
        UserError: JAX finds none of the kind that JAX_PLATFORMS names.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        named = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX_PLATFORMS={named}: JAX finds no such device on this machine "
            f"({str(error) or type(error).__name__}); expected cpu, or no JAX_PLATFORMS at all"
        ) from error


def _show(text: object, end: str = "\n") -> int:
    print(text, end=end)
    return 0
