"""Single hostile files that random damage seldom makes: bombs, promises, other programs' data."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from timetrial.bench import cli
from timetrial.bench.tune import ledger
from timetrial.bench.tune.settings import StudyPlan, load_plan
from timetrial.bench.tune.storage import Database, open_storage
from timetrial.framework.errors import UserError
from timetrial.tracking.read.algoperf_logs import read_algoperf_logs
from timetrial.tracking.read.times_csv import read_times
from timetrial.tracking.record.tables import MAX_BYTES, MAX_ROWS, read_checked
from timetrial.tracking.scores.fixed_targets import named_targets
from timetrial.workloads.data import arrays
from timetrial.workloads.data.arrays import arrays_in, read_array
from timetrial.workloads.data.errors import DataError

RUN = ["workload=flights_dlrm", "optimizer=adam"]


def header(shape: str, dtype: str = "<f8") -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header("(1000000000000,)"),
        header("(-1,)") + bytes(8),
        header("(" + "9" * 400 + ",)"),
        header("(1,)", "|O") + b"\x80\x04K\x01.",
        header("((((((1,),),),),),)"),
        header("(" * 5000),
        header("__import__('os').system('true')"),
        b"\x93NUMPY\x09\x00" + bytes(40),
        b"PK\x03\x04",
        b"",
    ],
)
def test_array_files_that_promise_more_than_they_hold(tmp_path: Path, content: bytes):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not an array file"):
        read_array(path)


def test_whole_array_files_are_read(tmp_path: Path):
    for array in (np.arange(6).reshape(2, 3), np.zeros((0, 2), np.uint8), np.array(1.5)):
        np.save(tmp_path / "x.npy", array)
        np.testing.assert_array_equal(read_array(tmp_path / "x.npy"), array)


def test_archives_of_arrays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrays, "MAX_BYTES", 1 << 20)
    file = io.BytesIO()
    np.savez(file, x=np.arange(3))
    assert arrays_in(file.getvalue())["x"].tolist() == [0, 1, 2]
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header("(1000000,)") + bytes(8_000_000))
    pickled = io.BytesIO()
    np.savez(pickled, x=np.array([{}], object))
    for data in (bomb.getvalue(), pickled.getvalue(), file.getvalue()[:-30], b""):
        with pytest.raises(ValueError, match="not an npz file"):
            arrays_in(data)


@pytest.fixture
def study(tmp_path: Path) -> tuple[StudyPlan, Path]:
    path = tmp_path / "study.log"
    words = ["study.trials=2", f"study.storage=journal:{path}", f"tracking.root={tmp_path}"]
    plan = load_plan([*RUN, *words])
    database = open_storage(plan.storage, 60)
    with database.lock():
        found = ledger.open_study(plan, database)
        ledger.settle(found, database, plan)
        database.storage.set_trial_user_attr(1, ledger.WORKER, ledger._worker())
    return plan, path


def opened(plan: StudyPlan) -> Database:
    database = open_storage(plan.storage, 60)
    with database.lock():
        found = ledger.open_study(plan, database)
        ledger.settle(found, database, plan)
        claimed = ledger.claim(found, database, plan)
    if claimed is not None:
        ledger.suggested(claimed, plan)
    return database


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"point":0', '"point":"x"'),
        ('"point":0', '"point":-1'),
        ('"point":0', '"point":[0]'),
        ('"op_code"', '"op_kode"'),
        ('"pid":', '"pit":'),
        ('"identity":"{', '"identity":"['),
        ('"learning_rate":0', '"learning_rate":3'),
    ],
)
def test_a_damaged_study_is_one_error(study: tuple[StudyPlan, Path], old: str, new: str):
    plan, path = study
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match="stud"):
        opened(plan)


@pytest.mark.parametrize("trials", [10_001, 99_999_999_999_999])
def test_absurd_numbers_of_trials_are_refused(trials: int):
    with pytest.raises(UserError, match="trials: expected at most 10000"):
        load_plan([*RUN, f"study.trials={trials}"])


def test_arguments_in_another_encoding(capsys: pytest.CaptureFixture[str]):
    for words in (["train", "label=\udcff"], ["\udcfe"], ["report", "--from", "\udcff"]):
        assert cli._exit_code(words) == 2
        assert "expected UTF-8 text" in capsys.readouterr().err


def test_very_long_words_give_short_messages(capsys: pytest.CaptureFixture[str]):
    for words in (
        ["x" * 10**5],
        ["train", "y" * 10**5],
        ["ui", "--port", "9" * 10**5],
        ["report", "--from", "x" * 10**5],
        ["sync", "--file", "x" * 300],
        ["train", *RUN, f"budget.calibration={'x' * 10**5}"],
        ["list", "x" * 10**5],
        ["train", *RUN, f"tracking.root=/tmp/{'x' * 300}"],
        ["train", *RUN, f"tracking.uri=sqlite:///{'x' * 300}"],
        ["report", "--from", "/tmp", "--targets", "x" * 5000],
        ["train", "optimizer=velo", RUN[0], f"optimizer.weights={'x' * 5000}"],
    ):
        assert cli._exit_code(words) == 2
        assert len(capsys.readouterr().err) < 5000


def test_tables_beyond_the_limits(tmp_path: Path):
    path = tmp_path / "t.csv"
    for content, reason in (
        ("optimizer,workload,value\n" + "a,b,1\n" * (MAX_ROWS + 1), "100,000 rows"),
        ("optimizer,workload,value\na,b,1,2\na,b,1,2\n", "more cells"),
        ("optimizer,workload,value\n" + "a" * MAX_BYTES, "bytes"),
        ("", "No columns"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=reason):
            read_times(path)
    with pytest.raises(UserError, match="expected a file"):
        read_checked(Path("/dev/zero"), "x")
    with pytest.raises(UserError, match="cannot be read"):
        read_times(Path("a\0b"))


def test_numbers_that_are_no_steps_or_targets(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text(
        "optimizer,workload,value,condition,seed\na,b,1e300,step,\na,b,1,step," + "9" * 5000 + "\n"
    )
    rows, problems = read_times(path)
    assert rows.empty
    assert len(problems) == 2
    (tmp_path / "t.json").write_text(json.dumps({"ogbg": 10**400}))
    with pytest.raises(UserError, match="expected numbers"):
        named_targets(str(tmp_path / "t.json"))
    (tmp_path / "t.json").write_text('{"ogbg": 1e400}')
    with pytest.raises(UserError, match="expected finite targets"):
        named_targets(str(tmp_path / "t.json"))


def test_many_equal_columns_of_a_log_are_read_quickly(tmp_path: Path):
    trial = tmp_path / "a" / "study_0" / "fastmri_jax" / "trial_1"
    trial.mkdir(parents=True)
    head = "score,global_step,validation/ssim" + ",validation/ssim" * 100_000
    (trial / "eval_measurements.csv").write_text(f"{head}\n1,2,0.5{',' * 100_000}\n")
    source = read_algoperf_logs(tmp_path)
    assert source.records[0].evaluations[0].metrics == {"validation/ssim": 0.5}
    assert all(len(str(problem)) < 1000 for problem in source.problems)


def test_a_line_without_an_end_is_refused(tmp_path: Path):
    pytest.importorskip("isal")
    from isal import igzip

    from timetrial.workloads.data.criteo import texts

    path = tmp_path / "day_0.gz"
    path.write_bytes(igzip.compress(bytes(100_000_000)))
    with pytest.raises(DataError, match="expected lines of at most"):
        list(texts(path))
