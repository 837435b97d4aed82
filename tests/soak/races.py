"""Commands that are killed and started again until they end by themselves, and when they are.

Boundary: tests only; ``facts`` judges what they left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from soak import facts, hook, plugin
from soak.processes import Process
from timetrial.framework.checkpoint import is_whole
from timetrial.framework.clock import charged

PERIOD_SECONDS = 0.18
"""Charged seconds between two checkpoints."""

STEP_SECONDS = 0.03

_TUNE = ["tune", "workload=soaked", "optimizer=adam", "study.name=study", "study.trials=3"]
_TUNE += ["study.heartbeat_seconds=1"]
COMMANDS: Mapping[str, Sequence[str]] = {
    "bench": ["bench", "suite=SITE/race.yaml"],
    "train": ["train", "workload=soaked", "optimizer=adam", f"budget.steps={plugin.STEPS}"],
    "tune": _TUNE,
    "tune of 2 workers": [*_TUNE, "--workers", "2"],
}

_RUN = (
    "timetrial.bench.experiment:begun",
    "timetrial.tracking.record.tracker:Journal.move",  # the journal has another name until then
    "timetrial.tracking.store.recording:start_run",
    "timetrial.bench.experiment:note_journal",
    "timetrial.tracking.store.mirror:Mirror.flush",  # the first one makes the run in MLflow
    "timetrial.framework.step:Program.compile",
    "timetrial.framework.step:Program.evaluate",
    "timetrial.framework.checkpoint:Checkpoints.save",
    "timetrial.framework.checkpoint:write_atomically",  # of run.json, of SHA256SUMS
    "timetrial.framework.checkpoint:Checkpoints.remove_all_but",
    "timetrial.framework.checkpoint:shutil.rmtree",
    "timetrial.tracking.record.line_file:LineFile.append",
    "timetrial.tracking.record.line_file:LineFile.sync",
    "timetrial.tracking.store.writer:RunWriter.metrics",
    "timetrial.tracking.store.recording:Recording.end",
    "timetrial.tracking.store.recording:Recording.send",
    "timetrial.tracking.store.writer:RunWriter.end",
    "timetrial.tracking.store.writer:RunWriter.files",
    "timetrial.tracking.store.mirror:Mirror._mark_as_sent",
)
MOMENTS: Mapping[str, Sequence[str]] = {
    "train": [*_RUN, "timetrial.bench.race:tidy", "timetrial.bench.race:show_result"],
    "bench": [
        *_RUN,
        "timetrial.bench.race:planned",
        "timetrial.bench.race:make_planned_run",
        "timetrial.bench.race:tidy",
        "timetrial.bench.race:report",
        "timetrial.bench.report:write_page",
    ],
    "tune": [
        *_RUN,
        "timetrial.bench.tune.ledger:settle",
        "timetrial.bench.tune.ledger:claim",
        "timetrial.bench.tune.trial:verdict",
        "timetrial.bench.tune.trial:describe",
        "timetrial.bench.tune.trial:tell",
        "timetrial.bench.tune.trial:tidy",
        "timetrial.bench.tune.summary:record",
    ],
}
"""Calls before and after which a command is killed."""


@dataclasses.dataclass(frozen=True)
class Strike:
    """When a process is killed.

    Attributes:
        call: a call, as of ``hook``; "" for a time.
        n: which call, from 1.
        when: ``before`` or ``after`` the call.
        seconds: time after its start.
        numbers: the signals, 0.3 s apart.
    """

    call: str = ""
    n: int = 1
    when: str = "before"
    seconds: float = 0.0
    numbers: tuple[int, ...] = (signal.SIGKILL,)

    @property
    def listed(self) -> str:
        """The signals, for ``hook``."""
        return ",".join(str(int(number)) for number in self.numbers)

    def __str__(self) -> str:
        if not self.call:
            return f"after {self.seconds:.2f} s"
        return f"{self.when} call {self.n} of {self.call.rpartition('.')[2]}"


@dataclasses.dataclass
class Story:
    """What happened to one command.

    Attributes:
        name: of the command.
        strikes: kills that hit, with the charged seconds lost by each.
        faults: what was lost, doubled, changed or left over.
    """

    name: str
    strikes: list[tuple[Strike, float]] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)


class Soak:
    """Kills commands and compares what they leave with undisturbed ones.

    Args:
        base: an empty directory.

    Attributes:
        count: number of commands started.
        token: name of the files that say which calls of the last started one were struck.
    """

    def __init__(self, base: Path) -> None:
        self.base, self.site = base, base / "site"
        plugin.install(self.site)
        self.updates = base / "updates"
        self.updates.mkdir()
        self._references: dict[str, tuple[Path, float, list[str]]] = {}
        self.count, self.token = 0, base / "token0"
        Process(["--version"], self.site, base / "version.txt").wait()  # starts the server

    def words(self, name: str, root: Path) -> list[str]:
        """The words of a command."""
        given = [word.replace("SITE", str(self.site)) for word in COMMANDS[name]]
        minutes = PERIOD_SECONDS / 60
        return [*given, f"tracking.root={root}", f"tracking.checkpoint_minutes={minutes}"]

    def start(
        self,
        name: str,
        root: Path,
        *strikes: Strike | None,
        step_seconds: float = STEP_SECONDS,
        cold: bool = False,
    ) -> Process:
        """Starts a command."""
        self.count += 1
        self.token = self.base / f"token{self.count}"
        variables = {"SOAK_STEP_SECONDS": str(step_seconds), hook.UPDATES: str(self.updates)}
        variables[hook.HOOK] = " ".join(
            ":".join(map(str, (s.call, s.n, s.when, s.listed, self.token.with_suffix(f".{i}"))))
            for i, s in enumerate(strikes)
            if s is not None and s.call
        )
        output = self.base / f"output{self.count}.txt"
        return Process(self.words(name, root), self.site, output, variables, cold=cold)

    @property
    def struck(self) -> bool:
        """True once the last started command was struck at its call."""
        return self.token.with_suffix(".0").exists()

    def reference(self, name: str) -> tuple[Path, float, list[str]]:
        """Root, seconds and result of an undisturbed command."""
        name = name.partition(" of ")[0]
        if name not in self._references:
            root = self.base / f"undisturbed-{name}"
            began = time.monotonic()
            process = self.start(name, root)
            assert process.wait() == 0, process.err
            seconds = time.monotonic() - began
            self._references[name] = (root, seconds, outcome(process, root))
        return self._references[name]

    def story(self, name: str, strikes: Sequence[Strike], *, cold: bool = False) -> Story:
        """Starts a command once per strike, then until it ends by itself."""
        reference, _, told = self.reference(name)
        story = Story(name)
        root = self.base / f"disturbed{self.count}"
        for strike in strikes:
            process = self.start(name, root, strike, cold=cold)
            if self._struck(process, strike):
                lost, allowed = self._lost(root)
                story.strikes.append((strike, lost))
                if lost > allowed:
                    text = f"{lost:.2f} charged seconds are lost, allowed are {allowed:.2f}"
                    story.faults.append(f"{strike}: {text}")
            elif process.wait() != 0:
                story.faults.append(f"{strike}: exit {process.wait()}: {process.err[-600:]}")
        process = self.start(name, root)
        if process.wait() != 0 or outcome(process, root) != told:
            got = f"{process.out[-300:]} {process.err[-600:]}"
            story.faults.append(f"at last: exit {process.wait()}: {got}; expected {told}")
        story.faults += facts.faults(root, reference)
        if not story.faults:
            shutil.rmtree(root)
        return story

    def _struck(self, process: Process, strike: Strike) -> bool:
        """Waits for a strike; False if the command ended before it."""
        began = time.monotonic()
        while process.running:
            if strike.call == "" and time.monotonic() - began >= strike.seconds:
                process.kill_all()
                process.wait()
                return True
            time.sleep(0.005)
        return self.struck

    def _lost(self, root: Path) -> tuple[float, float]:
        """Charged seconds since the last whole checkpoint of a run under way, and how many may be.

        A checkpoint that was being written is no checkpoint: then these are two periods.
        """
        lost, allowed = 0.0, 0.0
        for lock in root.glob("checkpoints/*/*/lock"):
            with contextlib.suppress(ValueError, OSError):
                owner, at = json.loads(lock.read_text()), 0.0
                note = self.updates / str(owner["pid"])
                if note.stat().st_mtime < owner["since"]:  # of the run before this one
                    continue
                numbered = [path for path in lock.parent.iterdir() if path.name.isdecimal()]
                whole = [int(path.name) for path in numbered if is_whole(path)]
                if whole:
                    meta = json.loads((lock.parent / str(max(whole)) / "run.json").read_text())
                    at = charged(meta["seconds"])
                lost = max(lost, float(note.read_text()) - at)
                periods = 1 + (len(whole) < len(numbered))
                allowed = max(allowed, periods * PERIOD_SECONDS + 4 * STEP_SECONDS)
        for note in self.updates.iterdir():
            note.unlink()
        return lost, allowed


def outcome(process: Process, root: Path) -> list[str]:
    """The lines of a command's output that tell its result, without its root."""
    text = re.sub(r" in trial \d+:", ":", process.out.replace(str(root), "ROOT"))
    return [line for line in text.splitlines() if re.match(r"\w+/\w+ |best:|report ", line)]


def drawn(chance: random.Random, name: str, seconds: float) -> Strike:
    """A random moment of a command that takes so many seconds undisturbed."""
    if chance.random() < 0.5:
        return Strike(seconds=chance.uniform(0.0, seconds))
    call = chance.choice(MOMENTS[name.partition(" of ")[0]])
    often = call.partition(":")[2] in ("LineFile.append", "LineFile.sync", "Program.evaluate")
    n = chance.randint(1, 6 if often else 2)
    return Strike(call, n, chance.choice(["before", "after"]))
