"""Scores recorded runs and writes reports: the command ``timetrial report``.

Boundary: chooses the runs and prints the results; ``tracking.report`` writes the files.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from timetrial.bench import suite as suites
from timetrial.bench.invocation import program
from timetrial.bench.leaderboard import (
    PAPER,
    TARGET_TAG,
    leaderboard_of,
    paper_rules_text,
    print_leaderboard,
    rules_named,
    rules_text,
    write_leaderboard,
)
from timetrial.bench.naming import label
from timetrial.bench.planning import planned
from timetrial.bench.schedule import learning_rates, paper_learning_rates
from timetrial.bench.suite import Suite
from timetrial.framework import config as configuration
from timetrial.framework.config import RunConfig, Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.files import remove_drafts, write_errors
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Split
from timetrial.tracking.read.algoperf_logs import FRAMEWORK
from timetrial.tracking.read.places import gather
from timetrial.tracking.read.runs import load_runs, read_experiment
from timetrial.tracking.record import schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.report import (
    ReportOptions,
    score_table_text,
    write_paper_report,
    write_report,
)
from timetrial.tracking.scores.algoperf import largest_factor
from timetrial.tracking.scores.algoperf_rules import Rules
from timetrial.tracking.scores.conditions import by_condition
from timetrial.tracking.scores.fixed_targets import give_targets, named_targets
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.targets import base_name
from timetrial.tracking.store.listing import has_experiment
from timetrial.tracking.store.opening import Store, open_store
from timetrial.tracking.store.report_run import log_report
from timetrial.tracking.store.ui import run_address
from timetrial.tracking.store.views import write_views


def report(
    suite: Suite,
    tracking: Tracking,
    store: Store | None = None,
    *,
    mixed_machines: bool = False,
    include_suspect: bool = False,
    options: Bootstrap | None = None,
    studies: str = schema.STUDIES,
    mlflow_url: str = "",
    r_max: float | None = None,
) -> int:
    """Scores the recorded runs of a suite, writes the report and prints the score table.

    Args:
        suite: the suite of the runs.
        tracking: store and experiment of the runs.
        store: that store, if it is open already.
        mixed_machines: score seconds of runs from different machines, too.
        include_suspect: score runs whose seconds are suspect, too.
        options: bootstrap of the intervals.
        studies: further experiment with trials of tuning studies.
        mlflow_url: URL of the MLflow UI, for links to runs.
        r_max: upper limit of the score's integral for both conditions, > 1; None takes the paper's.
    """
    store = store or open_store(tracking.uri, root=Path(tracking.root), create=False)
    configs = planned(suite, tracking, store)
    records, others = _runs_of(suite, tracking, store, configs)
    scored = with_targets(by_condition(records), suite)
    report_options = ReportOptions(
        title=f"Timetrial: suite {suite.name}",
        r_max=suite.r_max if r_max is None else r_max,
        setters=suite.targets.setters or None,
        planned=_planned_runs(configs, suite),
        mixed_machines=mixed_machines,
        include_suspect=include_suspect,
        bootstrap=options or Bootstrap(),
        rates=learning_rates(configs, scored),
        run_url=_run_url(store, tracking.experiment, mlflow_url),
    )
    directory = Path(tracking.root).absolute() / "reports" / suite.name
    shown = [*scored, *study_trials(suite, tracking, store, studies)]
    page = write_page(shown, directory, report_options)
    print(f"\n{score_table_text(scored, report_options)}")
    if others:
        print(f"\n{others} other runs in {tracking.experiment!r} do not belong to this suite")
    print(f"\nreport   {page}")
    print(f"MLflow   {ui_command_line(tracking, suite)}")
    _show_in_mlflow(store, tracking.experiment, suite.name, directory, records)
    return 0


def _run_url(store: Store, experiment: str, mlflow_url: str) -> str:
    """Base URL of links to runs; "" while MLflow has no run."""
    return run_address(store, experiment, mlflow_url) if has_experiment(store, experiment) else ""


def _show_in_mlflow(
    store: Store, experiment: str, suite: str, directory: Path, records: Sequence[RunRecord]
) -> None:
    """Logs the report and writes the views; prints a warning if the store raises."""
    try:
        log_report(store, experiment, suite, directory)
        write_views(store, experiment, records)
    except TrackingError as error:
        print(f"timetrial: warning: the report is not in MLflow: {error}", file=sys.stderr)


def _planned_runs(
    configs: Sequence[RunConfig], suite: Suite
) -> list[tuple[str, str, int, Condition]]:
    return [
        (config.workload.name, label(config), config.seed, condition)
        for config in configs
        for condition in served_conditions(config, suite)
    ]


def _runs_of(
    suite: Suite, tracking: Tracking, store: Store, configs: Sequence[RunConfig]
) -> tuple[list[RunRecord], int]:
    """The recorded runs of a suite, and the number of other runs in its experiment."""
    identities = {configuration.digest(config) for config in configs}
    recorded = load_runs(store, tracking.experiment)
    records = [run for run in recorded if run.tags[schema.CONFIG_HASH] in identities]
    if not records:
        raise UserError(
            f"experiment {tracking.experiment!r} in {store.uri} holds no runs of suite "
            f"{suite.name}; make them with: timetrial bench suite={suite.name}"
        )
    return records, len(recorded) - len(records)


def with_targets(records: Sequence[RunRecord], suite: Suite) -> list[RunRecord]:
    """The runs with the fixed targets of their suite, where it has some.

    Raises:
        UserError: the file of targets cannot be read, or a setter has no runs.
    """
    labels = sorted({record.optimizer for record in records})
    for setter in suite.targets.setters:
        if setter not in {*labels, *map(base_name, labels)}:
            raise UserError(configuration.unknown("optimizer in targets.setters", setter, labels))
    file = suite.targets.file
    return give_targets(records, named_targets(str(file)), Path(file).name) if file else [*records]


def write_page(records: Sequence[RunRecord], directory: Path, options: ReportOptions) -> Path:
    """Calls ``tracking.report.write_report``; turns an OSError into a UserError."""
    remove_drafts(directory)  # the report's run in MLflow gets all files
    with write_errors(f"the report to {directory}"):
        return write_report(records, directory, options)


def study_trials(
    suite: Suite, tracking: Tracking, store: Store, experiment: str
) -> list[RunRecord]:
    """Trials of tuning studies on the suite's workloads, from its experiment and another one."""
    found = {
        run.run_id: run
        for name in (tracking.experiment, experiment)
        if has_experiment(store, name) or name == tracking.experiment
        for run in read_experiment(store, name).records
        if schema.STUDY in run.tags
    }
    return [run for run in found.values() if run.workload in suite.workloads]


def paper_report(tracking: Tracking, r_max: float | None = None) -> int:
    """Writes the report of the paper's own tables; it needs no recorded run.

    Args:
        tracking: root of the report's directory.
        r_max: as for ``report``.
    """
    directory = Path(tracking.root).absolute() / "reports" / "paper"
    remove_drafts(directory)  # the report's run in MLflow gets all files
    with write_errors(f"the report to {directory}"):
        options = ReportOptions(rates=paper_learning_rates(), r_max=r_max)
        page = write_paper_report(directory, options)
    print(f"report   {page}")
    return 0


def served_conditions(config: RunConfig, suite: Suite) -> list[Condition]:
    """The conditions served by a planned run."""
    reference = suites.pacemaker(suite, config.tracking, config.workload.name)
    is_reference = configuration.digest(config) == configuration.digest(reference)
    sets_pace = is_reference and suites.sets_pace(suite, reference)
    if config.budget.also_seconds is not None or sets_pace:
        return [Condition.STEP, Condition.TIME]
    return [config.budget.condition]


def ui_command_line(tracking: Tracking, suite: Suite | None = None) -> str:
    """Command line that opens the MLflow UI at the views of a suite."""
    default = Tracking(experiment=f"timetrial-{suite.name if suite else 'quick'}")
    given = [
        shlex.quote(f"tracking.{key}={value}")
        for key, value in vars(tracking).items()
        if value is not None and value != getattr(default, key)
    ]
    return " ".join([f"{program()} ui", *([f"suite={suite.name}"] if suite else []), *given])


def report_from(
    sources: Sequence[str],
    *,
    rules: str = PAPER,
    targets: str | None = None,
    experiment: str | None = None,
    out: Path,
    mixed_machines: bool = False,
    include_suspect: bool = False,
    baseline: str | None = None,
    r_max: float | None = None,
) -> int:
    """Scores the runs of several sources together; the command ``timetrial report --from``.

    Args:
        sources: places as for ``tracking.read.places.read_place``.
        rules: ``paper``, or a name in ``algoperf_rules.RULES`` or ``ALIASES``.
        targets: ``paper``, ``algoperf`` or a file; by default AlgoPerf's under its rules, else
            established from the runs.
        experiment: name of the MLflow experiment in each store; None takes the only one.
        out: directory for the report's files.
        mixed_machines: score seconds of runs from different machines, too.
        include_suspect: score runs whose seconds are suspect, too.
        baseline: reference submission of the speed-ups; None takes the best one named baseline,
            else the best hand-made optimizer, else the best submission.
        r_max: upper limit of the score's integral, > 1, instead of the rules' own.

    Raises:
        UserError: an unknown name or file, a source without runs, or runs that cannot be scored
            together.
    """
    full, algoperf_rules = rules_named(rules)
    name = targets or ("" if algoperf_rules is None else "algoperf")
    records = _read(sources, experiment, name)
    options = ReportOptions(
        title=f"Timetrial: {full} rules",
        r_max=r_max,
        meta={"sources": ", ".join(sources), "targets": name or "established from the runs"},
        mixed_machines=mixed_machines,
        include_suspect=include_suspect,
    )
    try:
        if algoperf_rules is None:
            page = _report_race(records, out, options)
        else:
            page = _report_leaderboard(records, full, algoperf_rules, out, options, baseline)
    except ValueError as error:  # the runs of a workload disagree on metric, direction or target
        raise UserError(str(error)) from error
    print(f"\nreport   {page}")
    return 0


def _read(sources: Sequence[str], experiment: str | None, targets: str) -> list[RunRecord]:
    """Reads the runs, adds the named targets, if any, and prints every problem."""
    given = named_targets(targets) if targets else {}
    records, problems = gather(sources, experiment)
    records = give_targets(by_condition(records), given, targets or "given")
    for place, problem in problems:
        print(f"problem  {place}: {problem}")
    for line in _lacking_targets(records, targets):
        print(f"problem  {line}")
    return records


def _lacking_targets(records: Sequence[RunRecord], name: str) -> list[str]:
    """One line per workload without a named target, or without a budget to establish one."""
    lines = []
    for workload in sorted({record.workload for record in records}):
        here = [record for record in records if record.workload == workload]
        if any(TARGET_TAG in record.tags for record in here):
            continue
        if name:
            lines.append(f"{name}: no {Split.VALIDATION} target of {workload}")
        elif not any(record.budget > 0 for record in here):
            lines.append(f"{workload}: no budget is recorded, so no target can be established")
    return lines


def _report_race(records: Sequence[RunRecord], out: Path, options: ReportOptions) -> Path:
    """Reports by the paper's rules; trials of AlgoPerf's studies count as runs."""
    raced = [
        dataclasses.replace(r, tags={k: v for k, v in r.tags.items() if k != schema.STUDY})
        if FRAMEWORK in r.tags
        else r
        for r in records
    ]
    rules = paper_rules_text(_limit(options))
    text = score_table_text(raced, options)
    page = write_page(raced, out, _with_meta(options, rules))
    print(f"rules    {rules}\n\n{text}")
    return page


def _report_leaderboard(
    records: Sequence[RunRecord],
    name: str,
    rules: Rules,
    out: Path,
    options: ReportOptions,
    baseline: str | None,
) -> Path:
    """Reports by AlgoPerf's rules; ``r_max`` of the options replaces theirs."""
    limit = _limit(options)
    chosen = rules if limit is None else dataclasses.replace(rules, r_max=limit)
    found = leaderboard_of(
        records,
        chosen,
        baseline=baseline,
        mixed_machines=options.mixed_machines,
        include_suspect=options.include_suspect,
    )
    text = rules_text(name, rules, found.rules)
    print(f"rules    {text}")
    print_leaderboard(found, name)
    write_leaderboard(found, out, options.title)
    largest = largest_factor(found.times, found.rules)
    shown = largest if largest > 1 else None  # equal times: any limit gives the same scores
    return write_page(
        found.trials, out, dataclasses.replace(_with_meta(options, text), r_max=shown)
    )


def _limit(options: ReportOptions) -> float | None:
    """The given r_max, if it is one for both conditions."""
    return None if isinstance(options.r_max, Mapping) else options.r_max


def _with_meta(options: ReportOptions, rules: str) -> ReportOptions:
    """The options with the rules among the facts of the page."""
    return dataclasses.replace(options, meta={"rules": rules, **options.meta})
