from __future__ import annotations

import base64
import dataclasses
import json
import re
import zlib
from pathlib import Path
from typing import Any

import mlflow
import pytest
from recorded import record

from timetrial.framework.records import Row
from timetrial.tracking.read.mlflow import from_mlflow
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.store.groups import (
    BY_OPTIMIZER,
    BY_OPTIMIZER_AND_WORKLOAD,
    PALETTE,
    assign_colors,
    color_of,
    group_id,
)
from timetrial.tracking.store.opening import Store, open_store
from timetrial.tracking.store.report_run import log_report
from timetrial.tracking.store.ui import run_address
from timetrial.tracking.store.views import OVERVIEW, TAG_PREFIX, write_views


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("runs")
    store = open_store(f"sqlite:///{root}/mlflow.db", root=root)
    for optimizer, pace in (("adam", 0.5), ("velo", 1.0)):
        for seed in (1, 2, 3):
            rows = [
                Row(2 * k, pace * k * (1 + 0.1 * seed), {"validation/accuracy": 0.1 * k})
                for k in range(seed + 1)  # the second and third seed go on for longer
            ]
            record(store, experiment="quick", rows=rows, optimizer=optimizer, seed=str(seed))
    record(store, experiment="quick", workload="other", metric="ssim", condition="time")
    record(store, experiment="quick", workload="other", status="FAILED", optimizer="broken")
    return store


def state_of(store: Store, link: str) -> tuple[str, dict[str, Any]]:
    """Name and state of the view that a link opens, as the web interface reads them."""
    found = re.fullmatch(
        r"/#/experiments/(\d+)/runs\?workflowType=machine_learning"
        r"&compareRunsMode=CHART&viewStateShareKey=([\w-]+)",
        link,
    )
    assert found is not None
    value = store.client.get_experiment(found[1]).tags[TAG_PREFIX + found[2]]
    envelope = json.loads(value)
    assert isinstance(envelope["createdAt"], int)
    return envelope["name"], inflate(envelope["state"])


def inflate(text: str) -> dict[str, Any]:
    kind, _, packed = text.partition(";")
    assert kind == "deflate"
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert isinstance(state, dict)
    return state


def test_one_view_per_workload_and_one_of_all(store: Store, tmp_path: Path):
    links = write_views(store, "quick", load_runs(store, "quick"))
    assert list(links) == [OVERVIEW, "other", "tiny"]
    name, state = state_of(store, links["tiny"])
    assert name == "timetrial: tiny"
    assert state["searchFilter"] == "attributes.status = 'FINISHED' and tags.workload = 'tiny'"
    assert state["groupBy"] == {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": BY_OPTIMIZER}],
    }
    charts = [
        (c["metricKey"], c["xAxisKey"], c["selectedXAxisMetricKey"])
        for c in state["compareRunCharts"]
        if c["type"] == "LINE"
    ]
    assert ("validation/accuracy", "metric", schema.MEAN_SECONDS) in charts
    assert ("validation/accuracy", "step", "") in charts
    bars = {c["metricKey"] for c in state["compareRunCharts"] if c["type"] == "BAR"}
    assert {"final/validation/accuracy", "time/train_seconds", "time/compile_seconds"} < bars
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    # The filter is one that MLflow understands.
    experiment = store.experiment_id("quick", create=False)
    assert len(store.client.search_runs([experiment], state["searchFilter"])) == 6

    log_report(store, "quick", "quick", tmp_path)
    _, state = state_of(store, links[OVERVIEW])
    shown = store.client.search_runs([experiment], state["searchFilter"])
    assert len(shown) == 7  # the report is not among them
    keys = [key["groupByData"] for key in state["groupBy"]["groupByKeys"]]
    assert keys == [BY_OPTIMIZER_AND_WORKLOAD]
    names = {group.removeprefix(f"tag.{keys[0]}.").rstrip() for group in state["groupsExpanded"]}
    assert names == {"adam, tiny, step", "velo, tiny, step", "adam, other, time"}
    assert {c["metricKey"] for c in state["compareRunCharts"] if c["type"] == "LINE"} == {
        "validation/accuracy",
        "validation/ssim",
    }


def test_the_groups_of_a_view_are_those_of_the_runs_tags(store: Store):
    """The web interface names a group by a tag and its value, spaces included."""
    links = write_views(store, "quick", load_runs(store, "quick"))
    for view, tag in ((OVERVIEW, BY_OPTIMIZER_AND_WORKLOAD), ("tiny", BY_OPTIMIZER)):
        _, state = state_of(store, links[view])
        runs = store.client.search_runs([store.experiment_id("quick")], state["searchFilter"])
        groups = {group_id(tag, run.data.tags[tag]) for run in runs}
        assert groups == set(state["groupsExpanded"])
    assert store.client.get_experiment(store.experiment_id("quick")).tags[
        "mlflow.experimentKind"
    ] == ("custom_model_development")


def test_runs_that_the_store_lacks_are_not_drawn(store: Store):
    runs = load_runs(store, "quick")
    elsewhere = dataclasses.replace(runs[0], run_id="0" * 32, optimizer="elsewhere")
    links = write_views(store, "quick", [*runs, elsewhere])
    _, state = state_of(store, links["tiny"])
    assert not any("elsewhere" in group for group in state["groupsExpanded"])


def test_the_list_of_runs_has_few_columns(store: Store):
    links = write_views(store, "quick", load_runs(store, "quick"))
    _, state = state_of(store, links["tiny"])
    assert state["selectedColumns"] == [
        *("tags.`optimizer`", "tags.`condition`", "tags.`seed`", "tags.`stop_reason`"),
        *("metrics.`final/validation/accuracy`", "metrics.`time/train_seconds`"),
    ]


OPTIMIZERS = [
    *("adam", "nadam", "nadamw", "heavy_ball", "nesterov"),
    *("velo[embedded]", "velo_short[embedded]", "my \N{SNOWMAN} optimizer \U0001f600"),
]


def test_colors_are_those_that_mlflow_draws():
    """Read off the charts of MLflow 3.17.2, grouped by the tag ``optimizer``."""
    seen = {
        "adam": "#8396a5",
        "nadam": "#04867d",
        "nadamw": "#137dae",
        "heavy_ball": "#e65b77",
        "nesterov": "#f2be88",
        "velo[embedded]": "#f2be88",  # the same as nesterov's
        "velo_short[embedded]": "#04867d",
    }
    assert {name: color_of(group_id("optimizer", name)) for name in seen} == seen


def test_every_optimizer_has_one_color_of_its_own_in_every_view(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db", root=tmp_path)
    for optimizer in OPTIMIZERS:
        for workload in ("tiny", "other"):
            extra = {"color": "#c83244"} if optimizer == "velo[embedded]" else {}
            record(store, experiment="colors", optimizer=optimizer, workload=workload, **extra)
    links = write_views(store, "colors", load_runs(store, "colors"))
    drawn: dict[str, set[str]] = {}
    for link in links.values():
        _, state = state_of(store, link)
        for group in state["groupsExpanded"]:
            (key,) = (key["groupByData"] for key in state["groupBy"]["groupByKeys"])
            name = group.removeprefix(f"tag.{key}.").split(", ")[0].rstrip()
            drawn.setdefault(name, set()).add(color_of(group))
    assert set(drawn) == set(OPTIMIZERS)
    assert all(len(colors) == 1 for colors in drawn.values())
    assert len(set.union(*drawn.values())) == len(OPTIMIZERS)
    assert drawn["velo[embedded]"] == {"#c83243"}  # the nearest to the recorded one


def test_more_optimizers_than_colors_share_some():
    colors = assign_colors({f"o{number}": "" for number in range(40)})
    assert set(colors.values()) == set(PALETTE)


def test_all_seeds_of_a_group_have_the_same_x_and_it_is_their_mean(store: Store):
    write_views(store, "quick", load_runs(store, "quick"))
    for run in load_runs(store, "quick", tags={"optimizer": "velo"}):
        history = store.client.get_metric_history(run.run_id, schema.MEAN_SECONDS)
        # k-th evaluation of seed s at k * (1 + 0.1 s) seconds, seed s has s + 1 of them
        means = {0: 0.0, 2: 1.2, 4: 2 * 1.25, 6: 3 * 1.3}
        assert {p.step: pytest.approx(p.value) for p in history} == {
            e.step: means[e.step] for e in run.evaluations
        }


def test_writing_again_changes_nothing_and_a_new_seed_moves_the_mean(store: Store):
    write_views(store, "quick", load_runs(store, "quick"))
    tags = {"workload": "tiny", "optimizer": "adam", "seed": "1"}
    (run,) = load_runs(store, "quick", tags=tags)

    def points() -> list[tuple[int, float]]:
        history = store.client.get_metric_history(run.run_id, schema.MEAN_SECONDS)
        return [(p.step, p.value) for p in history]

    before = points()
    write_views(store, "quick", load_runs(store, "quick"))
    assert points() == before
    record(store, experiment="quick", optimizer="adam", seed="4")
    views = store.client.get_experiment(store.experiment_id("quick")).tags
    write_views(store, "quick", load_runs(store, "quick"))
    assert len(points()) == len(before) + 1  # at step 0 the mean is 0 as before
    after = store.client.get_experiment(store.experiment_id("quick")).tags
    assert after.keys() == views.keys()


def test_older_versions_get_their_own_format_or_a_plain_link(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    runs = load_runs(store, "quick")
    monkeypatch.setattr(mlflow, "__version__", "3.14.2")
    write_views(store, "quick", runs)
    tags = store.client.get_experiment(store.experiment_id("quick")).tags
    value = tags[TAG_PREFIX + "timetrial-tiny"]
    assert len(value) <= 5000
    assert inflate(value)["compareRunCharts"]
    monkeypatch.setattr(mlflow, "__version__", "2.22.0")
    assert "viewStateShareKey" not in write_views(store, "quick", runs)["tiny"]


def test_a_report_is_one_run_that_readers_pass_by(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    before = {run.run_id for run in load_runs(store, "quick")}
    (tmp_path / "tables").mkdir()
    for text in ("first", "second"):
        (tmp_path / "report.html").write_text(text)
        (tmp_path / "tables" / "t.md").write_text(text)
        run_id = log_report(store, "quick", "mini", tmp_path)
    run = store.client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("report", "FINISHED")
    marked = store.client.search_runs([run.info.experiment_id], "tags.report = 'mini'")
    assert [found.info.run_id for found in marked] == [run_id]
    path = store.client.download_artifacts(run_id, "report.html", str(tmp_path))
    assert Path(path).read_text() == "second"
    assert [f.path for f in store.client.list_artifacts(run_id, "tables")] == ["tables/t.md"]
    assert {run.run_id for run in load_runs(store, "quick")} == before
    source = from_mlflow(store, "quick")
    assert {run.run_id for run in source.records} == before
    assert not [problem for problem in source.problems if problem.run == run_id]
    assert run_id not in caplog.text
    links = run_address(store, "quick"), run_address(store, "quick", "http://host:1/")
    assert links[0].startswith("http://127.0.0.1:5000/#/experiments/")
    assert links[1] == (
        f"http://host:1/#/experiments/{run.info.experiment_id}/runs/{{run_id}}"
        "?workflowType=machine_learning"
    )
    assert links[0].endswith("/runs/{run_id}?workflowType=machine_learning")
