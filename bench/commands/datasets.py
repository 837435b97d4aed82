"""The command ``timetrial data``: prepare, verify and list the full-size data sets, or tiny ones.

Boundary: options in, a job out; ``bench.data`` does the work.
"""

from __future__ import annotations

from typing import Final

from timetrial.bench import completion, usage
from timetrial.bench.commands.command import (
    CONTINUES,
    Command,
    Job,
    Options,
    Parser,
    show,
    user_file,
    whole_number,
)
from timetrial.framework.errors import UserError
from timetrial.framework.suggestions import unknown

NAMES: Final = ("imagenet_resnet", "fastmri", "ogbg", "criteo1tb")
"""Data sets, by the names of their workloads."""

_ONLY: Final = {
    "source": "prepare",
    "workers": "prepare",
    "skip_bad": "prepare",
    "sample": "prepare",
    "untrained": "verify",
}
"""Options that belong to one action."""

# The prepare function imports its own modules; see ``running``.


def _data(options: Options) -> Job:
    _check_options(options)
    from timetrial.workloads.data.catalogue import DATA_SETS
    from timetrial.workloads.data.prepared import data_directory

    root = options.data or data_directory()
    if options.action == "list":
        from timetrial.bench.data.listing import listing

        return lambda: show(listing(root))
    if options.action == "fixture":
        from timetrial.bench.data.fixture import fixture

        return lambda: fixture(root)
    data = DATA_SETS[options.workload]
    if options.action == "verify":
        from timetrial.bench.data.verifying import verify

        data.manifests(root)
        return lambda: verify(data, root, model=options.untrained)
    from timetrial.bench.data.preparing import Request, prepare

    request = Request(
        data, root, options.source, options.workers, options.skip_bad or 0, options.sample
    )
    return lambda: prepare(request)


def _check_options(options: Options) -> None:
    """Checks that the options belong to the action.

    Raises:
        UserError: one does not, or the data set is missing or unknown.
    """
    name, action = options.workload, options.action
    for option, belongs in _ONLY.items():
        if getattr(options, option) not in (None, False) and belongs != action:
            flag = f"--{option.replace('_', '-')}"
            raise UserError(f"{flag}: expected with data {belongs}, got data {action}")
    if action == "fixture" and options.data is None:
        raise UserError("data fixture: expected --data DIR, apart from real data sets, got none")
    if action in ("list", "fixture"):
        if name is not None:
            raise UserError(f"data {action}: expected no name, got {name}")
        return
    if name is None:
        raise UserError(f"data {action}: expected a data set. Known: {', '.join(NAMES)}")
    if name not in NAMES:
        raise UserError(unknown("data set", name, NAMES))


def _arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("action", choices=("prepare", "verify", "list", "fixture"), help="what to do")
    name = add("workload", nargs="?", metavar="WORKLOAD", help=", ".join(NAMES))
    completion.complete(name, lambda: NAMES)
    add("--source", type=user_file, metavar="DIR", help="prepare: directory of the raw files")
    add(
        "--workers",
        type=whole_number(1),
        metavar="N",
        help="prepare: number of processes (default: one per core)",
    )
    add(
        "--skip-bad",
        type=whole_number(0),
        metavar="N",
        help="prepare: leave out up to N bad records (default: 0)",
    )
    add("--sample", action="store_true", help="prepare: the raw files are a small sample")
    add("--untrained", action="store_true", help="verify: check the model also on a CPU")
    add(
        "--data",
        type=user_file,
        metavar="DIR",
        help="directory of the prepared data sets (default: $TIMETRIAL_DATA, else in the cache)",
    )


DATA = {
    "data": Command(
        "prepare, verify and list the full-size data sets",
        _data,
        usage.DATA,
        usage.DATA_EXAMPLES,
        _arguments,
        overrides=False,
        interrupted=CONTINUES,
    ),
}
