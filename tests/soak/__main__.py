"""Kills commands at random moments, starts them again and judges what they leave: ``make soak``.

Boundary: tests only; a seed in, a table out; exit 1 with a fault.

    python -m soak [--kills N] [--seed S] [--per-case K] [COMMAND ...]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from soak.races import COMMANDS, Soak, drawn


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m soak")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--per-case", type=int, default=4, help="kills of one command")
    parser.add_argument("commands", nargs="*", default=list(COMMANDS), metavar="COMMAND")
    given = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="timetrial-soak-"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(base / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    print(f"seed {given.seed}; load of this machine {os.getloadavg()[0]:.1f}", flush=True)
    failed = kill(Soak(base), given.commands, given.seed, given.kills, given.per_case)
    if not failed:
        shutil.rmtree(base)
    else:
        print(f"{failed} faults; what was left is in {base}")
    return 1 if failed else 0


def kill(soak: Soak, commands: list[str], seed: int, kills: int, per_case: int) -> int:
    """Kills until there are so many kills; prints each and what it cost; returns the faults."""
    made, faults, case, losses = 0, 0, 0, []
    began = time.monotonic()
    while made < kills:
        chance = random.Random(f"{seed}/{case}")
        name = commands[case % len(commands)]
        _, seconds, _ = soak.reference(name)
        cold = chance.random() < 0.1  # with all imports
        count = min(per_case, kills - made)
        strikes = [drawn(chance, name, seconds + 3.0 * cold) for _ in range(count)]
        story = soak.story(name, strikes, cold=cold)
        for strike, lost in story.strikes:
            made += 1
            losses.append(lost)
            print(
                f"{made:3} {name:18} case {case}: {strike}; {lost:.2f} charged s lost", flush=True
            )
        for fault in story.faults:
            faults += 1
            print(f"    FAULT in case {case}: {fault}", flush=True)
        case += 1
    print(
        f"{made} kills in {case} cases, {time.monotonic() - began:.0f} s: {faults} faults; charged "
        f"seconds lost per kill: mean {sum(losses) / made:.2f}, most {max(losses):.2f}"
    )
    return faults


if __name__ == "__main__":
    sys.exit(main())
