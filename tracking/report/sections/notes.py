"""Notes on the scores: limits, missing conditions, gaps, mixed hardware.

Pure: from runs and standings to sentences.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text
from timetrial.tracking.report.standings import CONTROL, Standing, refused
from timetrial.tracking.report.summary import left_out_text
from timetrial.tracking.scores.machines import AT_ONCE, differences, left_out
from timetrial.tracking.scores.targets import CONDITIONS, trials
from timetrial.tracking.scores.uncertainty import ENOUGH_TRIALS

_LISTED: Final = 6  # results from few seeds that are named


def section(results: Results) -> Section:
    """What a score is, then the notes on these."""
    if results.published:
        more = (
            "The paper prints medians and means of 3 trials without the trials, so there are no "
            "intervals."
        )
    else:
        more = (
            f"Below each number stands its interval over seeds, nominally {results.level_text}; † "
            "marks numbers from fewer than 3 seeds, “tie” a shared first place. Each table says "
            "how often its intervals cover the truth."
        )
    score = Markup(
        "The score measures how close an optimizer comes to the fastest: 1.00 means fastest to "
        "the target on every workload, 0.00 means never within a factor r<sub>max</sub> of the "
        f"fastest. {more}"
    )
    lines = [score, *notes(results.records, results.standings)]
    return Section(
        name="notes",
        title="Notes on the scores",
        menu="Notes",
        blocks=[Text(line, "note") for line in lines],
    )


def notes(records: Sequence[RunRecord], found: Sequence[Standing]) -> list[str]:
    """Limits, missing conditions, targets never reached, gaps, few seeds, mixed hardware."""
    limits = " ".join(filter(None, (_limit(records, found, c) for c in CONDITIONS)))
    suspects = left_out(records)
    lines = [limits, left_out_text(suspects) if suspects else "", *map(_unreached, found)]
    lines += [_gaps(found), _few(records), _machines(records)]
    return [line for line in lines if line]


def _limit(records: Sequence[RunRecord], found: Sequence[Standing], condition: Condition) -> str:
    """The r_max of a condition, or the reason why it has no scores."""
    control = CONTROL[condition]
    limits = {s.r_max for s in found if s.condition == condition}
    if limits:
        return f"Under {control}, r_max is {min(limits):g}."
    if mixed := refused(records, condition):
        workload, tags = next(iter(mixed.items()))
        machines = "; ".join(f"{tag}: {', '.join(values)}" for tag, values in tags.items())
        how = "at once on one machine" if set(tags) == {AT_ONCE} else "on different machines"
        return (
            f"There are no scores under {control}: runs of {workload} were timed {how} "
            f"({machines}) and their seconds are not comparable; --mixed-machines compares them "
            "anyway."
        )
    return f"There are no runs under {control}." if records else ""


def _unreached(standing: Standing) -> str:
    """Workloads whose target no optimizer reaches."""
    nobody = [str(w) for w in standing.times if not (standing.times[w] < math.inf).any()]
    if not nobody:
        return ""
    return (
        f"No optimizer reaches the {standing.split} target of {', '.join(nobody)} under "
        f"{CONTROL[standing.condition]}; it stays in the denominator of the score."
    )


def _gaps(found: Sequence[Standing]) -> str:
    """Optimizers without a counted run on some workload."""
    gaps = sorted({name for s in found for name in s.times.index[s.times.isna().any(axis=1)]})
    if not gaps:
        return ""
    return (
        f"Provisional: {', '.join(gaps)} {'has' if len(gaps) == 1 else 'have'} workloads without "
        "a counted run; they score as never reached."
    )


def _few(records: Sequence[RunRecord]) -> str:
    """Results from one or two seeds."""
    seeds = Counter(
        (run.condition, run.workload, run.optimizer)
        for condition in CONDITIONS
        for run in trials(records, condition=condition)
    )
    few = [
        f"{optimizer} on {workload} ({CONTROL[condition]})"
        for (condition, workload, optimizer), number in seeds.items()
        if number < ENOUGH_TRIALS
    ]
    more = f" and {len(few) - _LISTED} more" if len(few) > _LISTED else ""
    return f"Fewer than {ENOUGH_TRIALS} seeds: {'; '.join(few[:_LISTED])}{more}." if few else ""


def _machines(records: Sequence[RunRecord]) -> str:
    found = {tag for tags in differences(records).values() for tag in tags}
    causes = ["come from different machines"] if found - {AT_ONCE} else []
    causes += ["shared cores or GPUs at the same time"] if AT_ONCE in found else []
    if not causes:
        return ""
    return f"The runs {' and '.join(causes)}: their seconds are not comparable."
