"""Given targets: the paper's, AlgoPerf's, or those of a file.

Boundary: reads small tables; ``tracking.scores.targets`` establishes targets from runs.

Sources: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (Table 6); AlgoPerf's targets as told in ``algoperf_workloads``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

import pandas as pd

from timetrial.framework.errors import UserError
from timetrial.framework.paths import user_path
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Split
from timetrial.tracking.record import schema
from timetrial.tracking.record.tables import read_checked, read_table
from timetrial.tracking.scores.algoperf_workloads import ALGOPERF_VALIDATION
from timetrial.tracking.scores.targets import CONDITIONS, SPLITS

_HINT = "; expected paper, algoperf, or a CSV or JSON file"

Targets = Mapping[tuple[Condition, Split], "pd.Series[float]"]
"""Targets by condition and split: each a series with index workload, name ``target``."""


def named_targets(name: str) -> Targets:
    """Every target of ``paper``, ``algoperf`` or a file, by condition and split.

    A CSV file has a column ``workload`` and either a column ``target`` (and ``condition`` and
    ``split`` where targets differ by these) or columns ``train_target``, ``validation_target``,
    ``test_target``. Comments start with ``#``. A JSON file is AlgoPerf's
    (``workload_targets.json``), or maps workloads to numbers. Without splits, targets are for
    validation; without conditions, for both.

    Raises:
        UserError: the file cannot be read, has other columns, two targets for one workload, or
            none at all.
    """
    if name == "algoperf":
        return {(condition, Split.VALIDATION): algoperf_targets() for condition in CONDITIONS}
    where = "the paper's Table 6" if name == "paper" else f"targets {name}"
    table = _paper_table() if name == "paper" else _read_table(user_path(name))
    conditions = [
        c for c in CONDITIONS if "condition" not in table or (table["condition"] == c).any()
    ]
    found = {
        (condition, split): _chosen(table, condition, split, where)
        for condition in conditions
        for split in _splits_in(table)
    }
    if not any(len(series) for series in found.values()):
        raise UserError(f"{where}: expected at least one target, got none")
    return found


def give_targets(
    records: Iterable[RunRecord], targets: Targets, source: str = "given"
) -> list[RunRecord]:
    """The records, each with the targets of its workload in its tags, unless it has its own.

    ``tracking.scores.targets.target_table`` takes such a target instead of establishing one, and
    shows ``source`` as its setter.
    """
    given = []
    for record in records:
        tags = {
            f"{schema.GIVEN_TARGET}{split}": repr(float(series[record.workload]))
            for (condition, split), series in targets.items()
            if condition == record.condition and record.workload in series
        }
        if tags:
            tags = {schema.TARGET_SOURCE: source, **tags, **record.tags}
            record = dataclasses.replace(record, tags=tags)
        given.append(record)
    return given


def without_targets(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The records without given targets, so that the runs themselves set them."""
    return [
        dataclasses.replace(
            record,
            tags={k: v for k, v in record.tags.items() if not k.startswith(schema.GIVEN_TARGET)},
        )
        for record in records
    ]


def paper_targets(condition: Condition, split: Split) -> pd.Series[float]:
    """The targets of the paper's Table 6.

    Args:
        condition: ``time`` or ``step``.
        split: ``train`` or ``validation``.

    Returns:
        Index workload (sorted), name ``target``.
    """
    return _chosen(_paper_table(), condition, split, "the paper's Table 6")


def algoperf_targets() -> pd.Series[float]:
    """AlgoPerf's validation targets: index workload (sorted), name ``target``."""
    return pd.Series(ALGOPERF_VALIDATION, name="target").rename_axis("workload").sort_index()


def _paper_table() -> pd.DataFrame:
    with (resources.files("timetrial.tracking") / "paper" / "targets.csv").open() as file:
        return pd.read_csv(file)


def _read_table(path: Path) -> pd.DataFrame:
    if path.suffix != ".json":
        return read_table(path, f"targets {path}", _HINT, comment="#")
    try:
        return _json_table(
            json.loads(read_checked(path, f"targets {path}", hint=_HINT).decode("utf-8-sig"))
        )
    except (ValueError, RecursionError) as error:
        raise UserError(f"targets {path}: no table of targets: {error}") from error


def _json_table(tree: object) -> pd.DataFrame:
    """AlgoPerf's targets per split, or one number per workload."""
    json.dumps(tree, ensure_ascii=False).encode()  # a ValueError for half of a surrogate pair
    if not isinstance(tree, dict):
        raise ValueError("expected an object of workloads and numbers")
    if not isinstance(tree.get("workloads"), dict):
        targets = pd.Series(list(tree.values()), dtype=object)  # also numbers that fit no float
        return pd.DataFrame({"workload": list(tree), "target": targets})
    rows = [
        (name, split, spec[f"{split}_target_value"])
        for name, spec in tree["workloads"].items()
        for split in SPLITS
        if isinstance(spec, dict) and f"{split}_target_value" in spec
    ]
    return pd.DataFrame(rows, columns=["workload", "split", "target"])


def _splits_in(table: pd.DataFrame) -> list[Split]:
    if "split" in table:
        return [split for split in SPLITS if (table["split"] == split).any()]
    if "target" in table:
        return [Split.VALIDATION]
    return [split for split in SPLITS if f"{split}_target" in table] or [Split.VALIDATION]


def _chosen(
    table: pd.DataFrame, condition: Condition, split: Split, where: str
) -> pd.Series[float]:
    for name, value, allowed in (("condition", condition, CONDITIONS), ("split", split, SPLITS)):
        if value not in allowed:
            raise UserError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
        if name in table:
            table = table[table[name] == value]
    column = "target" if "target" in table else f"{split}_target"
    if "workload" not in table or column not in table:
        raise UserError(
            f"{where}: expected columns workload and target (or {split}_target), got "
            f"{', '.join(map(str, table.columns))}"
        )
    found = table.set_index("workload")[column]
    if not found.index.is_unique:
        twice = sorted(set(map(str, found.index[found.index.duplicated()])))
        raise UserError(f"{where}: expected one target per workload, got more for {twice}")
    try:
        series = found.astype(float).dropna().rename("target").sort_index()
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: expected numbers, got {str(error)[:200]}") from error
    if infinite := [str(name) for name, value in series.items() if math.isinf(value)]:
        raise UserError(f"{where}: expected finite targets, got inf for {infinite[0]}")
    return series
