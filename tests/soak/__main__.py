"""Kills commands at random moments and signals them in all phases: ``make soak``.

Boundary: tests only; a seed in, a table out; exit 1 with a fault.

    python -m soak [--kills N] [--seed S] [--per-case K] [--signals N] [COMMAND ...]
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

from soak import signals
from soak.races import COMMANDS, Soak, Strike, drawn


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m soak")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--per-case", type=int, default=4, help="kills of one command")
    parser.add_argument("--signals", type=int, default=10**6, help="most cases of signals")
    parser.add_argument("commands", nargs="*", default=list(COMMANDS), metavar="COMMAND")
    given = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="timetrial-soak-"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(base / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    print(f"seed {given.seed}; load of this machine {os.getloadavg()[0]:.1f}", flush=True)
    soak = Soak(base)
    failed = kill(soak, given.commands, given.seed, given.kills, given.per_case)
    failed += signal_all(soak, given.commands, given.seed, given.signals)
    if not failed:
        shutil.rmtree(base)
    else:
        print(f"{failed} faults; what was left is in {base}")
    return 1 if failed else 0


def kill(soak: Soak, commands: list[str], seed: int, kills: int, per_case: int) -> int:
    """Kills until there are so many kills; prints each and what it cost; returns the faults."""
    made, faults, case, losses = 0, 0, 0, []
    began = time.monotonic()
    while made < kills and commands:
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
    print(f"{made} kills in {case} cases, {time.monotonic() - began:.0f} s: {faults} faults")
    if losses:
        mean, most = sum(losses) / made, max(losses)
        print(f"charged seconds lost per kill: mean {mean:.2f}, most {most:.2f}")
    return faults


def signal_all(soak: Soak, commands: list[str], seed: int, most: int) -> int:
    """Signals each command in each phase, in random order; returns the faults."""
    cases = [
        (name, phase, strike)
        for name in commands
        for phase, strike in (signals.strikes(name) if name != signals.WORKERS else WORKERS)
    ]
    random.Random(seed).shuffle(cases)
    faults, began = 0, time.monotonic()
    for name, phase, strike in cases[:most]:
        if name == signals.WORKERS:
            found = signals.workers_story(soak, phase, strike.numbers)
        else:
            found = signals.story(soak, name, phase, strike)
        faults += len(found)
        print(f"{name:18} {signals.told(phase, strike)}", flush=True)
        for fault in found:
            print(f"    FAULT: {fault}", flush=True)
    made = len(cases[:most])
    print(f"{made} cases of signals, {time.monotonic() - began:.0f} s: {faults} faults")
    return faults


WORKERS = [
    (phase, Strike(numbers=numbers))
    for phase in ("import of the workers", "steps")
    for number in signals.SIGNALS
    for numbers in ((number,), (number, number))
]


if __name__ == "__main__":
    sys.exit(main())
