"""Checks that runs were timed alike: on one machine, under one calibration.

Pure: reads the tags of ``RunRecord``s. Seconds from different machines do not say which optimizer
is faster; steps and final metrics stay comparable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.tracking.record import schema

MACHINE_TAGS: Final = (
    schema.CALIBRATION,
    schema.DEVICE_PLATFORM,
    schema.DEVICE_KIND,
    schema.DEVICE_COUNT,
    schema.HOST_CPU,
    schema.HOST_CORES,
    schema.HOST,
)
"""Tags that tell machines and calibrations apart; a missing tag is ignored."""


class MixedMachinesError(UserError):
    """Seconds of runs from different machines or calibrations cannot be compared."""


def differences(records: Iterable[RunRecord]) -> dict[str, dict[str, list[str]]]:
    """By workload, the machine tags whose values differ between its runs, and those values.

    Only runs of one workload are compared, so that the workloads of a suite may run on several
    machines.
    """
    values: dict[str, dict[str, set[str]]] = {}
    for record in records:
        found = values.setdefault(record.workload, {})
        for tag in MACHINE_TAGS:
            if record.tags.get(tag):
                found.setdefault(tag, set()).add(record.tags[tag])
        compiled = record.tags.get(schema.UNCOMPILED, "false")
        found.setdefault(schema.UNCOMPILED, set()).add(compiled)
    names = (*MACHINE_TAGS, schema.UNCOMPILED)
    mixed = {
        workload: {tag: sorted(found[tag]) for tag in names if len(found.get(tag, ())) > 1}
        for workload, found in sorted(values.items())
    }
    return {workload: tags for workload, tags in mixed.items() if tags}


def check_one_machine(records: Iterable[RunRecord]) -> None:
    """Refuses runs whose seconds are not comparable.

    Raises:
        MixedMachinesError: runs of one workload come from different machines or calibrations.
    """
    mixed = differences(records)
    if not mixed:
        return
    workload, tags = next(iter(mixed.items()))
    listed = "; ".join(f"{tag}: {' / '.join(values)}" for tag, values in tags.items())
    more = f" (and {len(mixed) - 1} more workloads)" if len(mixed) > 1 else ""
    raise MixedMachinesError(
        f"{workload}{more}: expected runs timed on one machine under one calibration, got "
        f"{listed}; compare them by steps, or accept that seconds differ by machine "
        "(mixed_machines=True, --mixed-machines)"
    )
