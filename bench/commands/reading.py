"""Commands that read records, list, check and set up: report, list, check, doctor, ui, fetch, ...

Boundary: options in, a job out; the other modules of ``bench`` do the work.
"""

from __future__ import annotations

from pathlib import Path

from timetrial.bench import completion, usage
from timetrial.bench.commands.command import (
    CONTINUES,
    Command,
    Job,
    Options,
    Parser,
    load_checked_suite,
    require_devices,
    show,
    suspect_argument,
    user_file,
    whole_number,
)
from timetrial.tracking.record import schema

# Each prepare function imports its own modules; see ``running``.


def _report(options: Options) -> Job:
    from timetrial.bench.report import paper_report, report
    from timetrial.bench.suite import load_suite
    from timetrial.tracking.scores.resampling import Bootstrap

    if options.sources:
        return _report_from(options)
    if options.paper:
        tracking = load_suite(options.overrides)[1]
        return lambda: paper_report(tracking)
    suite, tracking = load_checked_suite(options.overrides)
    return lambda: report(
        suite,
        tracking,
        mixed_machines=options.mixed_machines,
        include_suspect=options.include_suspect,
        options=Bootstrap(method=options.intervals),
        studies=options.studies,
        mlflow_url=options.mlflow_url,
    )


def _report_from(options: Options) -> Job:
    from timetrial.bench.report import report_from
    from timetrial.bench.suite import load_suite

    tracking = load_suite(options.overrides)[1]
    out = options.out or Path(tracking.root) / "reports" / "from"
    return lambda: report_from(
        options.sources,
        rules=options.rules,
        targets=options.targets,
        experiment=options.experiment,
        out=out,
        mixed_machines=options.mixed_machines,
        include_suspect=options.include_suspect,
        baseline=options.baseline,
    )


def _report_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--paper", action="store_true", help="report the paper's own tables")
    add("--from", dest="sources", nargs="+", metavar="SOURCE", help="directory, CSV file or URI")
    add(
        "--rules",
        metavar="RULES",
        default="paper",
        help="with --from: paper (default), algoperf, algoperf-v05, algoperf-2023, ...-self",
    )
    add("--targets", metavar="FILE", help="with --from: paper, algoperf or a file of targets")
    add("--baseline", metavar="NAME", help="with --from: reference optimizer of the speed-ups")
    add("--experiment", metavar="NAME", help="with --from URI: which MLflow experiment")
    add("--out", type=user_file, metavar="DIR", help="with --from: directory of the report")
    add("--mixed-machines", action="store_true", help="score seconds of different machines, too")
    suspect_argument(parser)
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
    from timetrial.bench.listing import describe, listing

    if options.name is None:
        return lambda: show(listing())
    return lambda: show(describe(options.name))


def _list_arguments(parser: Parser) -> None:
    name = parser.add_argument("name", nargs="?", metavar="NAME", help="a listed name")
    completion.complete(name, completion.listed)


def _check(options: Options) -> Job:
    from timetrial.bench.check import check

    require_devices()
    return lambda: check(options.overrides)


def _doctor(options: Options) -> Job:
    from timetrial.bench.doctor.command import doctor
    from timetrial.bench.suite import load_suite

    suite, tracking = load_suite(options.overrides)
    require_devices()
    return lambda: doctor(suite, tracking, steps=options.steps, as_json=options.json)


def _doctor_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--no-steps", dest="steps", action="store_false", help="time no steps: a few seconds in all"
    )


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
    from timetrial.framework.files import removed_on_error
    from timetrial.optimizers.velo.weights.catalogue import google_weights_path
    from timetrial.optimizers.velo.weights.fetch import LICENCE_NOTE, fetch_velo

    directory = google_weights_path().parent

    def fetch() -> int:
        show(LICENCE_NOTE)
        with removed_on_error(directory), download_bar("VeLO weights") as progress:
            path = fetch_velo(source_file=options.source, progress=progress)
        return show(path)

    return fetch


def _fetch_arguments(parser: Parser) -> None:
    parser.add_argument("what", choices=["velo"], help="learned optimizer")
    parser.add_argument(
        "--from", dest="source", type=user_file, metavar="FILE", help="use this copy"
    )


def _sync(options: Options) -> Job:
    from timetrial.bench.suite import load_suite
    from timetrial.tracking.record.journal import read_journal
    from timetrial.tracking.store.mirror import sync
    from timetrial.tracking.store.opening import open_store

    tracking = load_suite(options.overrides)[1]
    for path in options.file:
        read_journal(path)

    def send() -> int:
        store = open_store(tracking.uri, root=Path(tracking.root))
        return show(f"{len(sync(store, options.file))} runs sent to {store.name}")

    return send


def _sync_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--file",
        type=user_file,
        action="append",
        default=[],
        metavar="JOURNAL",
        help="journal of a run; may be repeated",
    )


def _completion(options: Options) -> Job:
    return lambda: show(completion.script(options.shell), end="")


def _completion_arguments(parser: Parser) -> None:
    parser.add_argument("shell", choices=completion.SHELLS)


READING = {
    "report": Command(
        "score recorded runs and write the report",
        _report,
        usage.REPORT,
        usage.REPORT_EXAMPLES,
        _report_arguments,
        interrupted="the report is not complete; the same command writes it again",
    ),
    "list": Command(
        "list workloads, optimizers, suites and presets, or describe one",
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
    "doctor": Command(
        "say whether this machine is fit for time budgets, and what is missing",
        _doctor,
        usage.DOCTOR,
        usage.DOCTOR_EXAMPLES,
        _doctor_arguments,
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
        "send unsent runs to MLflow",
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
