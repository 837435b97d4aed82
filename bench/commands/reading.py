"""Commands that read records, check and set up: report, compare, check, doctor, ui, ...

Boundary: options in, a job out; the other modules of ``bench`` do the work.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from timetrial.bench import usage
from timetrial.bench.commands.command import (
    CONTINUES,
    Command,
    Job,
    Options,
    Parser,
    ip_address,
    load_checked_suite,
    number_above,
    require_devices,
    sha256_digest,
    show,
    suspect_argument,
    user_file,
    whole_number,
)
from timetrial.framework.errors import UserError
from timetrial.tracking.record import schema

_SETTING: Final = re.compile(r"[A-Za-z_][\w.]*=")
_FROM_ONLY: Final = ("rules", "targets", "baseline", "experiment", "out")
"""Options of ``report`` that need ``--from``."""

# Each prepare function imports its own modules; see ``running``.


def _report(options: Options) -> Job:
    from timetrial.bench.report import paper_report, report
    from timetrial.bench.suite import load_suite
    from timetrial.tracking.scores.resampling import Bootstrap

    if options.sources:
        return _report_from(options)
    given = [f"--{name}" for name in _FROM_ONLY if getattr(options, name) is not None]
    if given:
        raise UserError(f"{', '.join(given)}: expected with --from SOURCE, got no --from")
    places = [word for word in options.overrides if not _SETTING.match(word)]
    if places:
        raise UserError(f"{places[0]}: expected key=value, got a place; to score its runs: "
                        f"timetrial report --from {' '.join(places)}")  # fmt: skip
    if options.paper:
        tracking = load_suite(options.overrides)[1]
        return lambda: paper_report(tracking, options.r_max)
    suite, tracking = load_checked_suite(options.overrides)
    return lambda: report(
        suite,
        tracking,
        mixed_machines=options.mixed_machines,
        include_suspect=options.include_suspect,
        options=Bootstrap(method=options.intervals),
        studies=options.studies,
        mlflow_url=options.mlflow_url,
        r_max=options.r_max,
    )


def _report_from(options: Options) -> Job:
    from timetrial.bench.report import report_from
    from timetrial.bench.suite import load_suite

    if options.paper:
        raise UserError("--paper, --from: expected one of them, got both")
    sources, words = split_sources(options.sources)
    settings = [*options.overrides, *words]
    keys = [word.split("=", 1)[0] for word in settings]
    if others := [key for key in keys if not key.startswith("tracking.")]:
        raise UserError(
            f"{others[0]}: expected no such setting with --from, only tracking.root and "
            "tracking.experiment; the runs come from the sources"
        )
    tracking = load_suite(settings)[1]
    experiment = tracking.experiment if "tracking.experiment" in keys else None
    return lambda: report_from(
        sources,
        rules=options.rules or "paper",
        targets=options.targets,
        experiment=options.experiment or experiment,
        out=options.out or Path(tracking.root) / "reports" / "from",
        mixed_machines=options.mixed_machines,
        include_suspect=options.include_suspect,
        baseline=options.baseline,
        r_max=options.r_max,
    )


def split_sources(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sources and the ``key=value`` words among what follows ``--from``.

    A word like a setting is a source if it names a file or directory.

    Raises:
        UserError: there is no source.
    """
    settings = [w for w in words if _SETTING.match(w) and not os.path.exists(w)]
    sources = [word for word in words if word not in settings]
    if not sources:
        raise UserError(f"--from: expected at least one SOURCE, got only {' '.join(settings)}")
    return sources, settings


def _report_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--paper", action="store_true", help="report the paper's own tables")
    _sources_arguments(parser, "directory, CSV file or URI; may be repeated")
    add(
        "--rules",
        metavar="RULES",
        help="with --from: paper (default), algoperf-v2 (or algoperf: the newest), algoperf-v0.6, "
        "algoperf-v0.5, each also with -self (self-tuning), algoperf-2023",
    )
    add(
        "--r-max",
        type=number_above(1),
        metavar="X",
        help="upper limit of the score's integral, > 1 (default: that of the rules)",
    )
    add("--targets", metavar="FILE", help="with --from: paper, algoperf or a file of targets")
    add("--baseline", metavar="NAME", help="with --from: reference optimizer of the speed-ups")
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


def _sources_arguments(parser: Parser, text: str) -> None:
    """Adds ``--from`` and what names an experiment of its sources."""
    add = parser.add_argument
    metavar = "SOURCE"
    add("--from", dest="sources", nargs="+", action="extend", metavar=metavar, help=text)
    add("--experiment", metavar="NAME", help="with --from URI: which MLflow experiment")


def _compare(options: Options) -> Job:
    from timetrial.bench.compare import Places, compare
    from timetrial.bench.suite import load_suite

    words = [options.one, options.other, *options.overrides]
    settings = [word for word in words if re.match(r"suite=|tracking\.\w+=", word)]
    names = [word for word in words if word not in settings]
    if len(names) != 2:
        raise UserError(f"compare: expected two optimizers, got {', '.join(names) or 'none'}")
    suite, tracking = load_suite(settings)
    places = Places(suite, tracking, options.sources or (), options.experiment)
    out = options.out or Path(tracking.root) / "reports" / "compare"
    return lambda: compare(names[0], names[1], places, out, mixed_machines=options.mixed_machines)


def _compare_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("one", metavar="A", help="an optimizer, or EXPERIMENT:OPTIMIZER")
    add("other", metavar="B", help="another one")
    _sources_arguments(parser, "directory, CSV file or URI, instead of the store")
    add("--out", type=user_file, metavar="DIR", help="directory of the plot")
    add("--mixed-machines", action="store_true", help="compare seconds of different machines, too")


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
    return lambda: serve(tracking, options.port, options.host)


def _ui_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--port",
        type=whole_number(1, 65535),
        default=5000,
        help="port to listen on (default: 5000)",
    )
    parser.add_argument(
        "--host",
        type=ip_address,
        default="127.0.0.1",
        metavar="ADDRESS",
        help="IPv4 address to listen on (default: 127.0.0.1, this machine only; 0.0.0.0: anybody)",
    )


def _fetch(options: Options) -> Job:
    from timetrial.bench.progress import download_bar
    from timetrial.framework.files import removed_on_error
    from timetrial.optimizers.weights.catalogue import PUBLISHED
    from timetrial.optimizers.weights.fetch import fetch_published

    entry = PUBLISHED[options.what]
    directory = entry.path.parent

    def fetch() -> int:
        show(entry.licence)
        with removed_on_error(directory), download_bar(f"{entry.title} weights") as progress:
            found = fetch_published(
                entry.name,
                source_file=options.source,
                sha256=options.sha256 or "",
                again=options.again,
                progress=progress,
            )
        for note in found.notes:
            show(note)
        show(f"{found.size_bytes:,} bytes, sha256 {found.sha256}")
        return show(found.path)

    return fetch


WEIGHTS = ("velo", "celo2", "celo2-base", "celo", "celo-adam")
"""Names of published weights; those of ``optimizers.weights.PUBLISHED``, imported when needed."""


def _fetch_arguments(parser: Parser) -> None:
    parser.add_argument("what", choices=WEIGHTS, help=f"published weights: {', '.join(WEIGHTS)}")
    parser.add_argument(
        "--from", dest="source", type=user_file, metavar="FILE", help="use this copy"
    )
    parser.add_argument(
        "--sha256",
        type=sha256_digest,
        metavar="DIGEST",
        help="accept only a file with this digest",
    )
    parser.add_argument(
        "--again", action="store_true", help="download even if valid weights are here"
    )


def _sync(options: Options) -> Job:
    from timetrial.bench.suite import load_suite
    from timetrial.bench.syncing import sync
    from timetrial.tracking.record.journal import read_journal

    tracking = load_suite(options.overrides)[1]
    for path in options.file:
        read_journal(path)
    return lambda: sync(tracking, options.file)


def _sync_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--file",
        type=user_file,
        action="append",
        default=[],
        metavar="JOURNAL",
        help="journal of a run; may be repeated",
    )


READING = {
    "report": Command(
        "score recorded runs and write the report",
        _report,
        usage.REPORT,
        usage.REPORT_EXAMPLES,
        _report_arguments,
        interrupted="the report is not complete; the same command writes it again",
    ),
    "compare": Command(
        "compare two optimizers in one paragraph and one plot",
        _compare,
        usage.COMPARE,
        usage.COMPARE_EXAMPLES,
        _compare_arguments,
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
    "ui": Command(
        "open the recorded runs in the MLflow UI", _ui, usage.UI, usage.UI_EXAMPLES, _ui_arguments
    ),
    "fetch": Command(
        "download the published weights of a learned optimizer",
        _fetch,
        usage.FETCH,
        usage.FETCH_EXAMPLES,
        _fetch_arguments,
        overrides=False,
        interrupted="the same command continues the download",
    ),
    "sync": Command(
        "send runs to MLflow that it lacks",
        _sync,
        usage.SYNC,
        usage.SYNC_EXAMPLES,
        _sync_arguments,
        interrupted=CONTINUES,
    ),
    "replay": Command("", _sync, usage.SYNC, "", _sync_arguments, interrupted=CONTINUES),
}
