"""Commands of a race by several workers: worker, status, cancel.

Boundary: options in, a job out; the other modules of ``bench`` do the work.
"""

from __future__ import annotations

import argparse

from timetrial.bench import usage_launching as usage
from timetrial.bench.commands.command import (
    CONTINUES,
    Command,
    Job,
    Options,
    Parser,
    busy_argument,
    load_checked_suite,
    require_devices,
)

# Each prepare function imports its own modules; see ``running``.


def _worker(options: Options) -> Job:
    from timetrial.bench.doctor.command import require_idle
    from timetrial.bench.launch.worker import split, work
    from timetrial.framework.types import Condition

    settings, words = split(options.overrides)
    suite, tracking = load_checked_suite(words)
    require_devices()
    timed = Condition.TIME in suite.conditions
    if timed and not options.busy_machine and not options.launched:
        require_idle()
    return lambda: work(
        suite,
        tracking,
        settings,
        repeat_suspect=not options.busy_machine,
        retry_failed=options.retry_failed,
        typed=() if options.launched else options.typed,
    )


def _worker_arguments(parser: Parser) -> None:
    busy_argument(parser)
    parser.add_argument("--retry-failed", action="store_true", help="make failed runs once more")
    parser.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)


def _status(options: Options) -> Job:
    from timetrial.bench.launch.standing import status
    from timetrial.bench.suite import load_suite

    tracking = load_suite(options.overrides)[1]
    return lambda: status(tracking, all_runs=options.all, as_json=options.json)


def _status_arguments(parser: Parser) -> None:
    parser.add_argument("--all", action="store_true", help="list finished and waiting runs, too")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _cancel(options: Options) -> Job:
    from timetrial.bench.launch.standing import cancel
    from timetrial.bench.suite import load_suite

    tracking = load_suite(options.overrides)[1]
    return lambda: cancel(tracking, forget=options.forget)


def _cancel_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--forget", action="store_true", help="remove the runs from the queue, not from the record"
    )


LAUNCHING = {
    "worker": Command(
        "make runs of a race beside other workers",
        _worker,
        usage.WORKER,
        usage.WORKER_EXAMPLES,
        _worker_arguments,
        interrupted=CONTINUES,
    ),
    "status": Command(
        "show what the workers of a race make, made and could not make",
        _status,
        usage.STATUS,
        usage.STATUS_EXAMPLES,
        _status_arguments,
    ),
    "cancel": Command(
        "end the workers of a race on all machines",
        _cancel,
        usage.CANCEL,
        usage.CANCEL_EXAMPLES,
        _cancel_arguments,
    ),
}
