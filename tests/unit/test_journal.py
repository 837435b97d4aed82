from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recorded import identity, of_version_0_2

from timetrial.framework.errors import StorageError
from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record.errors import DamagedJournalError, TrackingError
from timetrial.tracking.record.journal import (
    End,
    Journal,
    last_kind,
    read_journal,
    rows_between,
)
from timetrial.tracking.record.tracker import resume_run, start_run

ROWS = [
    Row(0, 0.0, {"train/loss": 2.5}, 1000),
    Row(1, 0.25, {"batch/loss": math.nan, "batch/grad_norm": math.inf}, 1001),
    Row(2, 0.5, {"batch/loss": -math.inf, "naïve/λ": 1e-300}, 1002),
]
END = End(Status.FINISHED, 1003, {"stop_reason": "BUDGET"}, {"final/loss": math.inf})


def written(path: Path, *, end: bool = True) -> Path:
    journal = Journal(path)
    journal.start("id-1", 999, identity())
    journal.rows(ROWS)
    if end:
        journal.end(END)
    journal.close()
    return path


def test_reads_back_what_was_written(tmp_path: Path):
    contents = read_journal(written(tmp_path / "run.jsonl"))
    assert (contents.journal_id, contents.started_ms) == ("id-1", 999)
    assert contents.header == identity()
    assert repr(contents.rows) == repr(ROWS)  # repr: nan is not equal to itself
    assert contents.end == END
    assert not contents.sent


def test_every_line_is_standard_json(tmp_path: Path):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for line in written(tmp_path / "run.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_a_last_line_torn_anywhere_costs_only_itself(tmp_path: Path):
    whole = written(tmp_path / "run.jsonl", end=False).read_bytes()
    before_last = whole[:-1].rfind(b"\n") + 1
    for cut in range(before_last, len(whole)):
        path = tmp_path / "torn.jsonl"
        path.write_bytes(whole[:cut])
        assert [row.step for row in read_journal(path).rows] == [0, 1]
    # A writer that goes on does not run into the torn piece.
    journal = Journal(path)
    journal.rows([ROWS[2]])
    journal.close()
    assert [row.step for row in read_journal(path).rows] == [0, 1, 2]


def test_a_torn_line_longer_than_one_block_is_cut_off_too(tmp_path: Path):
    path = written(tmp_path / "run.jsonl", end=False)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 200_000)
    Journal(path).close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"{}", b"not json", b"[1]", b""])
def test_damage_before_the_end_is_an_error_that_names_the_line(tmp_path: Path, damage: bytes):
    path = written(tmp_path / "run.jsonl")
    for content, reason in (
        (path.read_bytes(), "it has another checksum than its bytes"),
        (of_version_0_2(path.read_bytes()), "expected one JSON object"),
    ):
        lines = content.split(b"\n")
        lines[2] = damage
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(DamagedJournalError, match=f"line 3: {reason}"):
            read_journal(path)


def test_missing_and_empty_files_are_errors(tmp_path: Path):
    with pytest.raises(TrackingError, match="No such file"):
        read_journal(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(TrackingError, match="first line of kind 'run'"):
        read_journal(tmp_path / "empty.jsonl")
    with pytest.raises(StorageError, match="cannot be written"):
        Journal(tmp_path / "no directory" / "run.jsonl")


def test_what_a_store_has_is_noted_behind_the_end(tmp_path: Path):
    path = written(tmp_path / "run.jsonl")
    assert last_kind(path) == "end"
    journal = Journal(path)
    journal.sent("sqlite:///mlflow.db", "abc")
    journal.close()
    assert last_kind(path) == "sent"
    assert read_journal(path).sent == {"sqlite:///mlflow.db": "abc"}


def test_evaluations_alone_are_read_with_the_last_row(tmp_path: Path):
    path = written(tmp_path / "run.jsonl")
    fast, whole = read_journal(path, evaluations_only=True), read_journal(path)
    assert [row.step for row in fast.rows] == [0, 2]
    assert (fast.header, fast.end, fast.started_ms) == (whole.header, whole.end, whole.started_ms)


def test_a_resumed_run_drops_what_lies_behind_its_checkpoint_and_goes_on(tmp_path: Path):
    tracker = start_run(tmp_path, identity())
    tracker.log(ROWS[:1])
    offset = tracker.offset
    tracker.log(ROWS[1:])
    tracker.finish(Status.KILLED, {"stop_reason": "x"}, {})
    again = resume_run(tracker.path, offset, {"pid": "2", "trial": "7"})
    again.log([ROWS[1]])
    again.finish(Status.FINISHED, {"stop_reason": "BUDGET"}, {})
    contents = read_journal(tracker.path)
    assert [row.step for row in contents.rows] == [0, 1]
    assert contents.end is not None
    assert contents.end.status is Status.FINISHED
    assert contents.tags == {**identity().tags, "pid": "2", "trial": "7", "stop_reason": "BUDGET"}
    stamps = [row.timestamp_ms for row in contents.rows]
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize("offset", [7, 10**6])
def test_a_journal_that_does_not_fit_its_checkpoint_is_refused(tmp_path: Path, offset: int):
    path = written(tmp_path / "run.jsonl")
    before = path.read_bytes()
    with pytest.raises(TrackingError, match=r"expected (at least|a first line)"):
        resume_run(path, offset, {})
    assert path.read_bytes() == before


def test_rows_are_read_from_an_offset_on(tmp_path: Path):
    journal = Journal(tmp_path / "run.jsonl")
    journal.start("id-1", 999, identity())
    journal.rows(ROWS[:2])
    rows, offset = rows_between(journal.path, 0)
    assert [row.step for row in rows] == [0, 1]
    assert offset == journal.offset
    journal.rows(ROWS[2:])
    assert [row.step for row in rows_between(journal.path, offset)[0]] == [2]
    assert rows_between(journal.path, 0, journal.offset - 1)[1] == offset
    journal.close()


def test_journals_of_version_0_1_are_read(tmp_path: Path):
    path = written(tmp_path / "run.jsonl")
    old = of_version_0_2(path.read_bytes()).replace(b'"journal_id"', b'"spool_id"')
    path.write_bytes(old + b'{"kind": "sent", "uri": "sqlite:////x/mlflow.db"}\n')
    contents = read_journal(path)
    assert contents.journal_id == "id-1"
    assert contents.sent == {"sqlite:////x/mlflow.db": ""}
    # What is added to such a journal has no checksum either.
    journal = Journal(path)
    journal.sent("postgresql://y", "abc")
    journal.close()
    assert b"crc32" not in path.read_bytes()
    assert read_journal(path).sent == {"sqlite:////x/mlflow.db": "", "postgresql://y": "abc"}
    assert rows_between(path, len(old)) == ([], path.stat().st_size)


WRITER = """
import sys
from pathlib import Path
from timetrial.framework.records import Row
from timetrial.tracking.record.journal import Journal
from recorded import identity, of_version_0_2
journal = Journal(Path(sys.argv[1]))
journal.start("id-1", 0, identity())
step = 0
while True:
    journal.rows([Row(step, step * 0.5, {"batch/loss": 1.0 / (step + 1)}, step)])
    step += 1
"""


def test_a_killed_writer_loses_at_most_the_line_it_was_writing(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], env=_with_tests_on_path())
    while not (path.exists() and path.stat().st_size > 100_000):
        assert writer.poll() is None
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    rows = read_journal(path).rows
    assert [row.step for row in rows] == list(range(len(rows)))
    assert len(rows) >= path.read_bytes().count(b"\n") - 1


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from timetrial.framework.errors import StorageError
from timetrial.framework.records import Row
from timetrial.tracking.record.journal import Journal
from recorded import identity, of_version_0_2
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
journal = Journal(path)
journal.start("id-1", 0, identity())
limit = path.stat().st_size + 1042  # in the middle of a line
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
step = 0
try:
    while True:
        journal.rows([Row(step, 0.0, {"batch/loss": 1.0}, step)])
        step += 1
except StorageError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.rows([Row(1000, 0.0, {"batch/loss": 1.0}, 1000)])
"""


def test_a_full_disk_is_a_clear_error_and_loses_nothing_written_before(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path],
        env=_with_tests_on_path(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be written (File too large)" in done.stdout
    assert done.stdout.count("\n") == 1
    steps = [row.step for row in read_journal(path).rows]
    assert len(steps) > 5
    assert steps == [*range(len(steps) - 1), 1000]


def _with_tests_on_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
