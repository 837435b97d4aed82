"""Every change of a journal is noticed; kills, cuts and resumed runs are no damage."""

from __future__ import annotations

import dataclasses
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded import ROWS, identity

from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record import aside, seals
from timetrial.tracking.record.environment import process_start
from timetrial.tracking.record.errors import DamagedJournalError, TrackingError
from timetrial.tracking.record.journal import (
    Journal,
    experiment_of,
    last_kind,
    read_journal,
    rows_between,
)
from timetrial.tracking.record.tracker import JournalTracker, resume_run, start_run

DAMAGED = "another checksum"


@pytest.fixture
def tracker(tmp_path: Path) -> JournalTracker:
    """An ended run that was resumed once."""
    first = start_run(tmp_path, identity())
    first.log(ROWS[:3])
    offset = first.offset
    first.log(ROWS[3:4])
    second = resume_run(first.path, offset, {"pid": "2"})
    second.log(ROWS[3:])
    second.finish(Status.FINISHED, {"stop_reason": "BUDGET"}, {"final/loss": 1.25})
    return second


def mutants(content: bytes) -> Iterator[tuple[str, bytes]]:
    """All single changes of these kinds, whatever the bytes mean."""
    lines = content.splitlines(keepends=True)
    for i in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[i // 8] ^= 1 << i % 8
        yield f"bit {i}", bytes(flipped)
    for match in re.finditer(rb"\d", content):
        digit = (int(match[0]) + 1) % 10
        yield "digit", content[: match.start()] + b"%d" % digit + content[match.end() :]
    for i in range(len(lines)):
        yield f"line {i} twice", b"".join([*lines[: i + 1], *lines[i:]])
        if i + 1 < len(lines):
            yield f"no line {i}", b"".join([*lines[:i], *lines[i + 1 :]])
            swapped = [*lines[:i], lines[i + 1], lines[i], *lines[i + 2 :]]
            yield f"lines {i} swapped", b"".join(swapped)
        bare = re.sub(rb', "crc32": "\w+"', b"", lines[i])
        yield f"line {i} bare", b"".join([*lines[:i], bare, *lines[i + 1 :]])
        yield f"line {i} blank", b"".join([*lines[:i], b"\n", *lines[i:]])
    yield "twice", content * 2
    yield "no format", content.replace(b'"format": 2, ', b"")
    yield "another format", content.replace(b'"format": 2, ', b'"format": 1, ')
    yield "a later format", content.replace(b'"format": 2, ', b'"format": 9, ')


def test_no_change_is_accepted_in_silence(tracker: JournalTracker, tmp_path: Path):
    content = tracker.path.read_bytes()
    path = tmp_path / "mutant.jsonl"
    for name, mutant in mutants(content):
        path.write_bytes(mutant)
        try:
            read_journal(path, evaluations_only=True)
        except TrackingError:
            continue
        pytest.fail(f"accepted: {name}")


def test_every_reader_refuses_a_changed_number(tracker: JournalTracker, tmp_path: Path):
    path = tracker.path
    content = path.read_bytes()
    offset = content.index(b'{"kind": "resume"')
    path.write_bytes(content.replace(b"1.4", b"1.5"))
    for read in (
        lambda: read_journal(path),
        lambda: read_journal(path, evaluations_only=True),
        lambda: rows_between(path, 0),
        lambda: rows_between(path, offset),
        lambda: resume_run(path, len(content), {}),
    ):
        with pytest.raises(DamagedJournalError, match=DAMAGED):
            read()
    assert [row.step for row in rows_between(path, 0, offset)[0]] == [0, 1, 2]  # intact up to there
    path.write_bytes(content.replace(b'"experiment": "tests"', b'"experiment": "other"'))
    assert experiment_of(path) is None


def test_damage_stays_visible_when_lines_are_added(tracker: JournalTracker):
    path = tracker.path
    path.write_bytes(path.read_bytes().replace(b"1.4", b"1.5"))
    journal = Journal(path)
    journal.sent("sqlite:///x", "id")
    journal.close()
    with pytest.raises(DamagedJournalError, match=r"line 9: .*another checksum"):
        read_journal(path)


def test_a_kill_at_any_byte_is_no_damage(tracker: JournalTracker, tmp_path: Path):
    content = tracker.path.read_bytes()
    whole = read_journal(tracker.path)
    path = tmp_path / "cut.jsonl"
    for size in range(content.index(b"\n") + 1, len(content)):
        path.write_bytes(content[:size])
        found = read_journal(path)
        assert list(found.rows) == list(whole.rows[: len(found.rows)])
        assert found.end is None


@pytest.mark.parametrize("size", [0, 1])
def test_a_journal_goes_on_after_any_cut_at_a_line(tracker: JournalTracker, size: int):
    content = tracker.path.read_bytes()
    ends = [match.end() for match in re.finditer(b"\n", content)]
    for end in ends:
        tracker.path.write_bytes(content)
        journal = Journal(tracker.path, cut_at=end)
        journal.resume({"pid": "3"})
        journal.rows(ROWS[:size])
        journal.close()
        assert read_journal(tracker.path).resumed[-1] == {"pid": "3"}
        assert len(rows_between(tracker.path, end)[0]) == size


FOREIGN = {
    "empty": b"",
    "zeros": bytes(40),
    "no text": b"\xff\xfe\x00\n\x80\n",
    "another program": b'{"level": "info", "msg": "started"}\n',
    "a number": b"17\n",
    "deep": b"[" * 100_000 + b"\n",
    "long integer": b'{"kind": "run", "started_ms": ' + b"9" * 5000 + b"}\n",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_files_that_are_no_journal_are_damaged(tmp_path: Path, content: bytes):
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(DamagedJournalError, match=r"run\.jsonl"):
        read_journal(path)
    assert experiment_of(path) is None


VALUES = ["1e400", "-1", "1.5", "null", "[]", '"x"', "9" * 400, "true", "{}", '"nan"', "NaN"]


def test_journals_of_earlier_versions_raise_one_kind_of_error(tracker: JournalTracker):
    old = re.sub(rb', "crc32": "\w{8}"|"format": 2, ', b"", tracker.path.read_bytes()).decode()
    keys = sorted({match[1] for match in re.finditer(r'"([\w/]+)": ', old)})
    refused = 0
    for key in keys:
        for value in VALUES:
            pattern = rf'"{re.escape(key)}": ("[^"]*"|[\w.]+)'
            tracker.path.write_text(re.sub(pattern, f'"{key}": {value}', old))
            try:
                contents = read_journal(tracker.path)
            except DamagedJournalError:
                refused += 1
            else:
                assert all(isinstance(text, str) for text in contents.tags.values())
                assert all(isinstance(row.step, int) for row in contents.rows)
    assert refused > len(keys)


def test_damaged_journals_are_set_aside_once_each(tracker: JournalTracker):
    path = tracker.path
    content = path.read_bytes().replace(b"1.4", b"1.5")
    for suffix in (".damaged", ".damaged-2"):
        path.write_bytes(content)
        with pytest.raises(TrackingError) as caught:
            read_journal(path)
        assert aside.set_aside(path, caught.value) == f"it is set aside as {path.name}{suffix}"
        assert not path.exists()
        assert path.with_name(path.name + suffix).read_bytes() == content


def test_a_journal_that_its_process_may_still_write_stays(tmp_path: Path):
    pid = str(os.getpid())
    tags = {"host": os.uname().nodename, "pid": pid, "process_start": process_start(int(pid)) or ""}
    run = start_run(tmp_path, dataclasses.replace(identity(), tags={**identity().tags, **tags}))
    run.log([Row(0, 0.0, {"train/loss": 2.5})])
    run.path.write_bytes(run.path.read_bytes().replace(b"2.5", b"2.6"))
    with pytest.raises(TrackingError) as caught:
        read_journal(run.path)
    assert "may still run" in aside.set_aside(run.path, caught.value)
    assert run.path.exists()


def test_a_last_line_longer_than_a_block_is_found(tmp_path: Path):
    header = dataclasses.replace(identity(), config_yaml="x" * 300_000)
    run = start_run(tmp_path, header)
    assert last_kind(run.path) == "run"


def test_no_journal_is_visible_before_its_first_line(tmp_path: Path):
    run = start_run(tmp_path, identity())
    assert os.listdir(tmp_path) == [run.path.name]


def test_the_checksum_of_the_last_line_covers_all_lines():
    objects = [b'{"a": %d}' % random.Random(i).randrange(10**6) for i in range(50)]
    lines, state = seals.seal(objects, 0)
    text = b"".join(lines)
    assert seals.is_intact(text, 0)
    assert seals.state_after(text) == state
    assert seals.first_damaged(text, 0) == -1
    changed = text.replace(objects[17][:-1], b'{"a": 3', 1)
    assert not seals.is_intact(changed, 0)
    assert seals.first_damaged(changed, 0) == 17
