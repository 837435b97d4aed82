"""The command ``timetrial pool``: make a pool of identical machines, or check this one.

Boundary: options in, a job out; ``bench.launch`` does the work.
"""

from __future__ import annotations

from pathlib import Path

from timetrial.bench import completion, usage
from timetrial.bench.commands.command import Command, Job, Options, Parser, require_devices
from timetrial.framework.errors import UserError

# The prepare function imports its own modules; see ``running``.


def _pool(options: Options) -> Job:
    from timetrial.bench.launch.pool import load_pool, pool_path
    from timetrial.bench.launch.pooling import check, make
    from timetrial.bench.suite import load_suite

    if options.check and options.replace:
        raise UserError("--check, --replace: expected one of them, got both")
    path = pool_path(options.name)
    if options.check:
        pool = load_pool(options.name)
        asked = load_suite(options.overrides)[0].workloads if options.overrides else ()
        for workload in asked:
            pool.calibration(workload)
        require_devices()
        return lambda: check(options.name, asked)
    suite, tracking = load_suite(options.overrides)
    if path.exists() and not options.replace:
        load_pool(options.name)
    require_devices()
    return lambda: make(options.name, suite, tracking, replace=options.replace)


def _arguments(parser: Parser) -> None:
    name = parser.add_argument("name", metavar="NAME", help="name of the pool, or FILE.yaml")
    completion.complete(name, lambda: sorted(path.stem for path in Path("pools").glob("*.yaml")))
    parser.add_argument(
        "--check",
        action="store_true",
        help="say whether this machine belongs to the pool (exit code 0), write nothing",
    )
    parser.add_argument(
        "--replace", action="store_true", help="measure everything anew, overwrite another pool"
    )


POOLS = {
    "pool": Command(
        "describe machines whose seconds compare, or check this one",
        _pool,
        usage.POOL,
        usage.POOL_EXAMPLES,
        _arguments,
        interrupted="nothing was written",
    ),
}
