"""Signals in every phase of every command: one line, the right code, the same results afterwards.

Boundary: tests only; ``races`` starts the commands and ``facts`` judges what they left.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from soak import facts
from soak.processes import Process
from soak.races import Soak, Strike, outcome
from timetrial.tracking.record.journal import journals_in, read_journal

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_RUN = {
    "compile": ("timetrial.framework.step:Program.compile", 1),
    "steps": ("timetrial.framework.trainer:Trainer._finish", 7),
    "evaluation": ("timetrial.framework.step:Program.evaluate", 2),
    "first flush": ("timetrial.tracking.store.writer:RunWriter.configuration", 1),
    "saving": ("timetrial.framework.checkpoint:write_atomically", 2),
    "sending": ("timetrial.tracking.store.mirror:Mirror.close", 1),
    "end of a run": ("timetrial.tracking.store.recording:Recording.end", 1),
    "finishing a run": ("timetrial.tracking.store.writer:RunWriter.end", 1),
}
PHASES: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "train": {
        "preparing": ("timetrial.bench.commands.running:require_devices", 1),
        "opening": ("timetrial.tracking.store.opening:make_client", 1),
        **_RUN,
        "after the run": ("timetrial.bench.race:tidy", 1),
    },
    "bench": {
        "planning": ("timetrial.bench.race:planned", 1),
        **_RUN,
        "between runs": ("timetrial.bench.race:make_planned_run", 2),
        "scoring": ("timetrial.bench.report:score_table_text", 1),
        "report": ("timetrial.bench.report:log_report", 1),
    },
    "tune": {
        "claiming": ("timetrial.bench.tune.ledger:claim", 2),
        **_RUN,
        "telling": ("timetrial.bench.tune.trial:tell", 1),
        "summary": ("timetrial.bench.tune.summary:record", 1),
    },
}
"""Calls at which a signal comes, by command and phase."""

WORKERS = "tune of 2 workers"
NOT_STARTED = "timetrial: interrupted; nothing was started"
CONTINUES = "timetrial: interrupted; the same command continues"


def strikes(name: str) -> Iterator[tuple[str, Strike]]:
    """Phases of a command with their signals: each one alone, and two 0.3 s apart."""
    for phase, (call, n) in PHASES[name].items():
        for number in SIGNALS:
            for numbers in ((number,), (number, number)):
                yield phase, Strike(call, n, numbers=numbers)


def told(phase: str, strike: Strike) -> str:
    """Shows a case."""
    return f"{phase}, {' and '.join(signal.Signals(n).name for n in strike.numbers)}"


def story(soak: Soak, name: str, phase: str, strike: Strike) -> list[str]:
    """Signals one command, then lets the same command end by itself; returns what is wrong."""
    reference, _, result = soak.reference(name)
    root = soak.base / f"signalled{soak.count}"
    process = soak.start(name, root, strike)
    process.wait()
    if not soak.struck:
        return [f"the signal did not come: exit {process.wait()}: {process.err[-500:]}"]
    found = answer_faults(process, strike.numbers[0], phase)
    found += standing_faults(root)
    again = soak.start(name, root)
    if again.wait() != 0 or outcome(again, root) != result:
        found.append(f"at last: exit {again.wait()}: {again.out[-300:]} {again.err[-600:]}")
    found += facts.faults(root, reference)
    if not found:
        shutil.rmtree(root)
    return found


def answer_faults(process: Process, number: int, phase: str) -> list[str]:
    """Wrong exit code, a traceback, or another last line than one about the interruption."""
    found = []
    if process.wait() != 128 + number:
        found.append(f"exit {process.wait()}, expected {128 + number}")
    lines = process.err.splitlines()
    told = [line for line in lines if line.startswith("timetrial:")]
    expected = NOT_STARTED if phase in ("preparing", "import") else CONTINUES
    if told != [expected] or lines[-1:] != told or "Traceback" in process.err:
        found.append(f"expected one line at the end, {expected!r}, got {process.err[-900:]!r}")
    return found


def standing_faults(root: Path) -> list[str]:
    """Journals without an end and runs that count as running after an interruption."""
    found = []
    for path in journals_in(root):
        contents = read_journal(path)
        if contents.end is None:
            found.append(f"{path.name} has no end")
    if (root / "mlflow.db").exists():
        with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
            query = "select name, status from runs where status not in ('FINISHED', 'KILLED')"
            found += [f"{name} is {status}" for name, status in database.execute(query)]
    return found


def workers_story(soak: Soak, phase: str, numbers: Sequence[int]) -> list[str]:
    """Signals the process that has two workers, while they import or train."""
    reference, _, result = soak.reference(WORKERS)
    root = soak.base / f"signalled{soak.count}"
    process = soak.start(WORKERS, root)
    waited = time.monotonic()
    while process.running and time.monotonic() < waited + 120.0:
        locks = list(root.glob("checkpoints/*/*/lock"))
        if locks if phase == "steps" else (root / "studies.db").exists():
            break
        time.sleep(0.02)
    time.sleep(random.Random(str(numbers)).uniform(0.2, 0.6))
    process.send(numbers[0])
    for number in numbers[1:]:
        time.sleep(0.3)
        process.send(number)
    process.wait()
    found = answer_faults(process, numbers[0], phase) + standing_faults(root)
    again = soak.start("tune", root)
    if again.wait() != 0 or outcome(again, root) != result:
        found.append(f"at last: exit {again.wait()}: {again.out[-300:]} {again.err[-600:]}")
    return found + [text for text in facts.faults(root, reference) if "tags:" not in text]
