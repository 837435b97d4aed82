"""Commands that train: train, bench, tune, metatrain, calibrate.

Boundary: options in, a job out; the other modules of ``bench`` do the work.
"""

from __future__ import annotations

import argparse
import os

from timetrial.bench import completion, usage
from timetrial.bench.commands.command import (
    CONTINUES,
    Command,
    Job,
    Options,
    Parser,
    busy_argument,
    check_export,
    check_price,
    export_argument,
    load_checked_suite,
    plan_arguments,
    require_devices,
    show,
    suspect_argument,
    whole_number,
)

# Each prepare function imports its own modules, so that --help does not import JAX.


def _train(options: Options) -> Job:
    from timetrial.bench.hosts import join, split, train_together
    from timetrial.bench.race import train
    from timetrial.bench.suite import load_run
    from timetrial.framework.config import to_yaml

    hosts, words = split(options.overrides)
    config = load_run(words)
    if options.print_config:
        return lambda: show(to_yaml(config), end="")
    if hosts.coordinator is not None:
        join(hosts)
    require_devices()
    if hosts.coordinator is not None:
        return lambda: train_together(config, again=options.again)
    return lambda: train(config, again=options.again, typed=options.typed)


def _train_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--print-config", action="store_true", help="show the settings, run nothing"
    )
    parser.add_argument(
        "--again", action="store_true", help="make a run once more that is recorded as finished"
    )


def _bench(options: Options) -> Job:
    from timetrial.bench.doctor.command import require_idle
    from timetrial.bench.launch import launchers
    from timetrial.bench.launch.driver import race_with
    from timetrial.bench.planning import crew_of, show_plan
    from timetrial.bench.race import race
    from timetrial.framework.types import Condition

    chosen, words = launchers.split(options.overrides)
    suite, tracking = load_checked_suite(words)
    check_price(options)
    if options.plan:
        crew = crew_of(chosen, needs_gpu="gpu" in suite.needs)
        return lambda: show_plan(suite, tracking, crew, options.price)
    timed = Condition.TIME in suite.conditions
    if timed and not options.busy_machine and not chosen.launcher.leaves_machine:
        require_idle()
    if not chosen.is_default:
        return lambda: race_with(
            chosen,
            suite,
            tracking,
            words,
            busy_machine=options.busy_machine,
            include_suspect=options.include_suspect,
            typed=options.typed,
        )
    require_devices()
    return lambda: race(
        suite,
        tracking,
        repeat_suspect=not options.busy_machine,
        include_suspect=options.include_suspect,
        typed=options.typed,
    )


def _bench_arguments(parser: Parser) -> None:
    plan_arguments(parser, "list the runs and their costs, run nothing")
    busy_argument(parser)
    suspect_argument(parser)


def _tune(options: Options) -> Job:
    from timetrial.bench.launch import launchers
    from timetrial.bench.tune.costs import show_costs
    from timetrial.bench.tune.settings import load_plan
    from timetrial.bench.tune.study import tune, worker

    if options.worker is not None:
        return lambda: worker(options.overrides, options.worker)
    chosen, words = launchers.split(options.overrides)
    if options.workers is not None:
        chosen = launchers.with_workers(chosen, options.workers)
    plan = load_plan(words)
    check_export(options.export)
    check_price(options)
    if options.plan:
        return lambda: show_costs(plan, chosen, options.price)
    if chosen.is_default:
        require_devices()
        return lambda: tune(words, export=options.export, typed=options.typed)
    return lambda: tune(words, chosen, options.export, options.typed)


def _tune_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        metavar="N",
        help="number of processes on this machine: launcher.workers=N",
    )
    plan_arguments(parser, "show trials and costs of the study, run nothing")
    export_argument(parser, "write the best configuration as a run preset")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # number of workers


def _metatrain(options: Options) -> Job:
    from timetrial.bench.metatrain.command import metatrain
    from timetrial.bench.metatrain.config import read
    from timetrial.framework.files import removed_on_error

    _, command = read(options.overrides)
    check_export(options.export)
    if "cpu" not in os.environ.get("JAX_PLATFORMS", "cpu"):  # CPU devices are counted later
        require_devices()
    made = (command.directory / "lock", command.directory.with_name("compiled"))

    def train() -> int:
        with removed_on_error(*made):
            return metatrain(options.overrides, options.export)

    return train


def _metatrain_arguments(parser: Parser) -> None:
    export_argument(parser, "write the best weights so far, and their sha256")


def _calibrate(options: Options) -> Job:
    from timetrial.bench.timing.calibrate import run

    require_devices()
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


RUNNING = {
    "train": Command(
        "make one run",
        _train,
        usage.TRAIN,
        usage.TRAIN_EXAMPLES,
        _train_arguments,
        interrupted=CONTINUES,
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
        "transfer a time budget to this hardware",
        _calibrate,
        usage.CALIBRATE,
        usage.CALIBRATE_EXAMPLES,
        _calibrate_arguments,
        interrupted="nothing was written",
    ),
}
