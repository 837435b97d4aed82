"""All evaluations of a run in one small JSON file, an artifact beside its metric histories.

Boundary: text in, text out. It holds nothing that the histories do not hold as well, but is read
in one go: MLflow gives out one history per metric and run, which takes minutes for 1,000 runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

from timetrial.framework.records import Row
from timetrial.tracking.record import schema


class Evaluations:
    """Puts the evaluations of a run together from its rows; later values replace earlier ones."""

    def __init__(self) -> None:
        self._by_step: dict[int, tuple[float, dict[str, float]]] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Takes what belongs to evaluations from rows, in order of logging."""
        for row in rows:
            found = {k: v for k, v in row.metrics.items() if k.startswith(schema.EVAL_PREFIXES)}
            if found:
                _, metrics = self._by_step.get(row.step, (0.0, {}))
                self._by_step[row.step] = row.train_seconds, {**metrics, **found}

    def in_order(self) -> list[Row]:
        """The evaluations in order of step."""
        return [
            Row(step, seconds, metrics)
            for step, (seconds, metrics) in sorted(self._by_step.items())
        ]


def encode(evaluations: Sequence[Row]) -> str:
    """Evaluations as standard JSON; what is not finite is null, as it is nan once read back."""
    records = [
        {
            "step": e.step,
            "train_seconds": e.train_seconds,
            "metrics": {k: v if math.isfinite(v) else None for k, v in e.metrics.items()},
        }
        for e in evaluations
    ]
    return json.dumps(records, allow_nan=False)


def decode(text: str) -> list[Row]:
    """Evaluations from what ``encode`` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        return [
            Row(
                step=int(record["step"]),
                train_seconds=float(record["train_seconds"]),
                metrics={
                    key: math.nan if value is None else float(value)
                    for key, value in record["metrics"].items()
                },
            )
            for record in json.loads(text)
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no list of evaluations: {text[:60]!r}") from error
