"""A full disk pauses a process; other failures of the disk end it with a clear error."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from recorded import ROWS, identity

from timetrial.framework import signals
from timetrial.framework.errors import Interrupted, StorageError, UserError
from timetrial.framework.files import FULL, wait_for_room
from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record.journal import read_journal
from timetrial.tracking.record.tracker import start_run

LINE = (
    "no space left for 1,234 bytes in /data/x; waiting for room; Ctrl-C ends the run, "
    "the same command continues"
)


def failing(times: int, number: int = errno.ENOSPC) -> Callable[[], str]:
    """An operation that fails at first."""
    left = [number] * times

    def write() -> str:
        if left:
            raise OSError(left.pop(), "refused")
        return "written"

    return write


@pytest.mark.parametrize("number", FULL)
def test_waiting_goes_on_when_there_is_room_and_says_one_line(
    caplog: pytest.LogCaptureFixture, number: int
):
    assert wait_for_room(failing(3, number), Path("/data/x"), 1234, poll_seconds=0.001) == "written"
    assert caplog.messages == [LINE]


def test_without_a_failure_nothing_is_said(caplog: pytest.LogCaptureFixture):
    assert wait_for_room(failing(0), Path("/data/x"), 1234) == "written"
    assert not caplog.messages


def test_waiting_ends_with_an_error_that_names_the_way_on():
    with pytest.raises(StorageError, match=r"/data/x: no space left for 1,234 bytes .* same comm"):
        wait_for_room(failing(99), Path("/data/x"), 1234, wait_seconds=0.02, poll_seconds=0.01)
    assert issubclass(StorageError, UserError)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG])
def test_other_failures_are_errors_at_once(caplog: pytest.LogCaptureFixture, number: int):
    with pytest.raises(StorageError, match=r"/data/x: cannot be written \(refused\)"):
        wait_for_room(failing(1, number), Path("/data/x"), 1234)
    assert not caplog.messages


@pytest.mark.parametrize("number", signals.ENDING)
def test_a_signal_ends_the_waiting(number: signal.Signals):
    timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
    timer.start()
    with pytest.raises(Interrupted), signals.raise_interrupted():
        wait_for_room(failing(10**6), Path("/data/x"), 1234, poll_seconds=0.01)


def test_a_full_disk_pauses_a_journal_and_no_row_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    run = start_run(tmp_path, identity())
    write, calls = os.write, []

    def short_of_room(file: int, data: bytes) -> int:
        """Writes one half, then has no room twice."""
        calls.append(len(data))
        if len(calls) in (2, 4):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[: len(data) // 2] if len(calls) < 4 else data)

    monkeypatch.setattr(os, "write", short_of_room)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    run.log(ROWS)
    run.finish(Status.FINISHED, {}, {})
    contents = read_journal(run.path)
    assert [row.step for row in contents.rows] == [row.step for row in ROWS]
    assert contents.end is not None
    assert len(calls) > 4
    assert len(caplog.messages) == 1
    assert str(run.path) in caplog.text


def test_a_signal_in_the_middle_of_a_write_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = start_run(tmp_path, identity())
    write = os.write
    for share in (0, 2, 1):  # before, in the middle of and after the write of all bytes

        def interrupted(file: int, data: bytes, share: int = share) -> int:
            if share:
                write(file, data[: len(data) // share])
            raise Interrupted(signal.SIGTERM)

        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(Interrupted):
            run.log([Row(share, 0.0, {"train/loss": 1.0})])
        monkeypatch.setattr(os, "write", write)
    run.log([Row(7, 0.0, {"train/loss": 1.0})])
    run.finish(Status.KILLED, {}, {})
    assert [row.step for row in read_journal(run.path).rows] == [1, 7]


SMALL_DISK = """
import logging, sys, threading
from pathlib import Path
from recorded import identity
from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record.journal import read_journal
from timetrial.tracking.record.tracker import start_run

class Room(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), flush=True)
        (disk / "filler").unlink()

disk = Path(sys.argv[1])
logging.getLogger().addHandler(Room())
run = start_run(disk, identity())
(disk / "filler").write_bytes(bytes(300_000))
for step in range(1000):
    run.log([Row(step, 0.0, {"train/loss": 1.0, "name" * 20: 1.0})])
run.finish(Status.FINISHED, {}, {})
print(len(read_journal(run.path).rows))
"""


def test_a_small_file_system_that_fills_up(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-c", SMALL_DISK, str(disk)]
    mount = f'mount -t tmpfs -o size=400k small {disk} && exec "$@"'
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-rm", "sh", "-c", mount, "sh", "true"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs a private mount of a small file system")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=True,
    )
    said, rows = done.stdout.splitlines()
    assert said.startswith("no space left for ")
    assert str(disk) in said
    assert rows == "1000"


def test_rows_of_evaluations_and_the_end_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(os.fstat(file).st_size))
    run = start_run(tmp_path, identity())
    run.log([Row(1, 0.5, {"batch/loss": 1.0})])
    assert not synced
    run.log([Row(1, 0.5, {"train/loss": 1.0})])
    assert synced == [run.offset]
    run.finish(Status.FINISHED, {}, {})
    assert synced[1:] == [run.path.stat().st_size]


def test_the_line_reads_like_every_message(capsys: pytest.CaptureFixture[str]):
    from timetrial.bench import cli

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(cli._Lines())
    log = logging.getLogger("timetrial.framework.files")
    log.addHandler(handler)
    try:
        wait_for_room(failing(1), Path("/data/x"), 1234, poll_seconds=0.001)
    finally:
        log.removeHandler(handler)
    assert capsys.readouterr().err == f"timetrial: {LINE}\n"
