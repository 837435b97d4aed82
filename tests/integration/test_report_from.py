"""``timetrial report --from``: runs from anywhere, by the paper's or AlgoPerf's rules."""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recorded import record

from timetrial.bench.report import report_from
from timetrial.framework.errors import UserError
from timetrial.framework.records import Row
from timetrial.tracking.report.paper import paper_times
from timetrial.tracking.scores.algoperf_workloads import ALGOPERF_VALIDATION, HELD_OUT_V05
from timetrial.tracking.scores.scoring import scores
from timetrial.tracking.store.opening import open_store

GOLDEN = Path(__file__).parents[1] / "golden" / "algoperf"
METRICS = {"criteo1tb": "loss", "fastmri": "ssim", "imagenet": "accuracy", "librispeech": "wer",
           "ogbg": "mean_average_precision", "wmt": "bleu", "finewebedu": "ppl"}  # fmt: skip
RULES = {
    "v05_external_tuning": "algoperf-v05",
    "v05_self_tuning": "algoperf-v0.5-self",
    "v06_external_tuning": "algoperf-v0.6",
    "v2_self_tuning": "algoperf-v2-self",
    "v2_self_tuning_first": "algoperf-self",
}
PAPER_TIMES = str(resources.files("timetrial.tracking") / "paper" / "time_to_target.csv")


def golden(name: str) -> tuple[pd.DataFrame, pd.Series]:
    """Times to target of a published leaderboard, and its scores."""
    table = pd.read_csv(GOLDEN / f"{name}.csv", index_col="submission")
    return table.drop(columns="score"), table["score"]


def write_trial(path: Path, workload: str, hit: float, *, seconds: float, number: int = 1) -> None:
    """One trial in AlgoPerf's layout; the evaluation ``number`` at ``hit`` reaches the target."""
    metric = next(m for name, m in METRICS.items() if workload.startswith(name))
    target = ALGOPERF_VALIDATION[workload]
    worse = 2 * target if metric in ("loss", "wer", "ppl") else target / 2
    head = "accumulated_submission_time,global_step,score,validation/num_examples"
    rows = [f"{hit / 2 * k / number!r},{k},{hit / 2 * k / number!r},9,{worse}"
            for k in range(number)]  # fmt: skip
    if math.isfinite(hit):
        rows.append(f"{hit!r},{number},{hit!r},9,{target!r}")
    else:
        rows = [f"{seconds!r},1,{seconds!r},9,{worse}"]
    path.mkdir(parents=True)
    text = "\n".join([f"{head},validation/{metric}", *rows]) + "\n"
    (path / "eval_measurements.csv").write_text(text)
    meta = {"workload.max_allowed_runtime_sec": seconds, "workload.target_metric_name": metric}
    (path / "meta_data_0.json").write_text(json.dumps(meta))


def write_logs(directory: Path, times: pd.DataFrame) -> None:
    """Logs from which the times follow: 3 studies around the median, each of 2 trials.

    The quicker trial of a study arrives at a later evaluation, so it must not count.
    """
    for submission, row in times.iterrows():
        for workload, time in row.dropna().items():
            for study, factor in enumerate((0.5, 1.0, 2.0)):
                run = directory / str(submission) / f"study_{study}" / f"{workload}_jax"
                write_trial(run / "trial_1", str(workload), time * factor, seconds=9e4, number=2)
                later = time * factor / 4
                write_trial(run / "trial_2", str(workload), later, seconds=9e4, number=3)


def write_csv(path: Path, times: pd.DataFrame) -> None:
    table = times.rename_axis("optimizer").reset_index()
    table.melt("optimizer", var_name="workload").dropna().to_csv(path, index=False)


def board(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "leaderboard.csv", index_col="submission")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "self" in name else ()) for name in RULES]
)
def test_the_published_leaderboards_follow_from_times(name: str, tmp_path: Path):
    times, theirs = golden(name)
    write_csv(tmp_path / "times.csv", times)
    out = tmp_path / "out"
    assert report_from([str(tmp_path / "times.csv")], rules=RULES[name], out=out) == 0
    ours = board(out)["score"]
    assert list(ours) == sorted(theirs, reverse=True)
    np.testing.assert_allclose(ours[theirs.index], theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["v05_self_tuning", "v06_external_tuning", "v2_self_tuning"])
def test_the_published_leaderboards_follow_from_logs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    times, theirs = golden(name)
    write_logs(tmp_path / "logs", times)
    out = tmp_path / "out"
    assert report_from([str(tmp_path / "logs")], rules=RULES[name], out=out) == 0
    np.testing.assert_allclose(board(out)["score"][theirs.index], theirs, rtol=0, atol=1e-12)
    back = pd.read_csv(out / "leaderboard_times.csv", index_col="submission")
    pd.testing.assert_frame_equal(back[times.columns], times, check_exact=True)
    for file in ("report.html", "tables/leaderboard.tex", "tables/leaderboard.md", "runs.csv"):
        assert (out / file).stat().st_size
    # The page shows the trial that counts of each study, so its times are the leaderboard's.
    page = pd.read_csv(out / "time_to_target.csv")
    page = page[page["split"] == "validation"].pivot(
        index="optimizer", columns="workload", values="value"
    )
    shown = times.drop(columns=[v for v in HELD_OUT_V05 if v in times])
    np.testing.assert_array_equal(page.loc[shown.index, shown.columns], shown)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    title = ["submission", "score", "targets", "reached", "fastest", "on", "speed-up", "over"]
    head = next(place for place, line in enumerate(lines) if line[: len(title)] == title)
    assert lines[head + 1][:2] == [theirs.idxmax(), f"{theirs.max():.4f}"]


def test_every_problem_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    times, _ = golden("v06_external_tuning")
    write_logs(tmp_path / "logs", times[["fastmri", "wmt"]])
    trial = tmp_path / "logs" / "baseline" / "study_0" / "fastmri_jax" / "trial_1"
    (trial / "eval_measurements.csv").unlink()
    (tmp_path / "logs" / "gone").symlink_to("nowhere")
    report_from([str(tmp_path / "logs")], rules="algoperf", out=tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    where = f"problem  {tmp_path / 'logs'}: "
    assert where + "gone: cannot be read (No such file or directory) (left out)" in lines
    assert (
        where + "baseline/study_0/fastmri_jax/trial_1: no eval_measurements.csv; "
        "no measurements.csv (left out)"
    ) in lines
    assert "missing  shampoo: 2 trials instead of 5 on fastmri (study_0), fastmri (study_1), " in (
        next(line for line in lines if line.startswith("missing  shampoo: 2"))
    )
    assert any(line.startswith("missing  baseline: no run of criteo1tb, ") for line in lines)
    assert [line.split() for line in lines if line.startswith("fastmri")] == [
        ["fastmri", "0.723653", "2", "of", "2", "640.8", "s", "shampoo"]
    ]


def test_places_are_scored_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Published times in a CSV against logs, under names of their own."""
    times, _ = golden("v06_external_tuning")
    rival = times.loc[["baseline"]].rename(index={"baseline": "mine"}) / 2
    write_csv(tmp_path / "times.csv", times)
    write_logs(tmp_path / "logs", rival)
    places = [str(tmp_path / "times.csv"), str(tmp_path / "logs")]
    report_from(places, rules="algoperf", out=tmp_path / "out")
    found = board(tmp_path / "out")
    assert set(found.index) == {"mine", "baseline", "shampoo"}
    assert found["score"]["mine"] > found["score"]["baseline"]
    assert found["speedup"]["baseline"] == 1.0
    assert "problem" not in capsys.readouterr().out


def test_a_run_in_two_places_counts_once_and_a_shared_name_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    times, _ = golden("v06_external_tuning")
    write_logs(tmp_path / "logs", times[["fastmri"]])
    write_csv(tmp_path / "times.csv", times.loc[["baseline"], ["fastmri"]])
    (tmp_path / "link").symlink_to("logs")
    places = [str(tmp_path / name) for name in ("logs", "link")]
    report_from(places, rules="algoperf", out=tmp_path / "out")
    assert f"problem  {places[1]}: 12 runs: read from {places[0]} already (left out)" in (
        capsys.readouterr().out
    )
    write_logs(tmp_path / "more", times[["fastmri"]])
    places = [str(tmp_path / name) for name in ("logs", "more")]
    report_from(places, rules="algoperf", out=tmp_path / "out")
    text = capsys.readouterr().out
    assert "baseline on fastmri, study_0, time condition: also in " + places[0] in text
    assert text.count("scored as one") == 6


def test_the_papers_scores_follow_from_its_table(tmp_path: Path):
    assert report_from([PAPER_TIMES], out=tmp_path) == 0
    found = pd.read_csv(tmp_path / "scores.csv")
    for condition, r_max in (("time", 3.0), ("step", 1.5)):
        for split in ("train", "validation"):
            expected = scores(paper_times(condition, split), r_max=r_max)
            here = found[(found["condition"] == condition) & (found["split"] == split)]
            ours = here.set_index("optimizer")["score"]
            np.testing.assert_allclose(ours[expected.index], expected, rtol=0, atol=1e-12)


def test_targets_of_a_file_replace_established_ones(tmp_path: Path):
    root = tmp_path / "runs"
    store = open_store(f"sqlite:///{root}/mlflow.db", root=root)
    for optimizer, pace in (("adam", 1.0), ("velo", 2.0)):
        for seed in ("0", "1", "2"):
            rows = [
                Row(2 * k, pace * k, {"validation/accuracy": 0.1 * k, "train/loss": 1 / (k + 1)})
                for k in range(6)
            ]
            record(store, rows=rows, optimizer=optimizer, seed=seed, condition="time", budget="5")
    targets = tmp_path / "targets.csv"
    targets.write_text("workload,target\ntiny,0.3\n")
    out = tmp_path / "out"
    for place in (str(root), f"sqlite:///{root}/mlflow.db"):
        report_from([place], targets=str(targets), out=out)
        found = pd.read_csv(out / "time_to_target.csv").set_index("optimizer")["value"]
        assert found.to_dict() == {"adam": 3.0, "velo": 6.0}
        assert pd.read_csv(out / "targets.csv")["target"].tolist() == [0.3]
    report_from([str(root)], rules="algoperf", targets=str(targets), out=out, baseline="velo")
    found = board(out)
    assert found["score"].to_dict() == pytest.approx({"adam": 1.0, "velo": 2 / 3}, abs=6e-3)
    assert found["speedup"].to_dict() == pytest.approx({"adam": 2.0, "velo": 1.0})
    assert found["workloads"].tolist() == [1, 1]


def test_logs_are_scored_by_the_papers_rules_too(tmp_path: Path):
    """Their budget is in the meta data, so that targets can be established."""
    for submission, hit in (("a", 100.0), ("b", 200.0)):
        for study in (0, 1, 2):
            run = tmp_path / "logs" / submission / f"study_{study}" / "wmt_jax"
            write_trial(run / "trial_1", "wmt", hit + study, seconds=1000.0, number=2)
    assert report_from([str(tmp_path / "logs")], out=tmp_path / "out") == 0
    times = pd.read_csv(tmp_path / "out" / "time_to_target.csv").set_index("optimizer")
    assert times["value"].to_dict() == {"a": 101.0, "b": 201.0}
    assert times["trials"].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": ["nowhere"]}, "nowhere: expected a directory of runs .* no such file"),
        ({"sources": ["empty"]}, "empty: expected AlgoPerf's logs .* found no directory trial_k"),
        ({"sources": ["bad.csv"]}, "bad.csv: expected at least one run .* line 2: value"),
        ({"rules": "algoperf-v9"}, "rules: expected one of paper, algoperf, .*, got 'algoperf-v9'"),
        ({"targets": "no.csv"}, "targets no.csv: cannot be read"),
        ({"rules": "algoperf", "baseline": "c"}, "baseline: expected one of a, b, got 'c'"),
        (
            {"sources": ["t.csv"], "rules": "algoperf"},
            "AlgoPerf's rules: expected credible runs under time control, got none",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], message: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("optimizer,workload,value\na,w,-1\n")
    (tmp_path / "good.csv").write_text("optimizer,workload,value\na,wmt,1\nb,wmt,2\n")
    (tmp_path / "t.csv").write_text("optimizer,workload,value,unit\na,wmt,1,steps\n")
    with pytest.raises(UserError, match=message):
        report_from(**{"sources": ["good.csv"], "out": tmp_path / "out", **arguments})
    assert not (tmp_path / "out").exists()


def test_one_experiment_must_be_named_where_there_are_two(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db", root=tmp_path)
    for experiment in ("one", "two"):
        record(store, experiment=experiment, budget="4")
    with pytest.raises(UserError, match=r"--experiment\), got none; it holds one, two"):
        report_from([store.uri], out=tmp_path / "out")
    assert report_from([store.uri], experiment="two", out=tmp_path / "out") == 0


def test_times_and_metrics_of_one_workload_are_not_mixed_by_the_papers_rules(tmp_path: Path):
    times, _ = golden("v06_external_tuning")
    write_csv(tmp_path / "times.csv", times[["fastmri"]])
    write_logs(tmp_path / "logs", times[["fastmri"]].rename(index=str.upper))
    with pytest.raises(UserError, match="fastmri: expected runs with one deciding metric"):
        report_from([str(tmp_path / "times.csv"), str(tmp_path / "logs")], out=tmp_path / "out")
