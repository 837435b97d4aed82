"""Measures the full-size workloads on one GPU, within nine minutes.

    make gpu                                            # needs a GPU; installs nothing
    make gpu-dry                                        # reduced sizes on the CPU: tries the code
    python -m benchmarks.gpu --only ogbg --parts tf32 bf16

Boundary: the command line; ``run`` runs the parts, ``table`` shows the results.

The exit status is 0 if nothing failed; parts that the budget leaves out have not failed. The file
of ``--json`` is written again after every part, so that a command that is ended loses nothing.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import parts, run, table
from benchmarks.gpu.child import write


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Measure the full-size workloads on one GPU."
    )
    made.add_argument("--dry", action="store_true", help="reduced sizes on the CPU")
    made.add_argument("--json", type=Path, default=Path("runs/gpu.json"), help="file of results")
    made.add_argument("--append", type=Path, help="Markdown file to append the tables to")
    made.add_argument("--only", choices=parts.WORKLOADS, nargs="+", default=parts.WORKLOADS)
    made.add_argument("--parts", choices=parts.GROUPS, nargs="+", default=parts.GROUPS)
    made.add_argument("--budget-seconds", type=float, help="default: 540, dry 3600")
    return made


class Results:
    """Results so far, in the file."""

    def __init__(self, path: Path, *, dry: bool, budget_seconds: float) -> None:
        self._path = path
        self._began = time.monotonic()
        self.until = self._began + budget_seconds
        self.found: dict[str, Any] = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "dry": dry,
            "budget_seconds": budget_seconds,
            "seconds": 0.0,
            "device": None,
            "parts": [],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, self.found)

    def add(self, outcome: run.Outcome) -> None:
        """Adds an outcome, writes the file and prints one line."""
        if outcome.part.group == "device":
            self.found["device"] = outcome.result
        self.found["parts"].append(outcome.record())
        self.found["seconds"] = time.monotonic() - self._began
        write(self._path, self.found)
        what = outcome.status + (f": {outcome.reason}" if outcome.reason else "")
        print(
            f"{self.found['seconds']:6.1f} s  {outcome.part.label:<32} {outcome.seconds:6.1f} s  "
            f"{what}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parser().parse_args(arguments)
    usual = parts.DRY_BUDGET_SECONDS if options.dry else parts.BUDGET_SECONDS
    results = Results(options.json, dry=options.dry, budget_seconds=options.budget_seconds or usual)
    with tempfile.TemporaryDirectory() as directory:
        folder, shared = Path(directory), {"dry": options.dry, "until": results.until}
        run.run([parts.device()], folder, done=results.add, **shared)
        platform = (results.found["device"] or {}).get("platform")
        if not options.dry and platform not in ("gpu", "cuda", "rocm"):
            found = platform or "an error"
            print(f"expected a GPU, got {found}; try: make gpu-dry", file=sys.stderr)
            return 2
        planned = parts.plan(dry=options.dry, groups=options.parts, only=options.only)
        run.run(planned, folder, done=results.add, **shared)
    text = table.markdown(results.found)
    print("\n" + text)
    print(f"All numbers: {options.json}")
    if options.append:
        with options.append.open("a", encoding="utf-8") as file:
            file.write("\n" + text)
    failed = [one for one in results.found["parts"] if one["status"] == run.FAILED]
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends the child
    sys.exit(main())
