"""Time of a report: 1,000 runs of 200 evaluations of 10 metrics, all sections, tables and plots.

Covers ``write_report``: scores, intervals, page and files. The goal is at most 30 seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.scoring import EVALUATIONS, METRICS, runs
from timetrial.tracking.report import ReportOptions, write_report
from timetrial.tracking.scores.resampling import Bootstrap

GOAL = 30.0


def main() -> None:
    """Prints the seconds; exits with 1 if they are above the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000, help="bootstrap samples")
    samples = parser.parse_args().samples
    records = runs()
    with tempfile.TemporaryDirectory() as directory:
        started, processor = time.perf_counter(), time.process_time()
        page = write_report(
            records, Path(directory), ReportOptions(bootstrap=Bootstrap(samples=samples))
        )
        wall, used = time.perf_counter() - started, time.process_time() - processor
        files = [path for path in Path(directory).rglob("*") if path.is_file()]
        print(
            f"{len(records)} runs x {EVALUATIONS} evaluations x {len(METRICS)} metrics, "
            f"{samples} samples: {wall:.1f} s, {used:.1f} s of processor (goal: {GOAL:g} s); "
            f"{len(files)} files, page {page.stat().st_size / 1e6:.1f} MB"
        )
    sys.exit(wall > GOAL)


if __name__ == "__main__":
    main()
