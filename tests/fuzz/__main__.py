"""Runs the loaders on damaged files and prints a table.

Boundary: child processes in, counts out; inputs that were not caught are kept.

    python -m fuzz [--inputs N] [--seed S] [--keep DIRECTORY] [LOADER ...]
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from fuzz.loaders import LOADERS

PATIENCE = 60.0
"""Seconds without a result after which a child counts as hanging."""


@dataclasses.dataclass
class Result:
    """What happened to the inputs of one loader.

    Attributes:
        counts: inputs by outcome.
        faults: outcome, input and text of those that were not caught or changed.
    """

    counts: collections.Counter[str]
    faults: list[dict[str, Any]]


def fuzz(name: str, seed: str, inputs: int, keep: Path | None = None) -> Result:
    """Reads damaged files with one loader, in child processes; hangs and crashes are faults."""
    result = Result(collections.Counter(), [])
    with tempfile.TemporaryDirectory(prefix="timetrial-fuzz-") as directory:
        done = 0
        while done < inputs:
            for line in _child(name, seed, done, inputs, Path(directory)):
                done = line["index"] + 1
                _count(result, line, name, Path(directory), keep)
    return result


def _count(
    result: Result, line: dict[str, Any], name: str, directory: Path, keep: Path | None
) -> None:
    result.counts[line["kind"]] += 1
    if line["kind"] in ("uncaught", "changed"):
        result.faults.append(line)
        if keep is not None:
            target = keep / f"{name}-{line['index']}"
            shutil.rmtree(target, ignore_errors=True)
            saved = directory / "faults" / f"{name}-{line['index']}"
            source = saved if saved.is_dir() else directory / "work"  # of a hang or a crash
            shutil.copytree(source, target / "input", symlinks=True)
            (target / "error.txt").write_text(line["text"], errors="backslashreplace")


def _child(name: str, seed: str, start: int, stop: int, directory: Path) -> Any:
    """The lines of a child; the last one tells of a hang or a crash, if any."""
    words = [sys.executable, "-m", "fuzz.child", name, seed, str(start), str(stop), str(directory)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    for key in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        environment[key] = "1"
    with (directory / "errors").open("wb") as errors:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    lines: queue.Queue[str] = queue.Queue()
    thread = threading.Thread(target=_pump, args=(process, lines), daemon=True)
    thread.start()
    index = start
    try:
        while index < stop:
            try:
                text = lines.get(timeout=PATIENCE if index > start else 5 * PATIENCE)
            except queue.Empty:
                yield {"index": index, "kind": "uncaught", "text": "no answer: a hang", "file": ""}
                return
            if not text:
                code = process.wait()
                said = (directory / "errors").read_text(errors="replace")[-2000:]
                if index == start and "limit_memory" not in said and code == 1:
                    raise RuntimeError(f"{name}: the loader cannot read its own seeds:\n{said}")
                text = f"the process ended with {code}: {said}"
                yield {"index": index, "kind": "uncaught", "text": text, "file": ""}
                return
            line = json.loads(text)
            index = line["index"] + 1
            yield line
    finally:
        process.kill()
        process.wait()
        thread.join()


def _pump(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def main() -> int:
    """Fuzzes loaders and prints one row each; the exit code is 1 when a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("loaders", nargs="*", metavar="LOADER", choices=[[], *LOADERS])
    parser.add_argument("--inputs", type=int, default=9000, help="damaged files in all")
    parser.add_argument("--seed", default="0", help="another seed gives other files")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="faulty inputs")
    options = parser.parse_args()
    names = options.loaders or list(LOADERS)
    weight = sum(LOADERS[name].weight for name in names)
    faults = 0
    head = ("loader", "inputs", "refused", "accepted", "changed", "uncaught")
    print(("{:<22}" + "{:>10}" * 5).format(*head))
    total: collections.Counter[str] = collections.Counter()
    for name in names:
        inputs = max(1, round(options.inputs * LOADERS[name].weight / weight))
        found = fuzz(name, options.seed, inputs, options.keep)
        counts = found.counts
        total += counts
        row = [counts.total(), *(counts[kind] for kind in head[2:])]
        print(("{:<22}" + "{:>10}" * 5).format(name, *row), flush=True)
        for fault in found.faults:
            last = (fault["text"].strip().splitlines() or [""])[-1]
            print(f"    {fault['kind']} {name}/{fault['index']} ({fault['file']}): {last[:150]!a}")
        faults += len(found.faults)
    print(("{:<22}" + "{:>10}" * 5).format("all", total.total(), *(total[k] for k in head[2:])))
    if faults:
        print(f"{faults} faults; their files are in {options.keep}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
