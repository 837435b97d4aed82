"""Runs that shared cores or a GPU of one machine at the same time.

Pure: reads the tags of ``RunRecord``s.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from timetrial.framework.machine import cores_in
from timetrial.framework.records import RunRecord
from timetrial.tracking.record import schema

_LISTED: Final = 3  # pairs that are named


@dataclasses.dataclass(frozen=True)
class Use:
    """What a run used of a machine, and when.

    Attributes:
        record: the run.
        judged: whether its seconds are to be compared.
        cores: numbers of its cores.
        gpus: UUIDs of its GPUs.
        process: identity of its process.
        interval: start and end in ms since 1970; None if unknown. Of a continued run, that of its
            last part, which its other tags describe.
    """

    record: RunRecord
    judged: bool
    cores: frozenset[int]
    gpus: frozenset[str]
    process: tuple[str | None, ...]
    interval: tuple[int, int] | None

    @property
    def name(self) -> str:
        """The run in words."""
        run = self.record
        return f"{run.workload} {run.optimizer} seed {run.seed}"


def overlaps(
    records: Iterable[RunRecord], beside: Iterable[RunRecord] = ()
) -> dict[str, list[str]]:
    """By workload, pairs of its runs with others that shared cores or a GPU at the same time.

    Runs without a recorded affinity, of earlier versions, are never among them. Where the times of
    a run are unknown, runs of different processes count as simultaneous if both say so themselves
    (tag ``concurrent_runs``).

    Args:
        records: runs whose seconds are to be compared, of any workloads.
        beside: further runs, which may have disturbed them; it may hold the same ones.
    """
    uses = {record.run_id: _use(record, judged=True) for record in records}
    for record in beside:
        uses.setdefault(record.run_id, _use(record, judged=False))
    machines: dict[str, list[Use]] = {}
    for use in uses.values():
        machine = use.record.tags.get(schema.BOOT) or use.record.tags.get(schema.HOST)
        if machine and (use.cores or use.gpus):
            machines.setdefault(machine, []).append(use)
    found: dict[str, list[str]] = {}
    for here in machines.values():
        for one, other in itertools.chain(_timed(here), _said(here)):
            text = f"{one.name} and {other.name} on {one.record.tags.get(schema.HOST, '')}"
            for workload in {use.record.workload for use in (one, other) if use.judged}:
                found.setdefault(workload, []).append(text)
    return {workload: _shortened(pairs) for workload, pairs in sorted(found.items())}


def _use(record: RunRecord, *, judged: bool) -> Use:
    tags = record.tags
    times = [tags.get(key, "") for key in (schema.STARTED_MS, schema.ENDED_MS)]
    known = all(text.isascii() and text.isdigit() and len(text) < 19 for text in times)
    return Use(
        record=record,
        judged=judged,
        cores=cores_in(tags.get(schema.CPU_AFFINITY, "")),
        gpus=frozenset(filter(None, tags.get(schema.GPU_UUID, "").split(","))),
        process=tuple(
            tags.get(key) for key in (schema.PID_NAMESPACE, schema.PID, schema.PROCESS_START)
        ),
        interval=(int(times[0]), int(times[1])) if known else None,
    )


def _timed(uses: Iterable[Use]) -> Iterator[tuple[Use, Use]]:
    """Pairs whose times are known and overlap."""
    known = [(use.interval, use) for use in uses if use.interval is not None]
    running: list[tuple[int, Use]] = []  # ends of runs that started before
    for (start, end), use in sorted(known, key=lambda item: item[0]):
        running = [(last, other) for last, other in running if last > start]
        yield from ((other, use) for _, other in running if _disturb(other, use))
        running.append((end, use))


def _said(uses: Iterable[Use]) -> Iterator[tuple[Use, Use]]:
    """Pairs of different processes that say they were not alone, with unknown times."""
    told = [use for use in uses if use.record.tags.get(schema.CONCURRENT_RUNS, "1") != "1"]
    for one, other in itertools.combinations(told, 2):
        unknown = one.interval is None or other.interval is None
        if unknown and one.process != other.process and _disturb(one, other):
            yield one, other


def _disturb(one: Use, other: Use) -> bool:
    """True when two runs share something, and the seconds of one matter."""
    matters = one.judged or other.judged
    return matters and bool(one.cores & other.cores or one.gpus & other.gpus)


def _shortened(pairs: list[str]) -> list[str]:
    """The first pairs, and how many more there are."""
    more = len(pairs) - _LISTED
    return pairs if more <= 0 else [*pairs[:_LISTED], f"{more} more"]
