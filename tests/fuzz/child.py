"""Reads damaged files in a process of its own, with limits on memory and time.

Boundary: loaders and a range of inputs for each; prints one line of JSON per input.

    python -m fuzz.child LOADER[,LOADER...] SEED START STOP DIRECTORY
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from fuzz.loaders import LOADERS, Loader
from fuzz.mutate import mutated
from timetrial.framework.errors import UserError

MORE_BYTES = 1 << 30
"""Memory that a loader may take."""

CPU_SECONDS = 2.0
"""CPU time that a loader may take."""


class TookTooLong(BaseException):
    """A loader needs more than ``CPU_SECONDS``."""


def outcome(loader: Loader, directory: Path, expected: Any) -> tuple[str, str]:
    """What a loader does with a directory: ``refused``, ``accepted``, ``changed``, ``uncaught``."""
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS * 1.5)
    try:
        found = loader.load(directory)
    except UserError as error:
        kind, text = "refused", str(error)
        if len(text) > 20_000:
            kind, text = "uncaught", f"a message of {len(text)} characters: {text[:200]}"
    except BaseException:
        kind, text = "uncaught", traceback.format_exc(limit=-12)
    else:
        kind, text = "accepted", ""
        if loader.is_sealed(directory) and not loader.same(expected, found):
            kind = "changed"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = time.process_time() - start
    if seconds > CPU_SECONDS and kind != "uncaught":
        kind, text = "uncaught", f"{seconds:.1f} s of CPU time; {kind}: {text[:300]}"
    return kind, text


def read_one(loader: Loader, seed: str, index: int, seeds: Path, work: Path, expected: Any) -> Any:
    """Damages one of the loader's files and reads it."""
    rng = random.Random(f"{seed}/{loader.name}/{index}")
    if work.exists():
        shutil.rmtree(work)
    shutil.copytree(seeds, work)
    target = rng.choice(loader.targets(work))
    target.write_bytes(mutated(target.read_bytes(), rng))
    kind, text = outcome(loader, work, expected)
    if kind in ("uncaught", "changed"):
        shutil.copytree(work, work.with_name("faults") / f"{loader.name}-{index}", symlinks=True)
    return {"loader": loader.name, "index": index, "kind": kind, "text": text, "file": target.name}


def _expected(loader: Loader, directory: Path) -> Any:
    """What the undamaged files hold."""
    try:
        return loader.load(directory)
    except UserError:
        if loader.valid:
            raise
    return None


def limit_memory(more: int) -> None:
    """Limits the address space to what is used now, plus some."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def prepared(loader: Loader, directory: Path) -> tuple[Path, Any]:
    """The loader's seeds, and what they hold; imports all that the loader needs."""
    seeds, work = directory / f"seeds of {loader.name}", directory / "work"
    shutil.rmtree(seeds, ignore_errors=True)
    seeds.mkdir(parents=True)
    loader.write(seeds)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(seeds, work)
    return seeds, _expected(loader, work)


def main(names: str, seed: str, start: int, stop: int, directory: Path) -> None:
    """Reads the inputs of a range with each loader, one line of output per input."""

    def too_long(number: int, frame: FrameType | None) -> NoReturn:
        raise TookTooLong(f"more than {CPU_SECONDS} s of CPU time")

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    loaders = [LOADERS[name] for name in names.split(",")]
    os.chdir(directory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ready = [(loader, *prepared(loader, directory)) for loader in loaders]
    warnings.simplefilter("error")
    signal.signal(signal.SIGPROF, too_long)
    limit_memory(MORE_BYTES)
    for loader, seeds, expected in ready:
        for index in range(start, stop):
            line = read_one(loader, seed, index, seeds, directory / "work", expected)
            out.write(json.dumps(line) + "\n")
            out.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
