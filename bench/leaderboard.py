"""AlgoPerf's leaderboard of runs from anywhere: chooses rules and baseline, prints, writes.

Boundary: ``tracking.scores.algoperf`` scores; ``tracking.report.leaderboard`` formats.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from timetrial.framework.checksums import digest_line
from timetrial.framework.errors import UserError
from timetrial.framework.files import write_atomically, write_errors
from timetrial.framework.records import RunRecord
from timetrial.framework.secrets import masked
from timetrial.framework.types import Condition, Split
from timetrial.tracking.read.times_csv import METRIC, as_times
from timetrial.tracking.record import schema
from timetrial.tracking.report import exports
from timetrial.tracking.report.leaderboard import leaderboard_table, leaderboard_text
from timetrial.tracking.report.standings import CONTROL, R_MAX
from timetrial.tracking.scores import algoperf
from timetrial.tracking.scores.algoperf_rules import ALIASES, RULES, Rules
from timetrial.tracking.scores.machines import check_one_machine, suspect

PAPER: Final = "paper"
"""Name of the paper's rules, and of its targets."""

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


def rules_named(name: str) -> tuple[str, Rules | None]:
    """Full name of some rules, and AlgoPerf's rules of that name; None for the paper's.

    Raises:
        UserError: unknown name.
    """
    full = ALIASES.get(name, name)
    if full != PAPER and full not in RULES:
        known = [PAPER, "algoperf", *RULES]
        near = difflib.get_close_matches(name, [*known, *ALIASES], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"rules: expected one of {', '.join(known)}, got {name!r}{hint}")
    return full, RULES.get(full)


def paper_rules_text(r_max: float | None) -> str:
    """The paper's rules in words, with their own r_max or a given one."""
    own = " and ".join(f"{limit:g} ({CONTROL[Condition(c)]})" for c, limit in R_MAX.items())
    return (
        f"{PAPER}, r_max {own}" if r_max is None else f"{PAPER}, r_max {r_max:g} instead of {own}"
    )


def rules_text(name: str, rules: Rules, scored: Rules) -> str:
    """AlgoPerf's rules in words.

    Args:
        name: full name of the rules.
        rules: the rules of that name.
        scored: the rules that were used; they may have another r_max and other workloads.
    """
    number = len(scored.workloads or ())
    parts = [name, f"{number} base workloads" if number else "all workloads that were run"]
    if scored.workloads != rules.workloads:
        parts[1] = (
            f"none of its base workloads was run: {', '.join(scored.workloads or ())} instead"
        )
    own = "the largest finite ratio" if rules.r_max is None else f"{rules.r_max:g}"
    given = "" if scored.r_max == rules.r_max else f"{scored.r_max:g} instead of "
    parts.append(f"r_max {given}{own}")
    if scored.cutoff is not None:
        parts.append(f"times beyond {scored.cutoff:g} times the best count as never")
    return ", ".join(parts)


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
        check_one_machine(timed, beside=records)
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


def print_leaderboard(found: Leaderboard, name: str) -> None:
    """Prints shortfalls, scores and times to target; ``name``: full name of the rules."""
    for line in found.shortfalls:
        print(f"missing  {line}")
    if line := _unplayed(found, name):
        print(f"note     {line}")
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
    with write_errors(f"to {directory}"):
        times = files["leaderboard_times.csv"].encode()  # ``report --from`` reads it
        line = digest_line("leaderboard_times.csv", times)
        files["leaderboard_times.csv.sha256"] = line.decode()
        for name, text in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / name, masked(text).encode())


def _unplayed(found: Leaderboard, name: str) -> str:
    """Base workloads without any run, the limit that they set, and rules that need none of them."""
    bases = found.rules.workloads or ()
    missing = [workload for workload in bases if workload not in found.times]
    if not missing:
        return ""
    line = (
        f"nobody ran {', '.join(missing)}: no score can exceed "
        f"{len(bases) - len(missing)}/{len(bases)}"
    )
    own = name.endswith("-self")
    others = (
        other
        for other, rules in RULES.items()
        if rules.workloads
        and set(rules.workloads) <= set(found.times)
        and other.endswith("-self") == own
    )
    other = next(others, "")
    return f"{line}; --rules {other} needs none of them" if other else line


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
