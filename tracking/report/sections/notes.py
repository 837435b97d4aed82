"""What a reader of the scores must know: limits, absent conditions, gaps, mixed hardware.

Pure: from runs and standings to sentences.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from timetrial.framework.records import RunRecord
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text
from timetrial.tracking.report.standings import CONTROL, Standing, refused
from timetrial.tracking.scores.targets import CONDITIONS, trials


def section(results: Results) -> Section:
    """What a score is, then what is special about these."""
    if results.published:
        more = (
            "The paper prints medians and means of 3 trials, not the trials: no intervals can be "
            "made."
        )
    else:
        more = (
            f"Below each number is its {results.level_text} bootstrap interval over seeds; † marks "
            "numbers on fewer than 3 seeds, “tie” shared first places. Three seeds have ten "
            "distinct resamples: read intervals on so few as “at least so uncertain”."
        )
    score = Markup(
        "A score says how often, and by how much, an optimizer is close to the fastest: 1.00 is "
        "the fastest to the target on every workload, 0.00 is never within a factor "
        f"r<sub>max</sub> of the fastest. {more}"
    )
    lines = [score, *notes(results.records, results.standings)]
    return Section(name="notes", title="", blocks=[Text(line, "note") for line in lines])


def notes(records: Sequence[RunRecord], found: Sequence[Standing]) -> list[str]:
    """What a reader of the scores must know: limits, absent conditions, gaps, mixed hardware."""
    lines = []
    for condition in CONDITIONS:
        limits = {s.r_max for s in found if s.condition == condition}
        if limits:
            lines.append(f"Under {CONTROL[condition]}, r_max is {min(limits):g}.")
        elif mixed := refused(records, condition):
            workload, tags = next(iter(mixed.items()))
            listed = "; ".join(f"{tag}: {', '.join(values)}" for tag, values in tags.items())
            lines.append(
                f"There are no scores under {CONTROL[condition]}: runs of {workload} were timed on "
                f"different machines ({listed}) and their seconds are not comparable; "
                "--mixed-machines compares them all the same."
            )
        elif records:
            lines.append(f"There are no runs under {CONTROL[condition]}: nothing is said about it.")
    if lines:
        lines = [" ".join(lines)]
    for standing in found:
        nobody = [str(w) for w in standing.times if not (standing.times[w] < math.inf).any()]
        if nobody:
            lines.append(
                f"Nobody reaches the {standing.split} target of {', '.join(nobody)} under "
                f"{CONTROL[standing.condition]}; it stays in the denominator of the score."
            )
    gaps = sorted({name for s in found for name in s.times.index[s.times.isna().any(axis=1)]})
    if gaps:
        lines.append(
            f"Provisional: {', '.join(gaps)} {'has' if len(gaps) == 1 else 'have'} workloads "
            "without any run that counts; these score as never reached."
        )
    few = _few(records)
    if few:
        more = f" and {len(few) - 6} more" if len(few) > 6 else ""
        lines.append(f"Fewer than 3 seeds: {'; '.join(few[:6])}{more}.")
    kinds = {r.tags["device_kind"] for r in records if r.tags.get("device_kind")}
    hosts = {r.tags["host"] for r in records if r.tags.get("host")}
    if len(kinds) > 1 or len(hosts) > 1:
        lines.append("The runs come from different machines: their seconds are not comparable.")
    return lines


def _few(records: Sequence[RunRecord]) -> list[str]:
    """Results that rest on one or two seeds."""
    seeds = Counter(
        (run.condition, run.workload, run.optimizer)
        for condition in CONDITIONS
        for run in trials(records, condition=condition)
    )
    return [
        f"{optimizer} on {workload} ({CONTROL[condition]})"
        for (condition, workload, optimizer), number in seeds.items()
        if number < 3
    ]
