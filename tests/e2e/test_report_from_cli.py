"""``timetrial report --from`` as it is typed: sources, rules, targets, r_max, messages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recorded import record

from timetrial.bench import cli
from timetrial.framework.records import Row
from timetrial.tracking.report.paper import paper_times
from timetrial.tracking.scores.scoring import scores
from timetrial.tracking.store.opening import open_store

GOLDEN = Path(__file__).parents[1] / "golden" / "algoperf"
TIMES = "optimizer,workload,value\nmine,wmt,100\nmine,ogbg,40\nbaseline,wmt,150\nbaseline,ogbg,10\n"
RIVAL = "optimizer,workload,value\nrival,wmt,200\nrival,ogbg,20\n"
TITLE = ["submission", "score", "targets", "reached", "fastest", "on", "speed-up", "over"]

Call = Callable[..., str]


@pytest.fixture
def timetrial(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Call:
    """Runs one command line in an empty directory; returns what it printed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "times.csv").write_text(TIMES)
    (tmp_path / "rival.csv").write_text(RIVAL)

    def call(line: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as stopped:
            cli.main(line.split())
        printed = capsys.readouterr()
        assert stopped.value.code == code, printed.err
        return printed.err if code else printed.out

    return call


def board(out: str) -> pd.DataFrame:
    return pd.read_csv(Path(out) / "leaderboard.csv", index_col="submission")


def reached(out: str) -> pd.DataFrame:
    table = pd.read_csv(Path(out) / "time_to_target.csv")
    return table[table["split"] == "validation"].set_index("optimizer")


def test_settings_stand_on_either_side_of_the_sources(timetrial: Call):
    lines = (
        "report tracking.root=a --from times.csv rival.csv --rules algoperf-v0.6",
        "report --rules algoperf-v0.6 --from times.csv tracking.root=b rival.csv",
        "report --from times.csv --from rival.csv --rules algoperf-v0.6 tracking.root=c",
    )
    pages = []
    for root, line in zip("abc", lines, strict=True):
        assert f"report   {root}/reports/from/report.html" in timetrial(line)
        pages.append(board(f"{root}/reports/from"))
    assert all(page.equals(pages[0]) for page in pages)
    # wmt: 100, 150, 200; ogbg: 40, 10, 20, so that mine is 4 times the best there.
    grid = np.linspace(1, 4, 100)
    expected = {
        "mine": np.trapezoid(1.0 + (grid >= 4), grid) / 3 / 8,
        "baseline": np.trapezoid(1.0 + (grid >= 1.5), grid) / 3 / 8,
        "rival": np.trapezoid(2.0 * (grid >= 2), grid) / 3 / 8,
    }
    assert pages[0]["score"].to_dict() == pytest.approx(expected, abs=1e-12)


def test_a_place_that_looks_like_a_setting_is_a_place(timetrial: Call, tmp_path: Path):
    (tmp_path / "times.csv").rename(tmp_path / "pace=1")
    assert "(8 count)" not in timetrial("report --from pace=1 --rules v0.6 tracking.root=r")
    assert set(board("r/reports/from").index) == {"mine", "baseline"}
    message = timetrial("report --from times=1.csv", 2)
    assert "--from: expected at least one SOURCE, got only times=1.csv" in message


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("v05_external_tuning", "algoperf-v05"),
        pytest.param("v2_self_tuning", "algoperf-self", marks=pytest.mark.slow),
        pytest.param("v2_self_tuning_first", "v2-self", marks=pytest.mark.slow),
    ],
)
def test_published_leaderboards_follow_from_their_tables_as_they_are(
    timetrial: Call, file: str, rules: str
):
    """The form in which AlgoPerf's scorer writes them: one column per workload."""
    timetrial(f"report --from {GOLDEN / file}.csv --rules {rules} --out out")
    theirs = pd.read_csv(GOLDEN / f"{file}.csv", index_col="submission")["score"]
    np.testing.assert_allclose(board("out")["score"][theirs.index], theirs, rtol=0, atol=1e-12)


def test_the_rules_are_named_and_what_nobody_ran_is_said(timetrial: Call):
    source = GOLDEN / "v06_external_tuning.csv"
    out = timetrial(f"report --from {source} --rules algoperf --out new")
    assert "rules    algoperf-v2, 9 base workloads, r_max 4, times beyond 4 times the best" in out
    assert (
        "note     nobody ran finewebedu_lm: no score can exceed 8/9; --rules algoperf-v0.6 needs "
        "none of them" in out
    )
    old = timetrial(f"report --from {source} --rules algoperf-v0.6 --out old")
    assert "rules    algoperf-v0.6, 8 base workloads" in old
    assert "note" not in old
    np.testing.assert_allclose(board("new")["score"] * 9, board("old")["score"] * 8, rtol=1e-12)
    assert "algoperf-v2, 9 base workloads" in Path("new/report.html").read_text()


@pytest.mark.slow
def test_r_max_replaces_that_of_the_rules_and_says_so(timetrial: Call, tmp_path: Path):
    out = timetrial("report --from times.csv rival.csv --rules v0.6 --r-max 2.5 --out a")
    assert "rules    algoperf-v0.6, 8 base workloads, r_max 2.5 instead of 4, times beyond 4" in out
    grid = np.linspace(1, 2.5, 100)
    expected = {
        "mine": 1 / 8,
        "baseline": np.trapezoid(1.0 + (grid >= 1.5), grid) / 1.5 / 8,
        "rival": np.trapezoid(2.0 * (grid >= 2), grid) / 1.5 / 8,
    }
    assert board("a")["score"].to_dict() == pytest.approx(expected, abs=1e-12)
    out = timetrial("report --from times.csv --rules algoperf-2023 --r-max 3 --out b")
    assert (
        "rules    algoperf-2023, all workloads that were run, r_max 3 instead of the largest"
        in (out)
    )
    rows = [
        (condition, split, name, workload, value)
        for condition in ("time", "step")
        for split in ("train", "validation")
        for (name, workload), value in paper_times(condition, split).stack().items()
    ]
    columns = ["condition", "split", "optimizer", "workload", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "paper.csv", index=False)
    for line, words in (("", "3 (time control) and 1.5 (step control)"), (" --r-max 2", "2 inst")):
        assert f"rules    paper, r_max {words}" in timetrial(f"report --from paper.csv{line}")
    found = pd.read_csv("runs/reports/from/scores.csv")
    for condition in ("time", "step"):
        for split in ("train", "validation"):
            here = found[(found["condition"] == condition) & (found["split"] == split)]
            ours = here.set_index("optimizer")["score"]
            expected = scores(paper_times(condition, split), r_max=2.0)
            np.testing.assert_allclose(ours[expected.index], expected, rtol=0, atol=1e-12)


def test_r_max_is_that_of_the_papers_own_report_too(timetrial: Call):
    timetrial("report --paper --r-max 2 tracking.root=p")
    found = pd.read_csv("p/reports/paper/scores.csv")
    here = found[(found["condition"] == "step") & (found["split"] == "train")]
    expected = scores(paper_times("step", "train"), r_max=2.0)
    ours = here.set_index("optimizer")["score"]
    np.testing.assert_allclose(ours[expected.index], expected, rtol=0, atol=1e-12)


def runs_in(root: Path, experiment: str = "tests") -> None:
    """Two optimizers on the workload tiny, three seeds each, as journals and in MLflow."""
    store = open_store(f"sqlite:///{root}/mlflow.db", root=root)
    for optimizer, pace in (("adam", 1.0), ("velo", 2.0)):
        for seed in ("0", "1", "2"):
            rows = [Row(k, pace * k, {"validation/accuracy": 0.1 * k}) for k in range(6)]
            tags = {"optimizer": optimizer, "seed": seed, "condition": "time", "budget": "5"}
            record(store, rows=rows, experiment=experiment, **tags)


def test_journals_mlflow_logs_and_tables_are_scored_together(timetrial: Call, tmp_path: Path):
    runs_in(tmp_path / "made")
    (tmp_path / "targets.csv").write_text("workload,target\ntiny,0.3\nwmt,30\n")
    for source in ("made", "made/journals", f"sqlite:///{tmp_path}/made/mlflow.db"):
        timetrial(f"report --from {source} --targets targets.csv --out one")
        assert reached("one")["value"].to_dict() == {"adam": 3.0, "velo": 6.0}
    for study in range(3):
        trial = tmp_path / "logs" / "lamb" / f"study_{study}" / "wmt_jax" / "trial_1"
        trial.mkdir(parents=True)
        head = "accumulated_submission_time,global_step,score,validation/bleu"
        (trial / "eval_measurements.csv").write_text(
            f"{head}\n50,1,50,3\n{90 + study},2,{90 + study},31\n"
        )
    (tmp_path / "tiny.csv").write_text("optimizer,workload,value\nlamb,tiny,4\n")
    out = timetrial(
        "report --from made --from logs tiny.csv times.csv --rules algoperf-2023 "
        "--targets targets.csv --baseline lamb --out all tracking.root=elsewhere"
    )
    times = pd.read_csv("all/leaderboard_times.csv", index_col="submission")
    assert times["tiny"].dropna().to_dict() == {"adam": 3.0, "velo": 6.0, "lamb": 4.0}
    assert times["wmt"].dropna().to_dict() == {"lamb": 90.0, "mine": 100.0, "baseline": 150.0}
    assert any(line.split()[:8] == TITLE for line in out.splitlines())
    assert not (tmp_path / "elsewhere").exists()


def test_an_experiment_is_chosen_by_option_or_setting(timetrial: Call, tmp_path: Path):
    for experiment in ("one", "two"):
        runs_in(tmp_path / "made", experiment)
    uri = f"sqlite:///{tmp_path}/made/mlflow.db"
    assert "expected the name of one experiment (--experiment)" in timetrial(
        f"report --from {uri}", 2
    )
    for line in ("--experiment two", "tracking.experiment=two"):
        assert "6 runs: 6 finished" in timetrial(f"report --from {uri} {line}")


def test_seconds_of_different_machines_in_logs_are_not_compared(timetrial: Call, tmp_path: Path):
    head = "accumulated_submission_time,global_step,score,validation/bleu"
    for name, gpu in (("a", "Tesla V100-SXM2-16GB"), ("b", "NVIDIA A100-SXM4-40GB")):
        trial = tmp_path / "logs" / name / "study_0" / "wmt_jax" / "trial_1"
        trial.mkdir(parents=True)
        (trial / "eval_measurements.csv").write_text(f"{head}\n50,1,50,31\n")
        meta = {"gpu_model_name": gpu, "gpu_count": 8, "workload.max_allowed_runtime_sec": 60}
        (trial / "meta_data_0.json").write_text(json.dumps(meta))
    message = timetrial("report --from logs --rules v0.6 --out out", 2)
    assert "device_kind: NVIDIA A100-SXM4-40GB / Tesla V100-SXM2-16GB" in message
    assert not Path("out").exists()
    timetrial("report --from logs --rules v0.6 --out out --mixed-machines")
    assert board("out")["score"].to_dict() == {"a": 1 / 8, "b": 1 / 8}


BAD = {
    "report --from times.csv --r-max 1": "--r-max: expected a finite number > 1, got 1;",
    "report --from times.csv --r-max nan": "--r-max: expected a finite number > 1, got nan;",
    "report --from times.csv --r-max inf": "--r-max: expected a finite number > 1, got inf;",
    "report --paper --r-max two": "--r-max: expected a finite number > 1, got two;",
    "report --rules algoperf": "--rules: expected with --from SOURCE, got no --from",
    "report suite=quick --targets t --out o": "--targets, --out: expected with --from SOURCE",
    "report --paper --from times.csv": "--paper, --from: expected one of them, got both",
    "report times.csv rival.csv": "to score its runs: timetrial report --from times.csv rival.csv",
    "report --from times.csv --rules algoperf-v0.7": "did you mean 'algoperf-v0.",
    "report --from times.csv suite=mini": "suite: expected no such setting with --from",
    "report --from times.csv tracking.rot=x": "did you mean 'tracking.root'",
    "report --from times.csv --targets none.csv": "expected paper, algoperf, or a CSV or JSON file",
    "report --from none.csv": "none.csv: expected a directory of runs",
    "report --from times.csv --from none.csv": "none.csv: expected a directory of runs",
}


@pytest.mark.parametrize("line", BAD)
def test_what_cannot_be_scored_is_told_in_one_line(timetrial: Call, line: str, tmp_path: Path):
    before = sorted(tmp_path.rglob("*"))
    message = timetrial(line, 2)
    assert BAD[line] in message.replace("\n", " ").replace(
        cli.as_typed("timetrial report"), "timetrial report"
    )
    assert len(message.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_table_with_one_column_per_workload_names_its_bad_lines(timetrial: Call, tmp_path: Path):
    (tmp_path / "wide.csv").write_text("submission,wmt,ogbg,score\na,1,,0.5\nb,soon,2,0.5\n")
    out = timetrial("report --from wide.csv --rules algoperf-2023 --out out")
    assert "problem  wide.csv: line 3: could not convert string to float: 'soon' (left out)" in out
    times = pd.read_csv("out/leaderboard_times.csv", index_col="submission")
    assert times.loc["a", "wmt"] == 1
    assert math.isnan(times.loc["a", "ogbg"])  # an empty cell is no run
    assert times.loc["b", "ogbg"] == 2
