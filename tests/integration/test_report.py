"""The report of a made-up race: complete, self-contained, the same bytes for the same runs."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import random
import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from markupsafe import escape

from tests.race import OPTIMIZERS, WORKLOADS, race, rates, study
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.report import ReportOptions, score_table_text, write_report
from timetrial.tracking.report import page as page_module
from timetrial.tracking.report.cells import Cell, Table, header
from timetrial.tracking.report.colors import distance
from timetrial.tracking.report.entrants import entrants_of
from timetrial.tracking.report.inline import inline_svg
from timetrial.tracking.report.listing import listed_runs, outcome
from timetrial.tracking.report.plots import Line, Panel, files
from timetrial.tracking.report.results import Results, results_of
from timetrial.tracking.report.section import Plot, Plots, Section, Text
from timetrial.tracking.report.sections import SECTIONS
from timetrial.tracking.report.sections.curves import learning_curves, limits, thinned
from timetrial.tracking.report.sections.overview import board_table
from timetrial.tracking.report.sections.profiles import profile_panel
from timetrial.tracking.report.standings import r_max_by_condition, standings
from timetrial.tracking.report.style import looks
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.scoring import scores
from timetrial.tracking.scores.targets import targets, time_to_target, trials

RUN_URL = "http://127.0.0.1:5000/#/experiments/7/runs/{run_id}?workflowType=machine_learning"


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    return race()


@pytest.fixture(scope="module")
def folder(records: list[RunRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "new" / "report"
    options = ReportOptions(
        title="A race & more", meta={"suite": "mini"}, rates=rates(), run_url=RUN_URL
    )
    made = write_report([*records, *study()], path, options)
    assert made == path / "report.html"
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def text(page: str) -> str:
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


class Balance(HTMLParser):
    """Fails on a tag that is closed without being open, or left open."""

    void = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_the_page_is_well_formed(page: str) -> None:
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:href="|url\()#([^")]+)', page):
        assert reference in ids


def test_the_page_needs_nothing_from_outside(page: str, folder: Path) -> None:
    assert not re.search(r"<(link|img|iframe|object|embed)\b", page)
    assert not re.search(r"<script[^>]+src", page)
    assert "@import" not in page
    assert all(not url.startswith("http") for url in re.findall(r'src="([^"]+)"', page))
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]+)\)", page))
    assert (folder / "report.html").stat().st_size < 3_000_000


def test_every_color_of_a_plot_follows_the_theme(page: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", svg)
    assert "prefers-color-scheme: dark" in page
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    assert used == {name for name in used if f"{name}:" in page}


def test_scores_on_the_page_are_those_of_the_scorer(
    records: list[RunRecord], folder: Path, page: str
) -> None:
    written = pd.read_csv(folder / "scores.csv").set_index(["condition", "split", "optimizer"])
    assert len(written) == 2 * 2 * len(OPTIMIZERS)
    table = page[page.index('id="question-3"') : page.index('id="times"')]
    for condition, unit, r_max in (("time", "seconds", 3.0), ("step", "steps", 1.5)):
        for split in ("train", "validation"):
            goals = targets(records, split=split, condition=condition)
            times = time_to_target(records, goals, split, unit, condition=condition)  # type: ignore[arg-type]
            for optimizer, value in scores(times, r_max=r_max).items():
                row = written.sort_index().loc[(condition, split, optimizer)]
                assert row["score"] == pytest.approx(value)
                assert re.search(rf">{value:.2f}†?<", table)
    assert len(set(written["score"])) > 5


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_table_and_every_plot_has_its_files(folder: Path, page: str) -> None:
    names = written(folder)
    assert {
        "scores.csv", "profiles.csv", "targets.csv", "time_to_target.csv", "trial_times.csv",
        "final_quality.csv", "improvement.csv", "runs.csv", "learning_curves.csv", "settings.csv",
        "evaluations.csv", "evaluations.parquet",
    } < names  # fmt: skip
    plots = {
        "overview",
        "profiles",
        "scores_over_r_max",
        "learning_rates",
        "progress",
        "tuning",
    } | {
        f"curves_{condition}_{workload}" for workload in WORKLOADS for condition in ("time", "step")
    }
    assert {f"plots/{name}.{kind}" for name in plots for kind in ("png", "svg")} < names
    tables = {
        "standings", "scores", "ranks", "improvement", "loss_step", "runs", "budgets",
        *(f"{what}_{condition}_{split}" for what in ("times", "quality")
          for condition in ("time", "step") for split in ("train", "validation")),
        "prompt_time_validation", "prompt_differences", "tuning", "configurations",
    }  # fmt: skip
    assert {f"tables/{name}.{kind}" for name in tables for kind in ("tex", "md")} < names
    addresses = re.findall(r'href="([^"#]+)"', page[page.index("<footer") :])
    assert sorted(map(unquote, addresses)) == sorted(names - {"report.html"})
    assert not list(folder.rglob(".*"))
    for path in folder.glob("*.csv"):
        assert len(pd.read_csv(path)) > 0
    for path in folder.glob("plots/*.png"):
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert width > 590
        assert height > 400
    for path in folder.glob("plots/*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_questions_come_first_and_everything_else_in_order(page: str) -> None:
    sections = re.findall(r'<section id="([^"]+)"', page)
    assert sections == [
        "overview", "question-1", "question-2", "question-3", "aggregates", "chance", "notes",
        "times", "quality", "profiles", "curves", "rates", "tuning", "sensitivity", "stability",
        "runs", "setup", "method",
    ]  # fmt: skip
    assert page.count('<p class="answer">') == 3


def test_only_the_first_screen_and_the_answers_are_unfolded(page: str) -> None:
    parts = re.split(r"(?=<section )", page[: page.index("<footer")])[1:]
    for part in parts:
        name = re.findall(r'id="([^"]+)"', part)[0]
        folded = re.findall(r"<details>.*</details>", part, re.DOTALL)
        shown = re.sub(r"<details>.*</details>", "", part, flags=re.DOTALL)
        if name == "overview":
            assert not folded
            assert 'class="headline"' in shown
            assert shown.count("<figure>") == 4  # one for each workload
            assert shown.count("<table>") == 1
        else:
            assert len(folded) == 1
            assert ('class="answer"' in shown) == name.startswith("question")
            assert "<table" not in shown
            assert "<figure" not in shown
    assert page.index('<section id="overview"') < page.index("<nav") < page.index('id="question-1"')


def test_what_is_wider_than_the_page_says_so(page: str) -> None:
    """A shadow without the script, words with it."""
    tables = page.count("<table>")
    assert tables == len(re.findall(r'<div class="scroll[^"]*"[^>]*><table>', page)) > 20
    rule = re.findall(r"\n\.scroll \{ overflow-x: auto;.*?\}", page, re.DOTALL)[0]
    assert rule.count(" local ") == rule.count(" scroll ") == 2
    assert "more to the right" in page
    assert 'classList.toggle("more", target.scrollWidth > target.clientWidth' in page


def test_targets_stand_beside_the_plots_not_across_the_curves(page: str, folder: Path) -> None:
    section = page[page.index('<section id="curves"') : page.index('<section id="rates"')]
    assert len(re.findall(r"<small>target \d[\d.]+</small></figcaption>", section)) == 2 * 4 * 4
    for svg in re.findall(r"<svg[^>]*data-points.*?</svg>", section, flags=re.DOTALL):
        assert "target" not in svg[svg.index(">") :]
    drawn = (folder / "plots" / "curves_step_flights_dlrm.svg").read_text()
    texts = ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")
    heights = {str(text.text): text.attrib["y"] for text in texts}
    labels = {y for text, y in heights.items() if text.startswith("target")}
    assert labels == {y for text, y in heights.items() if " over " in text}


def test_every_recorded_run_leads_to_mlflow(page: str, records: list[RunRecord]) -> None:
    start, end = map(re.escape, RUN_URL.split("{run_id}"))
    links = set(re.findall(rf'href="{start}([^"]+){end}"', page))
    assert links == {record.run_id for record in records}


def test_what_the_pointer_finds_is_what_is_drawn(page: str) -> None:
    section = page[page.index('<section id="curves"') : page.index('<section id="rates"')]
    found = re.findall(r"<svg[^>]*data-points.*?</svg>", section, flags=re.DOTALL)
    assert len(found) == 2 * 4 * 4
    for svg in found:
        element = ElementTree.fromstring(svg)
        plot = json.loads(element.attrib["data-points"])
        left, right, bottom, top = plot["box"]
        for one in plot["series"]:
            drawn = [
                path.attrib["d"]
                for group in element.iter()
                if group.get("data-series") == one["slug"]
                for path in group
                if "fill: none" in path.get("style", "")
            ]
            x, y = map(float, drawn[0].split()[-2:])
            share_x, share_y = (
                (one[axis][-1] - plot[axis][0]) / (plot[axis][1] - plot[axis][0]) for axis in "xy"
            )
            assert x == pytest.approx(left + share_x * (right - left), abs=0.1)
            assert y == pytest.approx(bottom + share_y * (top - bottom), abs=0.1)


def test_runs_that_went_wrong_are_listed(folder: Path, text: str) -> None:
    runs = pd.read_csv(folder / "runs.csv")
    assert len(runs) == 2 * 4 * 7 * 3
    assert runs["outcome"].value_counts().to_dict() == {
        "finished": 156, "diverged": 8, "failed": 1, "killed": 1, "running": 1, "missing": 1,
    }  # fmt: skip
    census = "168 runs: 156 finished, 8 diverged, 1 failed, 1 killed, 1 running, 1 missing."
    assert census in text
    missing = runs[runs["outcome"] == "missing"].iloc[0]
    assert (missing["condition"], missing["workload"], missing["optimizer"], missing["seed"]) == (
        "time", "assays_gnn", "heavy_ball", 1,
    )  # fmt: skip
    counted = runs.set_index("outcome")["counts"]
    assert counted[["finished", "diverged", "failed"]].all()
    assert not counted[["killed", "running", "missing"]].any()
    assert text.count("diverged") > 8
    assert "2 of 3 runs" in text
    assert "Fewer than 3 seeds" in text


def test_what_was_recorded_about_the_machine_is_shown(text: str) -> None:
    for value in ("host_cores", "version.jax", "0.9.0", "git_commit"):
        assert value in text


@pytest.mark.slow
def test_same_runs_give_the_same_bytes_in_any_order_and_process(
    folder: Path, tmp_path: Path
) -> None:
    program = (
        "import random, sys; from pathlib import Path; from tests.race import race, rates, study\n"
        "from timetrial.tracking.report import ReportOptions, write_report\n"
        "records = [*race(), *study()]; random.Random(1).shuffle(records)\n"
        "options = ReportOptions(title='A race & more', meta={'suite': 'mini'}, rates=rates(),"
        " run_url=sys.argv[2])\n"
        "write_report(records, Path(sys.argv[1]), options)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, str(tmp_path), RUN_URL], check=True, cwd=root)
    assert written(tmp_path) == written(folder)
    for name in written(folder):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_plots_do_not_depend_on_the_style_that_others_have_set(
    records: list[RunRecord],
) -> None:
    panel = profile_panel(standings(records)[0])
    styles = looks(OPTIMIZERS, {})

    def drawn() -> tuple[str, dict[str, bytes]]:
        svg = inline_svg(panel, styles, name="p", title="t")
        return svg, files([panel], styles, columns=1, title="t")

    before = drawn()
    with matplotlib.style.context(["ggplot", {"svg.fonttype": "path", "lines.marker": "o"}]):
        foreign = dict(matplotlib.rcParams)
        assert drawn() == before
        assert dict(matplotlib.rcParams) == foreign


def test_a_suite_of_one_condition_says_so(tmp_path: Path) -> None:
    records = race(conditions=("step",))
    page = write_report(records, tmp_path).read_text()
    assert "There are no runs under time control" in page
    assert "Seconds to the" not in page
    assert "Steps to the validation target" in page
    assert not list(tmp_path.rglob("curves_time_*"))
    assert "time" not in set(pd.read_csv(tmp_path / "scores.csv")["condition"])


def test_names_and_titles_cannot_break_the_page(tmp_path: Path) -> None:
    evil = "<b>&\"x'[y]"
    records = [
        dataclasses.replace(r, optimizer=evil, workload="a/b ../<i>")
        for r in race(conditions=("step",))
        if (r.workload, r.optimizer) == ("assays_gnn", "adam")
    ]
    page = write_report(records, tmp_path, ReportOptions(title=evil, meta={evil: evil})).read_text()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "<b>&" not in page
    assert "<i>" not in page
    parents = {path.parent for path in tmp_path.rglob("*") if path.is_file()}
    assert parents == {tmp_path, tmp_path / "plots", tmp_path / "tables"}


@pytest.mark.parametrize("kept", ["none", "without evaluations", "running", "diverged"])
def test_a_race_with_nothing_to_score_still_has_a_report(kept: str, tmp_path: Path) -> None:
    one = race(conditions=("step",))[0]
    records = {
        "none": [],
        "without evaluations": [dataclasses.replace(one, evaluations=[])],
        "running": [dataclasses.replace(one, status="RUNNING", reason="")],
        "diverged": [
            dataclasses.replace(
                one, status="FAILED", reason="DIVERGED", step=1, evaluations=one.evaluations[:1]
            )
        ],
    }[kept]
    page = write_report(records, tmp_path).read_text()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert ("No runs" if kept == "none" else one.optimizer) in page
    assert score_table_text(records)


def test_a_plan_adds_what_nobody_has_started(records: list[RunRecord]) -> None:
    plan = [("assays_gnn", "celo", 0, "step"), ("assays_gnn", "adam", 0, "step")]
    missing = [row for row in listed_runs(records, plan) if row.outcome == "missing"]
    assert [(row.optimizer, row.record) for row in missing] == [("celo", None)]
    assert "1 missing" in score_table_text(records, ReportOptions(planned=plan))


def test_a_repeated_run_is_listed_but_counts_once(records: list[RunRecord]) -> None:
    again = dataclasses.replace(records[0], run_id="zz")
    listed = [row for row in listed_runs([*records, again]) if row.seed == records[0].seed]
    same = [
        row
        for row in listed
        if (row.condition, row.workload, row.optimizer)
        == (again.condition, again.workload, again.optimizer)
    ]
    assert sorted(row.counted for row in same) == [False, True]
    assert standings([*records, again])[0].times.equals(standings(records)[0].times)


def test_outcome_in_one_word(records: list[RunRecord]) -> None:
    words = {
        ("FINISHED", "BUDGET"): "finished",
        ("FINISHED", "DIVERGED"): "diverged",
        ("FINISHED", "PRUNED"): "pruned",
        ("FINISHED", "INTERRUPTED"): "killed",
        ("FAILED", ""): "failed",
        ("KILLED", "INTERRUPTED"): "killed",
        ("RUNNING", ""): "running",
    }
    for (status, reason), word in words.items():
        assert outcome(dataclasses.replace(records[0], status=status, reason=reason)) == word


def test_score_table_for_the_terminal(records: list[RunRecord]) -> None:
    table = score_table_text(records)
    lines = table.splitlines()
    assert max(map(len, lines)) <= 110
    body = {line.split()[0]: line for line in lines[2 : 2 + len(OPTIMIZERS)]}
    assert set(body) == set(OPTIMIZERS)
    found = standings(records)
    for name, line in body.items():
        for standing in found:
            assert f"{standing.scores[name]:.2f}" in line
    assert lines[-1].startswith("168 runs: 156 finished")
    wide = score_table_text(records, ReportOptions(r_max=4))
    assert "r_max 4" in wide
    assert wide != table


def test_r_max_per_condition() -> None:
    assert r_max_by_condition(None) == {"time": 3.0, "step": 1.5}
    assert r_max_by_condition(4) == {"time": 4.0, "step": 4.0}
    assert r_max_by_condition({"step": 2}) == {"time": 3.0, "step": 2}
    with pytest.raises(ValueError, match="expected limits for time, step, got"):
        r_max_by_condition({"steps": 2})


def test_curves_are_mean_and_range_over_seeds(records: list[RunRecord]) -> None:
    runs = [
        run
        for run in trials(records, condition="step")
        if (run.workload, run.optimizer) == ("assays_gnn", "adam")
    ]
    data = learning_curves(runs, "validation/loss")
    assert data["step"].tolist() == [row.step for row in runs[0].evaluations]
    values = [run.evaluations[5].metrics["validation/loss"] for run in runs]
    point = data.iloc[5]
    assert point["mean"] == pytest.approx(sum(values) / 3)
    assert (point["low"], point["high"], point["runs"]) == (min(values), max(values), 3)


def test_curves_of_runs_with_other_evaluation_steps(records: list[RunRecord]) -> None:
    whole = records[0]
    some = dataclasses.replace(whole, seed=9, evaluations=whole.evaluations[:7:3])
    data = learning_curves([whole, some], f"validation/{whole.metric}")
    values = [row.metrics[f"validation/{whole.metric}"] for row in whole.evaluations]
    assert data["runs"].tolist() == [2] * 7 + [1] * (len(values) - 7)
    assert data["mean"][4] == pytest.approx((values[3] + values[4]) / 2)
    assert data["mean"][8] == pytest.approx(values[8])
    assert data["train_seconds"].is_monotonic_increasing
    assert len(thinned(data, 5)) == 5
    assert thinned(data, 5)["step"].iloc[-1] == data["step"].iloc[-1]


def test_values_that_are_not_finite_leave_a_curve(records: list[RunRecord]) -> None:
    key = f"validation/{records[0].metric}"
    bad = [
        dataclasses.replace(row, metrics={key: math.nan if i else 0.5})
        for i, row in enumerate(records[0].evaluations)
    ]
    assert learning_curves([dataclasses.replace(records[0], evaluations=bad)], key)[
        "mean"
    ].tolist() == [0.5]


def test_a_spike_does_not_squeeze_the_axis() -> None:
    def curve(name: str, means: list[float]) -> pd.DataFrame:
        return pd.DataFrame({"optimizer": name, "step": range(len(means)), "mean": means})

    data = pd.concat(
        [curve("x", [2.3, 1.0, 0.5, 0.4, 0.3]), curve("y", [2.3, 900.0, 1e6, 1e7, 1e8])]
    )
    low, high = limits(data, Direction.MINIMIZE, math.nan)
    assert low < 0.3
    assert 2.3 <= high < 2.6
    low, high = limits(data.assign(mean=-data["mean"]), Direction.MAXIMIZE, 0.1)
    assert -2.6 < low <= -2.3
    assert high > 0.1


def test_looks_are_distinct_and_follow_what_was_recorded(records: list[RunRecord]) -> None:
    names = [*OPTIMIZERS, *(f"new{i}" for i in range(12))]
    known = entrants_of(records)
    found = looks(random.Random(0).sample(names, len(names)), known)
    assert len({(look.light, look.width, look.dashes) for look in found.values()}) == len(names)
    assert found == looks(names, known)
    assert found["velo"].width > found["adam"].width
    assert found["velo_short"].dashes
    assert not found["velo"].dashes
    assert {name: found[name] for name in OPTIMIZERS} == looks(OPTIMIZERS, known)  # entrants first


@pytest.mark.parametrize(
    "tags", [{}, {"learned": "true"}, {"learned": "true", "color": "#AA3377"}, {"color": "red"}]
)
def test_an_optimizer_that_nobody_has_heard_of_is_drawn(
    tags: dict[str, str], tmp_path: Path
) -> None:
    records = [run for run in race(conditions=("step",)) if run.workload == "assays_gnn"]
    unheard = [
        dataclasses.replace(
            run,
            optimizer="zorro[z]",
            run_id=f"{run.run_id}z",
            tags={**{k: v for k, v in run.tags.items() if k != "learned"}, **tags},
            config={"optimizer": "zorro"},
        )
        for run in records
        if run.optimizer == "adam"
    ]
    few = ReportOptions(bootstrap=Bootstrap(samples=50))
    page = write_report([*records, *unheard], tmp_path, few).read_text()
    assert (
        page.count('data-toggle="zorro_z_"') == 4
    )  # legends of profiles, curves, sensitivity, stability
    assert '<g class="series" data-series="zorro_z_">' in page
    thick = 'stroke-width="2.6"/></svg>zorro[z]<' in page
    assert thick == (tags.get("learned") == "true")
    assert ("#aa3377" in page) == (tags.get("color") == "#AA3377")
    assert "red;" not in page
    assert (tmp_path / "plots" / "profiles.png").stat().st_size > 10_000
    results = results_of([*records, *unheard], few)
    found = looks(results.optimizers, results.entrants)
    others = {look.light for name, look in found.items() if name != "zorro[z]"}
    assert len(others) == len(found) - 1
    assert all(distance(found["zorro[z]"].light, other) > 0.05 for other in others)
    row = next(row for row in board_table(results).body if row[0].text == "zorro[z]")
    assert re.fullmatch(r"\d|\d–\d", row[1].text)
    assert row[1].sub == "tie"  # with adam, whose runs it copies


def made_up_section(results: Results) -> Section:
    line = Line("adam", np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    return Section(
        name="tides",
        title="High <water>",
        menu="Tides",
        blocks=[
            Text("Springs & neaps"),
            Table("tides", "Tides by port", header("port", "metres"), [[Cell("Hull"), Cell("7")]]),
            Plots([Plot("tides", "Tides", [Panel("Hull", "hours", "metres", [line])])]),
        ],
        frames={"tides": pd.DataFrame({"port": ["Hull"], "metres": [7]})},
        files={"tides.txt": b"7"},
    )


def test_a_section_is_one_function(
    records: list[RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "SECTIONS", (*SECTIONS, made_up_section))
    few = ReportOptions(bootstrap=Bootstrap(samples=50))
    some = [run for run in records if run.workload == "assays_gnn"]
    page = write_report(some, tmp_path, few).read_text()
    assert '<a href="#tides">Tides</a>' in page
    part = page[page.index('<section id="tides"') : page.index("<footer")]
    assert "<h2>High &lt;water&gt;</h2>" in part
    assert "<p>Springs &amp; neaps</p>" in part
    assert '<caption id="table-tides" class="unseen">Tides by port</caption>' in part
    assert 'aria-label="Tides: Hull. ' in part
    for name in ("tides.csv", "tides.txt", "tables/tides.tex", "tables/tides.md",
                 "plots/tides.png", "plots/tides.svg"):  # fmt: skip
        assert (tmp_path / name).stat().st_size
        assert f'href="{name}"' in page


def test_every_part_of_every_section_is_on_disk_and_on_the_page(
    records: list[RunRecord], folder: Path, page: str
) -> None:
    options = ReportOptions(title="A race & more", rates=rates(), run_url=RUN_URL)
    results = results_of([*records, *study()], options)
    made = [section for make in SECTIONS if (section := make(results)) is not None]
    names = [section.name for section in made]
    assert re.findall(r'<section id="([^"]+)"', page) == names
    expected = ["report.html"]
    for section, following in zip(made, [*names[1:], ""], strict=True):
        start = page.index(f'<section id="{section.name}"')
        part = page[start : page.index(f'<section id="{following}"') if following else None]
        assert not section.menu or f'<a href="#{section.name}">{section.menu}</a>' in page
        assert f"<h2>{section.title}</h2>" in part or not section.title
        for table in section.tables:
            assert f'aria-labelledby="table-{table.name}"' in part
            assert f'id="table-{table.name}" class="unseen">{escape(table.title)}</caption>' in part
            assert table.body
            assert str(escape(table.body[-1][0].text)) in part
            expected += [f"tables/{table.name}.{kind}" for kind in ("tex", "md")]
        for plot in section.plots:
            for panel in plot.panels:
                assert f'aria-label="{plot.title}: {panel.title}. ' in part
            expected += [f"plots/{plot.name}.{kind}" for kind in ("png", "svg")]
        for name, frame in section.frames.items():
            assert len(pd.read_csv(folder / f"{name}.csv")) == len(frame)
            expected.append(f"{name}.csv")
        expected += section.files
    assert len(expected) == len(set(expected)), "two parts of the report have the same file"
    assert set(expected) == written(folder)
