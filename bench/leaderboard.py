"""AlgoPerf's leaderboard of runs from anywhere: chooses rules and baseline, prints, writes.

Boundary: ``tracking.scores.algoperf`` scores; ``tracking.report.leaderboard`` formats.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from timetrial.framework.errors import UserError
from timetrial.framework.files import write_atomically
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Split
from timetrial.tracking.read.times_csv import METRIC, as_times
from timetrial.tracking.record import schema
from timetrial.tracking.report import exports
from timetrial.tracking.report.leaderboard import leaderboard_table, leaderboard_text
from timetrial.tracking.scores import algoperf
from timetrial.tracking.scores.algoperf_rules import Rules
from timetrial.tracking.scores.machines import check_one_machine, suspect

TARGET_TAG: Final = f"{schema.GIVEN_TARGET}{Split.VALIDATION}"
"""Tag with a run's target under AlgoPerf's rules."""


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """Runs scored by AlgoPerf's rules.

    Attributes:
        rules: the rules, with the scored workloads.
        board: from ``algoperf.leaderboard``.
        times: charged seconds to target, optimizer by workload.
        targets: by workload.
        baseline: reference submission of the speed-ups.
        shortfalls: required but missing workloads, studies and trials.
        trials: the counting trial of each study, as a separate run.
    """

    rules: Rules
    board: pd.DataFrame
    times: pd.DataFrame
    targets: Mapping[str, float]
    baseline: str
    shortfalls: Sequence[str]
    trials: Sequence[RunRecord]


def leaderboard_of(
    records: Sequence[RunRecord],
    rules: Rules,
    *,
    baseline: str | None = None,
    mixed_machines: bool = False,
    include_suspect: bool = False,
) -> Leaderboard:
    """Scores the runs under time control; the others are ignored.

    Args:
        records: runs; the tag ``TARGET_TAG`` gives the target of each.
        rules: AlgoPerf's rules. If none of their workloads was run, the recorded workloads with
            a target are scored instead.
        baseline: as for ``bench.report.report_from``.
        mixed_machines: score seconds of runs from different machines, too.
        include_suspect: score runs whose seconds are suspect, too.

    Raises:
        UserError: no run under time control, no target, or no such baseline; or seconds of
            different machines.
    """
    timed = [record for record in records if record.condition == Condition.TIME]
    if not include_suspect:
        timed = [record for record in timed if not suspect(record)]
    if not timed:
        raise UserError("AlgoPerf's rules: expected credible runs under time control, got none")
    if not mixed_machines:
        check_one_machine(timed)
    rules = _with_workloads(rules, timed)
    times = algoperf.study_times(timed, {}, rules)
    chosen = _baseline(algoperf.scores(times, rules), timed, baseline)
    return Leaderboard(
        rules=rules,
        board=algoperf.leaderboard(times, rules, chosen),
        times=times,
        targets={r.workload: float(r.tags[TARGET_TAG]) for r in timed if TARGET_TAG in r.tags},
        baseline=chosen,
        shortfalls=algoperf.shortfalls(timed, rules),
        trials=_counting_trials(timed, rules),
    )


def print_leaderboard(found: Leaderboard) -> None:
    """Prints shortfalls, scores and times to target."""
    for line in found.shortfalls:
        print(f"missing  {line}")
    print(f"\n{leaderboard_text(found.board, found.times, found.targets, found.baseline)}")


def write_leaderboard(found: Leaderboard, directory: Path, title: str) -> None:
    """Writes the leaderboard as CSV, LaTeX and Markdown, and the times to target as CSV."""
    table = leaderboard_table(found.board, title, found.baseline)
    files = {
        "leaderboard.csv": found.board.rename_axis("submission").to_csv(lineterminator="\n"),
        "leaderboard_times.csv": found.times.rename_axis("submission").to_csv(lineterminator="\n"),
        "tables/leaderboard.tex": exports.latex(table, title),
        "tables/leaderboard.md": exports.markdown(table),
    }
    try:
        for name, text in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / name, text.encode())
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from error


def _with_workloads(rules: Rules, records: Iterable[RunRecord]) -> Rules:
    """The rules, with the recorded workloads if none of their own was run."""
    there = {record.workload: TARGET_TAG in record.tags for record in records}
    if rules.workloads is None or set(rules.workloads) & set(there):
        return rules
    scored = tuple(sorted(workload for workload, has_target in there.items() if has_target))
    if not scored:
        raise UserError(
            f"workloads: expected some of {', '.join(rules.workloads)}, or targets for others "
            f"(--targets FILE), got {', '.join(sorted(there))}"
        )
    return dataclasses.replace(rules, workloads=scored, variants=(), runtimes=None)


def _baseline(scores: pd.Series[float], records: Iterable[RunRecord], wanted: str | None) -> str:
    """The wanted submission, else the best one named baseline, else hand-made, else of all."""
    names = [str(name) for name in scores.index]
    if wanted is not None:
        if wanted not in names:
            raise UserError(f"baseline: expected one of {', '.join(names)}, got {wanted!r}")
        return wanted
    called = [name for name in names if name.rsplit("/", 1)[-1].startswith("baseline")]
    hand_made = {r.optimizer for r in records if r.tags.get(schema.LEARNED) == "false"}
    chosen = called or [name for name in names if name in hand_made] or names
    return str(scores[chosen].fillna(-1.0).idxmax())


def _counting_trials(records: Sequence[RunRecord], rules: Rules) -> list[RunRecord]:
    """The best trial of each study of a base workload, with the number of its study as seed.

    If some runs of a workload are only times, all of its runs become times.
    """
    numbers: Counter[tuple[str, str]] = Counter()
    trials = []
    mere_times = {record.workload for record in records if record.metric == METRIC}
    for run, time in algoperf.best_trials(records, {}, rules):
        if rules.workloads is None or run.workload in rules.workloads:
            number = numbers[run.optimizer, run.workload]
            numbers[run.optimizer, run.workload] += 1
            tags = {key: value for key, value in run.tags.items() if key != schema.STUDY}
            trial = dataclasses.replace(run, seed=number, tags=tags)
            mixed = run.workload in mere_times
            trials.append(as_times(trial, {Split.VALIDATION: time}) if mixed else trial)
    return trials
