from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import command_line
from data_sets import WRITERS
from raw_files import molecule_tables, needs_data, write_criteo, write_ogbg
from tiny import TinyWorkload
from tiny_cli import TinySettings

from timetrial.bench import cli
from timetrial.bench.data import preparing
from timetrial.framework.entries import WorkloadEntry
from timetrial.workloads import WORKLOADS
from timetrial.workloads.data import catalogue, libraries
from timetrial.workloads.data import preparing as writing


@pytest.fixture
def timetrial(capsys):
    return command_line(capsys)


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_ogbg(tmp_path / "raw", molecule_tables(40))
    return tmp_path / "raw"


def line_of(text: str, name: str) -> list[str]:
    """The words of the line of a table that starts with a name."""
    return next(line for line in text.splitlines() if line.startswith(name)).split()


@needs_data
@pytest.mark.parametrize("workload", WRITERS)
def test_prepare_then_verify_then_list(workload: str, timetrial, root, tmp_path: Path):
    WRITERS[workload](tmp_path / "raw")
    words = ("--source", str(tmp_path / "raw"), "--sample", "--workers", "1")
    done = timetrial("data", "prepare", workload, *words)
    assert (done.code, done.err) == (0, "")
    data = catalogue.DATA_SETS[workload]
    for text in (data.raw_text, data.licence, data.where, "disk", "prepared: train"):
        assert text in done.out
    again = timetrial("data", "prepare", workload)
    assert again.code == 0
    assert "prepared already" in again.out
    checked = timetrial("data", "verify", workload)
    assert (checked.code, checked.err) == (0, "")
    assert f"{workload}: no check failed" in checked.out
    assert all(line.startswith(("ok ", "not made")) for line in checked.out.splitlines()[:-2])
    listed = timetrial("data", "list")
    assert line_of(listed.out, workload)[1] == "prepared"
    assert line_of(listed.out, workload)[-2:] == ["yes", "0"]
    assert f"data prepare {workload} " not in listed.out
    assert listed.out.count("--source DIR") == 3


@needs_data
def test_the_needs_are_said_first(timetrial, root):
    done = timetrial("data", "prepare", "criteo1tb", "--workers", "17")
    assert done.code == 2
    assert "350 GB in" in done.out
    assert "about 4 h 00 min of one core, 14 min with 17 workers" in done.out
    assert "--source: expected the directory of the raw files, got none" in done.err


@needs_data
def test_every_missing_raw_file_is_named(timetrial, root, tmp_path: Path):
    write_criteo(tmp_path / "raw", rows=1)
    (tmp_path / "raw" / "day_3").unlink()
    (tmp_path / "raw" / "day_22.gz").unlink()
    done = timetrial("data", "prepare", "criteo1tb", "--source", str(tmp_path / "raw"))
    assert done.code == 2
    assert "found no day_3.gz or day_3, no day_22.gz or day_22; get them from" in done.err
    done = timetrial("data", "prepare", "imagenet_resnet", "--source", str(tmp_path / "none"))
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "matched-frequency.tar.gz"):
        assert name in done.err
    assert not root.exists()


@needs_data
def test_too_little_disk_space_is_refused(timetrial, root, raw, monkeypatch):
    monkeypatch.setattr(catalogue, "free_space", lambda directory: 10**6)
    done = timetrial("data", "prepare", "ogbg", "--source", str(raw))
    assert done.code == 2
    assert "expected 600 MB of free disk space, found 1.0 MB" in done.err
    assert not root.exists()


@needs_data
def test_bad_records_are_named_and_bounded(timetrial, root, tmp_path: Path):
    tables = molecule_tables(40)
    tables["raw/node-feat"][0, 0] = 300
    write_ogbg(tmp_path, tables)
    words = ("data", "prepare", "ogbg", "--source", str(tmp_path), "--sample", "--workers", "1")
    done = timetrial(*words)
    assert done.code == 2
    rule = "pcba.zip: graph 0: expected node_feat of whole numbers from 0 to 255"
    assert rule in done.err
    assert line_of(timetrial("data", "list").out, "ogbg")[1] == "unfinished"
    done = timetrial(*words, "--skip-bad", "1")
    assert done.code == 0
    assert f"left out: {tmp_path}/{rule}" in done.out
    assert line_of(timetrial("data", "list").out, "ogbg")[-1] == "1"


@needs_data
def test_a_failed_check_is_exit_code_1(timetrial, root, raw):
    timetrial("data", "prepare", "ogbg", "--source", str(raw), "--sample", "--workers", "1")
    next(root.rglob("train-nodes.npy")).unlink()
    done = timetrial("data", "verify", "ogbg")
    assert done.code == 1
    assert "FAILED    digests: expected 21 files, 1 are missing" in done.out
    assert "ogbg: 3 checks failed" in done.out


@needs_data
def test_verify_can_check_the_untrained_model(timetrial, root, raw, monkeypatch):
    entry = WorkloadEntry("tiny", TinySettings, lambda settings: TinyWorkload())
    monkeypatch.setitem(WORKLOADS.built_in, "ogbg", entry)
    timetrial("data", "prepare", "ogbg", "--source", str(raw), "--sample", "--workers", "1")
    without = timetrial("data", "verify", "ogbg")
    assert without.code == 0
    assert "not made  untrained: no accelerator" in without.out
    done = timetrial("data", "verify", "ogbg", "--untrained")
    assert done.code == 1
    assert "FAILED    untrained: loss " in done.out
    assert "expected loss 0.63 to 0.87, norm 0.9 to 5.3" in done.out


def test_without_the_extra_it_says_what_to_install(timetrial, root, raw, monkeypatch):
    monkeypatch.setattr(libraries, "missing_libraries", lambda: ("grain", "cv2"))
    monkeypatch.setattr("timetrial.bench.data.listing.missing_libraries", lambda: ("grain", "cv2"))
    listed = timetrial("data", "list")
    assert listed.code == 0
    assert "pip install 'timetrial[data]' (not installed: grain, cv2)" in listed.out
    done = timetrial("data", "prepare", "ogbg", "--source", str(raw))
    assert done.code == 2
    assert "expected the extra [data], found no grain, cv2" in done.err
    assert not root.exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("prepare",), "data prepare: expected a data set. Known: imagenet_resnet"),
        (("prepare", "ogb"), "unknown data set 'ogb'; did you mean 'ogbg'?"),
        (("verify", "ogbg"), "expected a prepared data set, found none"),
        (("verify", "ogbg", "--skip-bad", "1"), "--skip-bad: expected with data prepare, got data"),
        (("list", "--untrained"), "--untrained: expected with data verify, got data list"),
        (("list", "ogbg"), "data list: expected no name, got ogbg"),
        (("prepare", "ogbg", "--workers", "0"), "--workers: expected a whole number >= 1, got 0"),
    ],
)
def test_wrong_words_are_one_line(words: tuple[str, ...], text: str, timetrial, root):
    done = timetrial("data", *words)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert text in line
    assert not root.exists()


@needs_data
def test_another_directory_can_be_named(timetrial, root, raw, tmp_path: Path):
    other = ("--data", str(tmp_path / "other"))
    words = ("--source", str(raw), "--sample", "--workers", "1")
    assert timetrial("data", "prepare", "ogbg", *words, *other).code == 0
    assert timetrial("data", "verify", "ogbg", *other).code == 0
    assert line_of(timetrial("data", "list", *other).out, "ogbg")[1] == "prepared"
    assert line_of(timetrial("data", "list").out, "ogbg")[1] == "missing"


SLOW = """
import sys, time
from timetrial.bench import cli
from timetrial.workloads.data import criteo
run = criteo.Day.run
def slowly(self, *rest):
    time.sleep(0.4)
    return run(self, *rest)
criteo.Day.run = slowly
cli.main(sys.argv[1:])
"""


@needs_data
def test_an_interrupted_preparation_says_that_it_continues(timetrial, root, tmp_path: Path):
    write_criteo(tmp_path / "raw", rows=3)
    words = ["data", "prepare", "criteo1tb", "--source", str(tmp_path / "raw"), "--sample"]
    words += ["--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *words], stderr=subprocess.PIPE, text=True
    )
    notes = writing.Workshop(root, "criteo1tb/1.0.0").notes
    for _ in range(600):
        if len(list(notes.glob("*.json"))) >= 2:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert error == "timetrial: interrupted; the same command continues\n"
    assert 2 <= len(list(notes.glob("*.json"))) < 24
    assert timetrial(*words).code == 0


DOCS = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


@pytest.mark.parametrize("line", re.findall(r"^timetrial (data .*?)(?: *#.*)?$", DOCS, re.M))
def test_the_commands_of_the_documentation_are_understood(line: str):
    options = cli._parsed(shlex.split(line))
    assert options.workload is None or options.workload in catalogue.DATA_SETS


@pytest.mark.parametrize("data", catalogue.DATA_SETS.values(), ids=lambda data: data.workload)
def test_the_documentation_has_the_numbers_of_the_table(data: catalogue.DataSet):
    row = next(line for line in DOCS.splitlines() if line.startswith(f"| `{data.workload}`"))
    raw, prepared, hours = [cell.strip() for cell in row.split("|")[3:6]]
    assert float(raw.removesuffix(" GB")) == pytest.approx(data.raw_bytes / 1e9, abs=0.5)
    assert float(prepared.removesuffix(" GB")) == pytest.approx(data.bytes / 1e9)
    assert float(hours) == data.cpu_hours
    assert re.search(r"https://[^ ]+", data.where)[0] in DOCS


class Clock:
    """Stands in for ``time`` in the module under test."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_time_left_is_that_of_the_work_of_this_attempt(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(preparing, "time", clock)
    estimate = preparing.Estimate()
    assert estimate.left(600, 1000) is None  # of an earlier attempt
    clock.now = 10
    assert estimate.left(700, 1000) == pytest.approx(30)
    clock.now = 12
    assert estimate.left(0, 50) is None  # the next stage
    clock.now = 13
    assert estimate.left(10, 50) == pytest.approx(4)


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(preparing, "time", clock)
    with preparing.work_bar("ogbg") as show:
        for second in range(0, 101, 5):
            clock.now = second
            show(second * 10**7, 10**9)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "ogbg: 65% of 1.0 GB, 35 s left",
    ]
