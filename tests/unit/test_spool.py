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
from recorded import identity

from timetrial.framework.records import Row
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import End, Spool, read_spool, unsent_spools

ROWS = [
    Row(0, 0.0, {"train/loss": 2.5}, 1000),
    Row(1, 0.25, {"batch/loss": math.nan, "batch/grad_norm": math.inf}, 1001),
    Row(2, 0.5, {"batch/loss": -math.inf, "naïve/λ": 1e-300}, 1002),
]
END = End("FINISHED", 1003, {"stop_reason": "BUDGET"}, {"final/loss": math.inf})


def written(path: Path, *, end: bool = True) -> Path:
    spool = Spool(path)
    spool.start("id-1", 999, identity())
    spool.rows(ROWS)
    if end:
        spool.end(END)
    spool.close()
    return path


def test_reads_back_what_was_written(tmp_path: Path):
    contents = read_spool(written(tmp_path / "run.jsonl"))
    assert (contents.spool_id, contents.started_ms) == ("id-1", 999)
    assert contents.identity == identity()
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
        assert [row.step for row in read_spool(path).rows] == [0, 1]
    # A writer that goes on does not run into the torn piece.
    spool = Spool(path)
    spool.rows([ROWS[2]])
    spool.close()
    assert [row.step for row in read_spool(path).rows] == [0, 1, 2]


def test_a_torn_line_longer_than_one_block_is_cut_off_too(tmp_path: Path):
    path = written(tmp_path / "run.jsonl", end=False)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 200_000)
    Spool(path).close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"{}", b"not json", b"[1]", b""])
def test_damage_before_the_end_is_an_error_that_names_the_line(tmp_path: Path, damage: bytes):
    path = written(tmp_path / "run.jsonl")
    lines = path.read_bytes().split(b"\n")
    lines[2] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(TrackingError, match=r"line 3: expected one JSON object"):
        read_spool(path)


def test_missing_and_empty_files_are_errors(tmp_path: Path):
    with pytest.raises(TrackingError, match="No such file"):
        read_spool(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(TrackingError, match="first line of kind 'run'"):
        read_spool(tmp_path / "empty.jsonl")
    with pytest.raises(TrackingError, match="cannot be written"):
        Spool(tmp_path / "no directory" / "run.jsonl")


def test_unsent_are_those_that_ended_and_were_not_sent(tmp_path: Path):
    (tmp_path / "0-empty.jsonl").touch()
    written(tmp_path / "1-running.jsonl", end=False)
    written(tmp_path / "2-ended.jsonl")
    written(tmp_path / "3-sent.jsonl")
    spool = Spool(tmp_path / "3-sent.jsonl")
    spool.sent("sqlite:///x")
    spool.close()
    assert unsent_spools(tmp_path) == [tmp_path / "2-ended.jsonl"]
    assert read_spool(tmp_path / "3-sent.jsonl").sent


WRITER = """
import sys
from pathlib import Path
from timetrial.framework.records import Row
from timetrial.tracking.record.journal import Spool
from recorded import identity
spool = Spool(Path(sys.argv[1]))
spool.start("id-1", 0, identity())
step = 0
while True:
    spool.rows([Row(step, step * 0.5, {"batch/loss": 1.0 / (step + 1)}, step)])
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
    rows = read_spool(path).rows
    assert [row.step for row in rows] == list(range(len(rows)))
    assert len(rows) >= path.read_bytes().count(b"\n") - 1


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from timetrial.framework.records import Row
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import Spool
from recorded import identity
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
spool = Spool(path)
spool.start("id-1", 0, identity())
limit = path.stat().st_size + 1042  # in the middle of a line
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
step = 0
try:
    while True:
        spool.rows([Row(step, 0.0, {"batch/loss": 1.0}, step)])
        step += 1
except TrackingError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.rows([Row(1000, 0.0, {"batch/loss": 1.0}, 1000)])
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
    steps = [row.step for row in read_spool(path).rows]
    assert len(steps) > 5
    assert steps == [*range(len(steps) - 1), 1000]


def _with_tests_on_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
