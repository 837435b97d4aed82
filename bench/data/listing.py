"""``timetrial data list``: the full-size data sets, what is there and what is missing.

Boundary: text only; needs no extra.
"""

from __future__ import annotations

from pathlib import Path

from timetrial.workloads.data.catalogue import DATA_SETS, DataSet, free_space, size_text
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.libraries import missing_libraries


def listing(root: Path) -> str:
    """A table of all data sets, then the commands for what is missing."""
    head = ("data set", "state", "size", "examples", "sample", "left out")
    rows = [head, *(_row(data, root) for data in DATA_SETS.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    place = f"in {root} ({size_text(free_space(root))} free; another directory: $TIMETRIAL_DATA)"
    return "\n\n".join(["\n".join([place, "", table]), *_remedies(root)])


def _row(data: DataSet, root: Path) -> tuple[str, ...]:
    there = size_text(data.size(root))
    try:
        manifests = data.manifests(root)
        examples = ", ".join(f"{split} {n:,}" for split, n in data.examples(root).items())
    except DataError:
        if data.is_begun(root):
            return data.workload, "unfinished", there, "-", "-", "-"
        return data.workload, "missing", "-", "-", "-", "-"
    sample = "yes" if any(manifest.sample for manifest in manifests) else "no"
    skipped = str(sum(len(manifest.skipped) for manifest in manifests))
    return data.workload, "prepared", there, f"{examples} {data.unit}", sample, skipped


def _remedies(root: Path) -> list[str]:
    """What to do about missing data sets and libraries."""
    missing = [data for data in DATA_SETS.values() if not data.is_prepared(root)]
    if not missing:
        return []
    lines = ["to prepare what is missing (each says first what it needs):"]
    lines += [f"  timetrial data prepare {data.workload} --source DIR" for data in missing]
    texts = ["\n".join(lines)]
    if lacking := missing_libraries():
        texts.append(f"first: pip install 'timetrial[data]' (not installed: {', '.join(lacking)})")
    return texts
