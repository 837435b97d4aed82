"""Small files in the raw layouts of the full-size data sets, from a seed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from timetrial.workloads.data.libraries import missing_libraries

needs_data = pytest.mark.skipif(
    bool(missing_libraries()),
    reason=f"needs the extra [data]; missing: {', '.join(missing_libraries())}",
)


def criteo_lines(rows: int, seed: int) -> list[str]:
    """Lines of a day: labels, integers (some missing or negative), categories (some missing)."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        integers = [
            "" if rng.random() < 0.2 else str(rng.integers(-2, 10 ** rng.integers(1, 10)))
            for _ in range(13)
        ]
        categories = [
            "" if rng.random() < 0.1 else f"{rng.integers(0, 2**32):08x}" for _ in range(26)
        ]
        label = str(int(rng.random() < 0.03))
        lines.append("\t".join([label, *integers, *categories]) + "\n")
    return lines


def write_criteo(directory: Path, rows: int = 40) -> list[list[str]]:
    """Writes day_0 to day_23, every second one compressed; returns their lines."""
    directory.mkdir(parents=True, exist_ok=True)
    days = [criteo_lines(rows + 3 * day, day) for day in range(24)]
    for day, lines in enumerate(days):
        text = "".join(lines).encode()
        if day % 2:
            (directory / f"day_{day}").write_bytes(text)
        else:
            (directory / f"day_{day}.gz").write_bytes(gzip.compress(text, mtime=0))
    return days
