"""Eight kills at the moments that hurt most; ``make soak`` makes fifty at random ones."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from soak import signals
from soak.races import Soak, Strike
from timetrial.tracking.record.journal import journals_in, read_journal

STORE, RECORD = "timetrial.tracking.store", "timetrial.tracking.record"

KILLS = {
    "train": [
        Strike("timetrial.tracking.store.opening:sqlite_file.follow_move"),  # the store is made
        Strike(f"{RECORD}.tracker:Journal.move", when="after"),  # nothing in MLflow yet
        Strike("timetrial.framework.checkpoint:write_atomically", 3),  # SHA256SUMS is missing
        Strike(f"{STORE}.writer:RunWriter.end", when="after"),  # the artifacts are missing
    ],
    "tune": [
        Strike("timetrial.framework.trainer:Trainer._finish", 9),
        Strike("timetrial.bench.tune.trial:tell"),
    ],
    "bench": [
        Strike("timetrial.bench.race:make_planned_run", 2),
        Strike("timetrial.bench.report:log_report"),
    ],
}


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Soak:
    return Soak(tmp_path_factory.mktemp("soak"))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n != "train" else n for n in KILLS]
)
def test_nothing_is_lost_after_kill_9(name: str, soak: Soak):
    story = soak.story(name, KILLS[name])
    assert story.faults == []
    assert [strike for strike, _ in story.strikes] == KILLS[name]


CASES = [
    ("train", "preparing", (signal.SIGHUP,)),
    pytest.param("train", "compile", (signal.SIGINT, signal.SIGINT), marks=pytest.mark.slow),
    ("train", "steps", (signal.SIGHUP,)),
    ("train", "finishing a run", (signal.SIGTERM, signal.SIGTERM)),
    pytest.param("tune", "telling", (signal.SIGTERM,), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "phase", "numbers"), CASES)
def test_a_signal_ends_with_one_line_and_loses_nothing(
    name: str, phase: str, numbers: tuple[int, ...], soak: Soak
):
    call, n = signals.PHASES[name][phase]
    assert signals.story(soak, name, phase, Strike(call, n, numbers=numbers)) == []


@pytest.mark.slow
def test_two_workers_get_the_signal_of_the_process_that_started_them(soak: Soak):
    assert signals.workers_story(soak, "steps", (signal.SIGHUP,)) == []


def test_the_end_is_in_the_journal_before_anything_is_sent(soak: Soak, tmp_path: Path):
    signalled = Strike("timetrial.framework.trainer:Trainer._finish", 7, numbers=(signal.SIGHUP,))
    killed = Strike("timetrial.tracking.store.mirror:Mirror.close")
    process = soak.start("train", tmp_path, signalled, killed)
    assert process.wait() == -signal.SIGKILL
    (journal,) = journals_in(tmp_path)
    contents = read_journal(journal)
    assert contents.end is not None
    assert contents.end.status == "KILLED"
    assert {7, 8} & {row.step for row in contents.rows}
