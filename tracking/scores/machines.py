"""Checks that runs were timed alike: one kind of machine, one calibration, none of them disturbed.

Pure: reads the tags of ``RunRecord``s. Seconds from different machines, or from a busy one, do not
say which optimizer is faster; steps stay comparable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final

from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Status
from timetrial.tracking.record import schema
from timetrial.tracking.scores.overlaps import overlaps

MACHINE_TAGS: Final = (
    schema.CALIBRATION,
    schema.DEVICE_PLATFORM,
    schema.DEVICE_KIND,
    schema.DEVICE_COUNT,
    schema.HOST_CPU,
    schema.HOST_CORES,
    schema.POOL,
    schema.POOL_STEP_SECONDS,
)
"""Tags that tell kinds of machines, pools and calibrations apart; a missing tag is ignored.

The host's name is none of them: nodes of one kind are alike. Beside runs of a pool it counts for
runs without one, see ``differences``.
"""

AT_ONCE: Final = "runs at once on the same cores or GPU"
"""Name of the difference between runs that disturbed each other."""


class MixedMachinesError(UserError):
    """Seconds of runs from different machines or calibrations cannot be compared."""


def differences(
    records: Iterable[RunRecord], beside: Iterable[RunRecord] = ()
) -> dict[str, dict[str, list[str]]]:
    """By workload, the machine tags whose values differ between its runs, and those values.

    Only runs of one workload are compared, so that the workloads of a suite may run on several
    machines. A run without a pool counts beside runs of a pool if its host is one of theirs: others
    were never admitted. Runs that ``overlaps`` returns differ, too, under the name ``AT_ONCE``.

    Args:
        records: runs whose seconds are to be compared.
        beside: further runs, which may have disturbed them; it may hold the same ones.
    """
    records = list(records)
    values: dict[str, dict[str, set[str]]] = {}
    for record in records:
        found = values.setdefault(record.workload, {})
        for tag in MACHINE_TAGS:
            if record.tags.get(tag):
                found.setdefault(tag, set()).add(record.tags[tag])
        compiled = record.tags.get(schema.UNCOMPILED, "false")
        found.setdefault(schema.UNCOMPILED, set()).add(compiled)
    for workload, outside in _outside_of_pools(records).items():
        values[workload][schema.POOL] |= {f"none (host {host})" for host in outside}
    names = (*MACHINE_TAGS, schema.UNCOMPILED)
    mixed = {
        workload: {tag: sorted(found[tag]) for tag in names if len(found.get(tag, ())) > 1}
        for workload, found in sorted(values.items())
    }
    for workload, pairs in overlaps(records, beside).items():
        mixed[workload][AT_ONCE] = pairs
    return {workload: tags for workload, tags in mixed.items() if tags}


def _outside_of_pools(records: Iterable[RunRecord]) -> dict[str, set[str]]:
    """By workload with a pool: hosts of runs without one, less the hosts of the pool."""
    inside: dict[str, set[str]] = {}
    outside: dict[str, set[str]] = {}
    for record in records:
        hosts = inside if record.tags.get(schema.POOL) else outside
        found = hosts.setdefault(record.workload, set())
        found.update(filter(None, [record.tags.get(schema.HOST)]))
    return {workload: outside.get(workload, set()) - hosts for workload, hosts in inside.items()}


def check_one_machine(records: Iterable[RunRecord], beside: Iterable[RunRecord] = ()) -> None:
    """Refuses runs whose seconds are not comparable; arguments as for ``differences``.

    Raises:
        MixedMachinesError: runs of one workload come from different machines, pools or
            calibrations, or disturbed each other.
    """
    mixed = differences(records, beside)
    if not mixed:
        return
    workload, tags = next(iter(mixed.items()))
    listed = "; ".join(f"{tag}: {' / '.join(values)}" for tag, values in tags.items())
    more = f" (and {len(mixed) - 1} more workloads)" if len(mixed) > 1 else ""
    raise MixedMachinesError(
        f"{workload}{more}: expected runs timed on one machine or pool, one after the other on the "
        "same cores and GPUs, under one calibration, got "
        f"{listed}; compare them by steps, or accept that seconds differ by machine "
        "(mixed_machines=True, --mixed-machines)"
    )


def suspect(record: RunRecord) -> bool:
    """True for a run under time control whose seconds are not credible.

    A diverged run is a result at any speed of the machine.
    """
    timed = record.condition == Condition.TIME and record.reason != "DIVERGED"
    return timed and bool(record.tags.get(schema.SECONDS_SUSPECT))


def left_out(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Suspect runs that scores leave out and no credible run of the same seed replaces."""
    records = list(records)
    replaced = {_key(r) for r in records if r.status == Status.FINISHED and not suspect(r)}
    return [r for r in records if suspect(r) and _key(r) not in replaced]


def with_suspect(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs, without the mark on those that ``left_out`` returns: scores then count them."""
    pardoned = {id(record) for record in left_out(records)}
    return [_unmarked(record) if id(record) in pardoned else record for record in records]


def _unmarked(record: RunRecord) -> RunRecord:
    tags = {key: value for key, value in record.tags.items() if key != schema.SECONDS_SUSPECT}
    return dataclasses.replace(record, tags=tags)


def _key(record: RunRecord) -> tuple[str, str, str, int]:
    return (record.condition, record.workload, record.optimizer, record.seed)
