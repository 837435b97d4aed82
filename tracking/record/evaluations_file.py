"""Evaluations of a run in one small JSON file, an artifact beside its metric histories.

Boundary: text in, text out. The metric histories hold the same values, but MLflow returns one
history per metric and run: minutes for 1,000 runs. The file is one request per run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from typing import Final

from timetrial.framework.records import Row
from timetrial.tracking.record import schema

_HEAD: Final = '{"sha256": '


def is_evaluation(row: Row) -> bool:
    """True for a row with evaluated metrics."""
    return any(key.startswith(schema.EVAL_PREFIXES) for key in row.metrics)


def evaluations_in(rows: Iterable[Row]) -> list[Row]:
    """The evaluations of a run in order of step, from its rows.

    Later values of a step replace earlier ones.
    """
    by_step: dict[int, Row] = {}
    for row in rows:
        found = {k: v for k, v in row.metrics.items() if k.startswith(schema.EVAL_PREFIXES)}
        if found:
            before = by_step[row.step].metrics if row.step in by_step else {}
            by_step[row.step] = Row(row.step, row.train_seconds, {**before, **found})
    return [by_step[step] for step in sorted(by_step)]


def encode(evaluations: Sequence[Row]) -> str:
    """Evaluations as standard JSON; values that are not finite become null."""
    records = [
        {
            "step": e.step,
            "train_seconds": e.train_seconds,
            "metrics": {k: v if math.isfinite(v) else None for k, v in e.metrics.items()},
        }
        for e in evaluations
    ]
    text = json.dumps(records, allow_nan=False)
    return f'{_HEAD}"{_digest(text)}", "evaluations": {text}}}'


def decode(text: str) -> list[Row]:
    """Evaluations from the text of ``encode``; null becomes nan.

    Files of earlier versions, a list without a checksum, are read too.

    Raises:
        ValueError: the text has another format, or other characters than those written.
    """
    try:
        records = json.loads(text)
        json.dumps(records, ensure_ascii=False).encode()  # a ValueError for half of a pair
        if isinstance(records, dict):
            records = records["evaluations"]
            if text != f'{_HEAD}"{_digest(_list_in(text))}", "evaluations": {_list_in(text)}}}':
                raise ValueError("evaluations: expected those that were written, got others")
        elif not isinstance(records, list):
            raise TypeError
        return [
            Row(
                step=int(record["step"]),
                train_seconds=float(record["train_seconds"]),
                metrics={
                    key: math.nan if value is None else float(value)
                    for key, value in record["metrics"].items()
                },
            )
            for record in records
        ]
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no list of evaluations: {text[:60]!r}") from error


def _list_in(text: str) -> str:
    return text.partition('"evaluations": ')[2][:-1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
