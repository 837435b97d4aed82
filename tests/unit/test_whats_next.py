"""What ``timetrial`` says without a command, for every state of the record."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from recorded import ROWS, TAGS

from timetrial.bench import begun, cli
from timetrial.bench.begun import Begun, forget, note, notes, run_key
from timetrial.bench.states import progress
from timetrial.bench.whats_next import show_next, tracking_of, whats_next
from timetrial.framework.config import Tracking
from timetrial.framework.errors import ConfigError, UserError
from timetrial.framework.types import Status
from timetrial.tracking.read.glance import Glance, glances
from timetrial.tracking.record.environment import environment_tags
from timetrial.tracking.record.journal import End, Journal, RunHeader

WORDS = ("bench", "suite=quick", "seeds=[0,1,2]")


def record(
    root: Path,
    name: str,
    status: Status | None = Status.FINISHED,
    *,
    experiment: str = "timetrial-quick",
    ended_ms: int = 1,
    sent: bool = True,
    note_text: str = "",
    **tags: str,
) -> Path:
    """Writes the journal of a run; without a status it has no end."""
    (root / "journals").mkdir(parents=True, exist_ok=True)
    path = root / "journals" / f"{len(list((root / 'journals').iterdir())):04d}.jsonl"
    journal = Journal(path)
    suite = {"suite": "quick"} if experiment == "timetrial-quick" else {}
    journal.start(path.stem, 1, RunHeader(experiment, name, {**TAGS, **suite, **tags}))
    journal.rows(ROWS)
    if status is not None:
        journal.end(End(status, ended_ms, {}, {}, {"traceback.txt": note_text}))
        if sent:
            journal.sent("sqlite:///mlflow.db", "1")
            journal.sent("http://elsewhere", "2")
    journal.close()
    return path


def race(names: Sequence[str], words: tuple[str, ...] = WORDS, at: int = 1) -> Begun:
    keys = tuple(run_key(name, "step") for name in names)
    return Begun("race", "quick", "timetrial-quick", words, keys, at)


def dead() -> dict[str, str]:
    """Tags of a process of this machine that has ended."""
    with subprocess.Popen(["true"]) as ended:
        pass
    return {**environment_tags(), "pid": str(ended.pid)}


def text_of(root: Path) -> str:
    return whats_next(Tracking(root=str(root)))


def commands(text: str) -> list[list[str]]:
    """The words of every command in the text; each is understood by the parser."""
    found = [line.partition("timetrial ")[2] for line in text.splitlines() if line[:2] == "  "]
    words = [shlex.split(line.partition("    ")[0]) for line in found if line]
    for each in words:
        cli._parsed(each)
    return words


def test_with_nothing_recorded_the_first_command_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for root in (tmp_path / "none", tmp_path):
        text = text_of(root)
        assert text.startswith(f"Nothing is recorded in {root}/ yet. The first command:\n")
        assert commands(text)[0] == ["bench"]
        assert ["report", "--paper"] in commands(text)
        assert "MLFLOW" not in text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert ["ui"] in commands(text_of(tmp_path))


def test_a_race_half_done_says_how_far_it_is_and_how_it_continues(tmp_path: Path):
    note(tmp_path, race(["a", "b", "c", "d", "e"]))
    record(tmp_path, "a")
    record(tmp_path, "b", Status.FAILED)
    record(tmp_path, "b", Status.FINISHED)
    record(tmp_path, "c", Status.FAILED)
    record(tmp_path, "d", None, **dead())
    text = text_of(tmp_path)
    assert "race quick: 2 of 5 runs finished, 1 failed, 1 interrupted" in text
    assert "makes it now" not in text
    assert commands(text) == [list(WORDS)]
    record(tmp_path, "e", None, **environment_tags())
    assert "1 running, 1 failed, 1 interrupted\n  another process makes it now" in text_of(tmp_path)


def test_without_a_note_the_journals_tell_the_suite(tmp_path: Path):
    record(tmp_path, "a", suite="quick")
    record(tmp_path, "b", Status.KILLED, suite="quick")
    record(tmp_path, "b", Status.KILLED, suite="mini", experiment="mine")
    text = text_of(tmp_path)
    root = f"tracking.root={tmp_path}"
    assert "race quick: 1 of 2 recorded runs finished, 1 interrupted" in text
    assert commands(text) == [
        ["bench", "suite=quick", root],
        ["bench", "suite=mini", "tracking.experiment=mine", root],
    ]


def test_a_complete_race_shows_its_report_and_the_ui(tmp_path: Path):
    note(tmp_path, race(["a", "b"]))
    for name in ("a", "b"):
        record(tmp_path, name, ended_ms=1000 * int(time.time() - 100))
    assert commands(text_of(tmp_path))[0] == ["report", *WORDS[1:]]
    page = tmp_path / "reports" / "quick" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("page")
    text = text_of(tmp_path)
    assert "race quick: all 2 runs finished" in text
    assert f"report    {page}" in text
    assert commands(text) == [["ui", "suite=quick", f"tracking.root={tmp_path}"]]
    os.utime(page, (time.time() - 200,) * 2)
    text = text_of(tmp_path)
    assert "newer runs are not in it" in text
    assert commands(text)[0] == ["report", *WORDS[1:]]


def test_another_command_that_is_complete_hides_no_half_done_race(tmp_path: Path):
    note(tmp_path, race(["a", "b"]))
    time.sleep(0.01)
    note(tmp_path, race(["a"], ("bench", "seeds=[0]")))
    record(tmp_path, "a")
    text = text_of(tmp_path)
    assert text.index("1 of 2 runs") < text.index("its run finished")
    assert commands(text)[0] == list(WORDS)


def test_a_study_counts_the_points_of_its_trials(tmp_path: Path):
    words = ("tune", "workload=flights_dlrm", "optimizer=adam", "study.trials=4")
    points = tuple("0123")
    note(tmp_path, Begun("study", "flights-adam", "timetrial-tune", words, points))
    more = {"experiment": "timetrial-tune", "study": "flights-adam"}
    record(tmp_path, "t", Status.FAILED, point="0", **more)
    record(tmp_path, "t", Status.FINISHED, point="0", **more)
    record(tmp_path, "t", Status.FINISHED, point="1", **more)
    record(tmp_path, "t", Status.FINISHED, point="2", **{**more, "study": "another"})
    text = text_of(tmp_path)
    assert "study flights-adam: 2 of 4 trials finished\n" in text
    assert "study another: its recorded trial finished" in text
    assert commands(text)[0] == list(words)


def test_single_runs_continue_by_their_command(tmp_path: Path):
    words = ("train", "workload=flights_dlrm", "optimizer=adam")
    one = Begun("run", "a", "timetrial", words, ("d1",))
    note(tmp_path, one)
    record(tmp_path, "a", Status.KILLED, experiment="timetrial", sent=False, config_hash="d1")
    record(tmp_path, "a", experiment="timetrial", config_hash="d2")  # of another setting
    text = text_of(tmp_path)
    assert "run a: interrupted\n" in text
    assert "single runs in timetrial: its recorded run finished" in text
    assert list(words) in commands(text)
    assert "MLflow has not" not in text
    forget(tmp_path, one)
    text = text_of(tmp_path)
    assert "single runs in timetrial: 1 of 2 recorded runs finished, 1 interrupted" in text
    assert "  continue  the same command (a)" in text


def test_names_of_a_stranger_print_no_control_characters(tmp_path: Path, capsys):
    record(tmp_path, "a\x1b[2J", Status.KILLED, experiment="x\x1b]0;y\x07\n")
    assert show_next(Tracking(root=str(tmp_path))) == 0
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert "a?[2J" in out


def test_damage_is_said_with_its_remedy_and_stops_nothing(tmp_path: Path):
    elsewhere = "tracking.uri=http://127.0.0.1:1"
    note(tmp_path, race(["a", "b"], ("bench", elsewhere)))
    record(tmp_path, "a", sent=False)
    for name, content in {"x": b"", "y": b"\x00\xff" * 9, "z": b'{"kind": "run"}\n'}.items():
        (tmp_path / "journals" / f"{name}.jsonl").write_bytes(content)
    for name, content in {"1": "", "2": "[]", "3": '{"what": "race"}', "4": "[" * 10**5}.items():
        (tmp_path / "begun" / f"{name}.json").write_text(content)
    (tmp_path / "mlflow.db").write_bytes(b"no database")
    text = text_of(tmp_path)
    assert "race quick: 1 of 2 runs finished\n" in text
    assert "damaged journals: 3 (x.jsonl, y.jsonl, z.jsonl)" in text
    assert "runs that MLflow has not: 1" in text
    assert commands(text)[-1] == ["sync", elsewhere, f"tracking.root={tmp_path}"]


def test_a_root_that_cannot_be_read_is_one_line(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r"tracking\.root: cannot read .*file: Not a directory"):
        text_of(file)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match=r"tracking\.root: cannot read"):
        text_of(tmp_path / "loop")
    with pytest.raises(ConfigError, match=r"did you mean 'tracking\.root'"):
        tracking_of(["tracking.rot=x"])
    with pytest.raises(ConfigError, match="seed"):
        tracking_of(["seed=1"])


def test_notes_hold_no_credentials_and_only_printable_words(tmp_path: Path):
    secret = ("bench", "tracking.uri=postgresql://me:s3cretword@db/t")
    note(tmp_path, race(["a"], secret))
    (path,) = (tmp_path / "begun").iterdir()
    assert b"s3cretword" not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    assert notes(tmp_path)[0].words == ("bench", "tracking.uri=postgresql://me:***@db/t")
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "words": ["bench", "\x1b[2J"]}))
    assert notes(tmp_path) == []
    note(tmp_path, dataclasses.replace(race(["a"]), words=()))
    assert len(list((tmp_path / "begun").iterdir())) == 1


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog):
    (tmp_path / begun.DIRECTORY).write_text("a file")
    note(tmp_path, race(["a"]))
    assert "will not know of this one" in caplog.text


@pytest.mark.parametrize("size", [0, 100, 65_000, 70_000, 500_000])
def test_the_end_of_a_journal_is_found_whatever_its_size(size: int, tmp_path: Path):
    record(tmp_path, "a", Status.FAILED, ended_ms=7, note_text="x" * size)
    record(tmp_path, "b", None, **dead())
    with record(tmp_path, "c", Status.FAILED, ended_ms=8).open("ab") as file:
        file.write(b'{"kind": "sen')  # torn by a kill
    found, damaged = glances(tmp_path)
    assert damaged == []
    seen = [(run.name, run.status, run.ended_ms, run.sent) for run in found]
    assert seen == [
        ("a", Status.FAILED, 7, True),
        ("b", Status.KILLED, 0, False),
        ("c", Status.FAILED, 8, True),
    ]


def test_only_runs_of_the_same_condition_and_experiment_count():
    def run(name: str, condition: str, experiment: str = "timetrial-quick") -> Glance:
        return Glance(experiment, name, {"suite": "quick", "condition": condition}, Status.FINISHED)

    both = Begun(
        "race", "quick", "timetrial-quick", WORDS, (run_key("a", "step"), run_key("a", "time"))
    )
    (state,) = progress([run("a", "step"), run("a", "step"), run("b", "time")], [both])
    assert state.counts["finished"] == 1
    elsewhere = [run("a", "time", "other")]
    assert progress(elsewhere, [both])[0].counts["finished"] == 0


def test_it_loads_neither_jax_nor_mlflow_nor_numpy(tmp_path: Path):
    record(tmp_path, "a")
    program = (
        "import sys\n"
        "from timetrial.bench import cli\n"
        "try:\n"
        f"    cli.main(['next', 'tracking.root={tmp_path}'])\n"
        "except SystemExit as stopped:\n"
        "    assert not stopped.code\n"
        "heavy = {'jax', 'flax', 'optax', 'mlflow', 'optuna', 'numpy', 'sqlalchemy', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "race quick: its recorded run finished" in done.stdout
