"""How long finished runs took, from journals and MLflow.

Boundary: reads; ``bench`` predicts with it how long further runs take.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from timetrial.framework.types import Condition, Status
from timetrial.tracking.read.sources import is_about_runs, journal_id, missing_tags
from timetrial.tracking.record import schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import journals_in
from timetrial.tracking.record.lines import parse, read_lines
from timetrial.tracking.store.errors import store_errors
from timetrial.tracking.store.listing import all_runs
from timetrial.tracking.store.opening import Store


@dataclasses.dataclass(frozen=True)
class Length:
    """The wall time of one finished run.

    Attributes:
        experiment: name of its experiment; "" if unknown.
        digest: identity of its configuration; "" if unknown.
        workload, optimizer: registry name and label.
        condition: kind of the budget.
        budget: limit of the budget, in steps or seconds.
        wall_seconds: time of the whole run, > 0.
        config: flat configuration, as strings.
    """

    experiment: str
    digest: str
    workload: str
    optimizer: str
    condition: Condition
    budget: float
    wall_seconds: float
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_lengths(store: Store) -> list[Length]:
    """The lengths of the finished runs of all experiments of a store and its root.

    Left out are runs that diverged or were continued: they tell no length of a whole run.

    Raises:
        TrackingError: the store fails.
    """
    found: list[Length] = []
    here: set[str] = set()
    for path in journals_in(store.root):
        try:
            lines = read_lines(path)
            ends = [line for line in lines if line.startswith(b'{"kind": "end"')]
            head = parse(path, 1, lines[0])
            here.add(str(head.get("journal_id", "")))
            if ends:
                found += _of_journal(head, parse(path, 0, ends[0]))
        except (TrackingError, KeyError, TypeError, ValueError, AttributeError):
            continue  # another reader names damaged journals
    with store_errors(store.uri):
        experiments = store.client.search_experiments()
        names = {str(one.experiment_id): str(one.name) for one in experiments}
        finished = f"attributes.status = '{Status.FINISHED}'"
        for run in all_runs(store, list(names), finished):
            if journal_id(run.data.tags) not in here:
                name = names.get(str(run.info.experiment_id), "")
                found += _length(name, run.data.tags, run.data.params, run.data.metrics)
    return found


def _of_journal(head: Mapping[str, Any], end: Mapping[str, Any]) -> list[Length]:
    if end["status"] != Status.FINISHED:
        return []
    tags = {**head["tags"], **end["tags"]}
    return _length(head["experiment"], tags, head["params"], end["summary"])


def _length(
    experiment: str,
    tags: Mapping[str, str],
    config: Mapping[str, str],
    summary: Mapping[str, Any],
) -> list[Length]:
    """The length of a run in a list; an empty list if it has none."""
    partial = tags.get(schema.DIVERGED) == "true" or schema.RESUMED_AT in tags
    if partial or is_about_runs(tags) or missing_tags(tags) or schema.WALL_SECONDS not in summary:
        return []
    try:
        seconds, budget = float(summary[schema.WALL_SECONDS]), float(tags[schema.BUDGET])
        condition = Condition(tags[schema.CONDITION])
    except ValueError:
        return []
    if not (0 < seconds < math.inf and 0 < budget < math.inf):
        return []
    return [
        Length(
            experiment,
            tags.get(schema.CONFIG_HASH, ""),
            tags[schema.WORKLOAD],
            tags[schema.OPTIMIZER],
            condition,
            budget,
            seconds,
            dict(config),
        )
    ]
