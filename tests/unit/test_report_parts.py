"""The parts of a report: answers, the paper's tables, exports, tuning, schedules."""

from __future__ import annotations

import ast
import dataclasses
import io
import itertools
import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from markupsafe import Markup

from tests.race import STEPS, race, study
from timetrial.bench import suite as suites
from timetrial.bench.schedule import learning_rates, paper_learning_rates
from timetrial.framework.records import RunRecord
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking import report
from timetrial.tracking.report import exports
from timetrial.tracking.report.answers import Verdict
from timetrial.tracking.report.cells import (
    Cell,
    Table,
    amount,
    amounts,
    header,
    interval_text,
    signed,
)
from timetrial.tracking.report.colors import distance
from timetrial.tracking.report.comparison import difference
from timetrial.tracking.report.entrants import Entrant, entrants_of
from timetrial.tracking.report.inline import inline_svg
from timetrial.tracking.report.paper import published as paper_results
from timetrial.tracking.report.plots import Line, Panel, figure_of, house_style
from timetrial.tracking.report.results import ReportOptions, Results, results_of
from timetrial.tracking.report.section import Text
from timetrial.tracking.report.sections import (
    improvement,
    overview,
    prompt,
    scores,
    sensitivity,
    tuning,
)
from timetrial.tracking.report.sections.beside_paper import side_by_side
from timetrial.tracking.report.sections.overview import board_table
from timetrial.tracking.report.sections.quality import quality_tables
from timetrial.tracking.report.sections.reproduction import reproduction
from timetrial.tracking.report.sections.runs import evaluation_frame
from timetrial.tracking.report.sections.schedules import progress_frame, rate_panels
from timetrial.tracking.report.sections.scores import score_table
from timetrial.tracking.report.sections.setup import budget_table, settings_frame
from timetrial.tracking.report.sections.stability import rank_table
from timetrial.tracking.report.sections.times import time_table
from timetrial.tracking.report.standings import Place, headline, places
from timetrial.tracking.report.style import looks
from timetrial.tracking.report.summary import headline_texts, weights_text
from timetrial.tracking.scores.final_quality import final_value
from timetrial.tracking.scores.hpo_curves import expected_best
from timetrial.tracking.scores.resampling import Bootstrap

FEW_SAMPLES = ReportOptions(bootstrap=Bootstrap(samples=300))


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of([*race(), *study()], FEW_SAMPLES)


@pytest.fixture(scope="module")
def published() -> Results:
    return paper_results()


def renamed(record: RunRecord, optimizer: str) -> RunRecord:
    return dataclasses.replace(record, optimizer=optimizer, run_id=f"{record.run_id}-{optimizer}")


def fed(record: RunRecord, label: str) -> RunRecord:
    """The same run of a VeLO that takes no prompt."""
    config = {key: value for key, value in record.config.items() if key != "optimizer.prompt"}
    config |= {"optimizer": "velo_feed", "optimizer.weights": "embedded"}
    return dataclasses.replace(renamed(record, label), config=config)


def test_the_answers_quote_the_scores_and_say_what_the_intervals_leave_open(results: Results):
    first, second, third = (make.answer(results) for make in (prompt, improvement, scores))
    head = headline(results.standings, "time")
    assert head is not None
    gap = difference(head, "velo_short", "velo")
    assert gap.low < 0 < gap.high
    said = (
        f"{head.scores['velo']:.2f} for velo and {head.scores['velo_short']:.2f} for velo_short on "
        f"validation (difference {signed(gap.value)}, nominal 95\N{NO-BREAK SPACE}% interval "
        f"{signed(gap.low)} to {signed(gap.high)}, which includes 0)"
    )
    assert any(said in point for point in first.points)
    assert first.verdict is Verdict.NO
    assert second.verdict is Verdict.OPEN
    assert "better than heavy_ball and nesterov by every measure" in second.lead
    assert third.verdict is Verdict.NO
    assert f"against adam’s {head.scores['adam']:.2f} on validation, time control" in third.lead
    (point,) = (p for p in third.points if p.startswith("Validation, time control"))
    assert re.search(r"slower than nadamw \(0\.\d\d\); not distinguished from adam", point)


def test_a_prompt_that_matters_is_said_to():
    kept = ("velo", "adam")
    records = [run for run in race(conditions=("time",)) if run.optimizer in kept]
    worse = [fed(run, "any[x]") for run in records if run.optimizer == "velo"]
    worse = [dataclasses.replace(run, evaluations=run.evaluations[:2]) for run in worse]
    found = results_of([*records, *worse], FEW_SAMPLES)
    answer = prompt.answer(found)
    assert answer.verdict is Verdict.NO
    assert answer.reason.startswith("the prompt changes 4 of 6 results")
    assert any("to any[x], fed the remaining share of the budget" in p for p in answer.points)
    assert any("and 0.00 for any[x] on validation (difference −" in p for p in answer.points)
    names = [row[0].text for row in prompt.section(found).tables[0].body]
    assert names == ["target", "velo", "any[x]"]


def test_a_tie_reads_as_a_tie_not_as_a_place():
    scores = pd.Series({"nadam": 0.75, "nadamw": 0.25, **dict.fromkeys("abcde", 0.0)})
    found = places(scores)
    assert [str(found[name]) for name in ("nadam", "nadamw", "a", "e")] == ["1", "2", "3–7", "3–7"]
    assert found["nadamw"].of(7) == "place 2 of 7"
    assert found["a"].of(7) == "a five-way tie for last of 7"
    assert Place(1, 2).of(2) == "a two-way tie for first of 2"
    rounding = pd.Series({"a": 0.1 + 0.2, "b": 0.3})
    assert {str(place) for place in places(rounding).values()} == {"1–2"}


def test_the_leaderboard_and_the_ranks_show_ties():
    runs = race(conditions=("step",))
    slow = [renamed(run, f"slow{k}") for run in runs if run.optimizer == "heavy_ball"
            for k in range(4)]  # fmt: skip
    found = results_of([*runs, *slow], FEW_SAMPLES)
    tied = [name for name, place in places(found.standings[0].scores).items() if place.tied > 1]
    assert len(tied) >= 5
    for table in (board_table(found), rank_table(found)):
        rows = {row[0].text: row for row in table.body}
        assert {rows[name][1].sub for name in tied} == {"tie"}
        texts = {rows[name][1].text for name in tied if name.startswith(("slow", "heavy"))}
        assert len(texts) == 1
        assert re.fullmatch(r"\d+–11", texts.pop())
        assert rows["velo"][1].sub == ""


def headlines_of(results: Results) -> list[str]:
    return [Markup(text).striptags() for text in headline_texts(results)]


def test_the_headline_says_how_sure_it_is(results: Results, published: Results):
    for told, standing in zip(headlines_of(results), results.standings[::2], strict=True):
        assert standing.intervals is not None
        ranked = standing.scores.sort_values(ascending=False)
        ends = standing.intervals.scores.set_index("optimizer")
        first, second = ranked.index[:2]
        for name in (first, second):
            low, high = ends.loc[name, ["low", "high"]]
            assert f"{ranked[name]:.2f} ({low:.2f} to {high:.2f})" in told
        gap = difference(standing, first, second)
        assert told.startswith(f"{first} leads under ")
        assert f"95 % interval {signed(gap.low)} to {signed(gap.high)}" in told
        assert ("does not tell them apart" in told) == (gap.low <= 0 <= gap.high)
    assert headlines_of(published)[0] == (
        "velo_short leads under time control: validation score 0.75 of 1, ahead of velo with 0.72 "
        "of 1."
    )


def test_a_shared_lead_and_a_race_without_a_winner_are_said_to_be_so():
    adam = [run for run in race(conditions=("step",)) if run.optimizer == "adam"]
    twins = results_of([*adam, *(renamed(run, "twin") for run in adam)], FEW_SAMPLES)
    told, _, interval = headlines_of(twins)[0].partition(" (")
    assert told == "adam and twin share the lead under step control: validation score 1.00"
    assert re.fullmatch(r"0.\d\d to 1.00\).", interval)
    lost = [
        dataclasses.replace(run, tags={**run.tags, "target.validation": "2.0"})
        for run in adam
        if run.workload == "assays_gnn"
    ]
    assert headlines_of(results_of(lost, FEW_SAMPLES)) == [
        "Under step control, no optimizer reaches a validation target: at scores of 0 nothing can "
        "be told apart."
    ]
    there = [dataclasses.replace(run, tags={**run.tags, "device_kind": kind})
             for run in race(conditions=("time",)) if run.optimizer == "adam"
             for kind in ("cpu", "gpu")[run.seed % 2 :][:1]]  # fmt: skip
    assert headlines_of(results_of(there)) == [
        "There are no scores under time control: its runs were timed on different machines."
    ]
    assert headlines_of(results_of([])) == ["There are no scores yet."]


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("embedded", "own small embedded weights, not on Google’s: no result here speaks for Goo"),
        ("google", "the weights that Google published with the VeLO paper"),
        ("/home/me/mine.params", "the weights in mine.params, neither Google’s nor those of this"),
    ],
)
def test_the_first_screen_says_whose_weights_the_learned_optimizer_runs_on(weights: str, told: str):
    runs = [
        dataclasses.replace(run, optimizer="velo[x]", tags={**run.tags, "velo.weights": weights})
        if run.optimizer == "velo"
        else run
        for run in race(conditions=("step",))
        if run.optimizer in ("adam", "velo")
    ]
    section = overview.section(results_of(runs, FEW_SAMPLES))
    texts = [block.text for block in section.blocks if isinstance(block, Text)]
    (said,) = [text for text in texts if text.startswith("velo[x] runs on ")]
    assert told in said
    assert "/home" not in said
    hand_made = [run for run in runs if run.optimizer == "adam"]
    assert weights_text(results_of(hand_made, FEW_SAMPLES)) == ""


def test_the_first_screen_names_each_set_of_weights_its_cost_and_its_tasks():
    facts = {
        "velo": ("Google’s weights", "4,000 TPU-months", "many small tasks"),
        "nadam": ("those of a user", "", ""),
    }
    runs = []
    for run in race(conditions=("step",)):
        tags = {**run.tags, "learned": str(run.optimizer in facts).lower()}
        if run.optimizer in facts:
            names = ("weights", "weights.cost", "weights.trained_on")
            tags |= dict(zip(names, facts[run.optimizer], strict=True))
        runs.append(dataclasses.replace(run, tags=tags))
    assert weights_text(results_of(runs, FEW_SAMPLES)) == (
        "velo runs on Google’s weights; their meta-training took 4,000 TPU-months, on many small "
        "tasks. nadam runs on those of a user; their meta-training has no recorded cost, on tasks "
        "not recorded."
    )


def test_the_papers_own_velo_runs_on_googles_weights(published: Results):
    assert weights_text(published) == "The paper’s VeLO runs on Google’s weights."


def test_steps_are_whole_numbers():
    assert amounts(40.0, math.inf, "steps") == "40 to never"
    assert amounts(math.inf, math.inf, "steps") == "never"
    assert amounts(math.nan, 3.0, "steps") == ""
    assert amounts(1.0, 2.5, "seconds") == "1.00 to 2.50"
    assert [amount(x, "steps") for x in (40.0, 1500.0, 2e6)] == ["40", "1,500", "2,000,000"]
    assert [amount(x, "seconds") for x in (40.0, math.inf, math.nan)] == ["40.0", "never", "–"]
    found = results_of(race(conditions=("step",)), FEW_SAMPLES)
    rows = [row for s in found.standings for row in time_table(s, found.optimizers).body[1:]]
    cells = [cell for row in rows for cell in row[1:]]
    steps = [text for cell in cells for text in (cell.text, cell.sub.split("· ")[-1])]
    assert any("to never" in text for text in steps)
    assert not [text for text in steps if "." in text and "×" not in text]
    budgets = {row[2].text for row in budget_table(found).body}
    assert budgets == {"400 steps"}


def test_ties_and_few_trials_are_marked(results: Results):
    twins = [renamed(r, "twin") for r in race(conditions=("step",)) if r.optimizer == "adam"]
    one = [run for run in race(conditions=("step",)) if run.optimizer == "adam"]
    found = results_of([*one, *twins], FEW_SAMPLES)
    cells = [row[1] for row in score_table(found).body]
    assert [cell.kind for cell in cells] == ["best", "best"]
    assert all(cell.sub.endswith("tie") for cell in cells)
    times = time_table(found.standings[0], found.optimizers)
    assert all("tie" in cell.sub for row in times.body[1:] for cell in row[1:])
    assert not any("†" in cell.text for row in score_table(found).body for cell in row)
    velo = next(row for row in score_table(results).body if row[0].text == "velo")
    assert "†" in velo[1].text  # its runs on flights_dlrm are two


def test_the_papers_table_3_follows_and_its_inconsistency_is_named(published: Results):
    table, remarks = reproduction(published)
    bad = [(row[0].text, place) for row in table.body for place, cell in enumerate(row)
           if cell.kind == "bad"]  # fmt: skip
    assert bad == [("velo_short", 8)]
    assert "27 of 28" in remarks[0]
    assert "(0.03 printed, 0.17 computed)" in remarks[0]
    assert "5,057" in remarks[1]
    assert (
        len(reproduction(paper_results(ReportOptions(r_max=4.0)))[1]) == 1
    )  # other limits, other scores


def test_unstable_trials_of_the_paper_are_no_finite_ones(published: Results):
    """HPO on OGBG: 2 of 3 trials were unstable, so its values are those of one trial."""
    quality = published.quality
    few = quality[quality["finite"] < quality["runs"]]
    assert set(zip(few["optimizer"], few["workload"], strict=True)) == {("hpo", "ogbg")}
    assert (few["finite"] == 1).all()
    assert (few["diverged"] == 2).all()
    assert (quality["runs"] == 3).all()
    # The values without a deviation; under step control the losses are means of all three.
    assert few["std"].isna().all()
    assert int(quality["std"].isna().sum()) == len(few) == 6
    losses = quality.query("optimizer == 'hpo' and workload == 'ogbg' and condition == 'step'")
    assert losses.set_index(["split", "metric"])["finite"].to_dict() == {
        ("train", "loss"): 3,
        ("train", "mean_average_precision"): 1,
        ("validation", "loss"): 3,
        ("validation", "mean_average_precision"): 1,
    }
    (table,) = (t for t in quality_tables(published) if t.name == "quality_time_validation")
    row = next(row for row in table.body if row[0].text == "hpo")
    place = 1 + [span for span, columns in table.spans for _ in range(columns)].index("ogbg")
    cells = {table.header[k].text: row[k] for k in (place, place + 1)}
    assert cells["mAP"] == Cell("0.2897†", "1 of 3 runs")
    assert cells["loss"].sub == "1 of 3 runs"
    assert not any("of 3 runs" in cell.sub for other in table.body for cell in other
                   if other[0].text != "hpo")  # fmt: skip
    best = next(row for row in table.body if row[0].text == "velo_short")
    assert best[place + (table.header[place].text != "mAP")].kind == "best"


def test_a_race_on_the_papers_workloads_stands_beside_its_numbers():
    records = [
        dataclasses.replace(run, workload="ogbg")
        for run in race(conditions=("time",))
        if run.workload == "assays_gnn" and run.optimizer == "adam"
    ]
    tables = {t.name: t for t in side_by_side(results_of(records, FEW_SAMPLES))}
    times = tables["paper_times_time_train"]
    assert times.body[0][2].text == "0.7595"
    assert times.body[1][2].text == "9,277"
    quality = tables["paper_quality_time"].body[0]
    assert quality[0].text == "adam"
    assert re.fullmatch(r"0\.\d{4} ± 0\.\d{4}", quality[2].text)
    assert not side_by_side(results_of(race(conditions=("step",)), FEW_SAMPLES))


def test_studies_beside_the_race(results: Results):
    (one,), refused = tuning.tuned(results)
    assert not refused
    values = [final_value(run, "validation/mean_average_precision") for run in study()]
    assert sum(map(math.isnan, values)) == 1
    for k in (1, 4, 8):
        assert one.curve.expected[k - 1] == pytest.approx(expected_best(values, k, one.direction))
    row = tuning.tuning_table(results, [one]).body[0]
    assert row[0].text == "adam[tuned]"
    beaten = int(row[6].text)
    assert one.curve.expected[beaten - 1] > one.references["adam"]
    assert beaten == 1 or one.curve.expected[beaten - 2] <= one.references["adam"]
    (panel,) = tuning.tuning_panels(results, [one])
    assert {"adam[tuned]", "adam", "velo"} <= {line.name for line in panel.lines}
    assert "adam[tuned]" not in results.optimizers
    assert len(results.records) == len(race())


def test_studies_under_another_budget_are_not_compared():
    other = [dataclasses.replace(run, budget=2.0 * STEPS) for run in study()]
    found, refused = tuning.tuned(results_of([*race(conditions=("step",)), *other], FEW_SAMPLES))
    assert not found
    assert "another budget" in refused[0]


def test_schedules_are_those_of_the_optimizers():
    words = ["preset=quick/flights_dlrm"]
    names = ("adam", "heavy_ball", "velo")
    configs = [suites.load_run([*words, f"optimizer={name}"]) for name in names]
    table = learning_rates(configs, [])
    assert set(table["optimizer"]) == {"adam", "heavy_ball"}
    adam = table[table["optimizer"] == "adam"].set_index("step")["learning_rate"]
    hint = configs[0].workload.settings.step_hint
    settings = configs[0].optimizer.settings
    total = int(0.75 * hint)
    assert adam.index[-1] == hint
    assert adam[0] == 0
    assert adam[hint] == pytest.approx(settings.learning_rate * settings.end_factor, rel=1e-4)
    warm = settings.warmup_fraction * total
    assert adam.max() == pytest.approx(settings.learning_rate, rel=0.01)
    assert adam.idxmax() == pytest.approx(warm, abs=1 + hint / 200)
    assert set(table.loc[table["optimizer"] == "heavy_ball", "learning_rate"]) == {0.05}
    theirs = paper_learning_rates()
    assert theirs.groupby("optimizer")["learning_rate"].max().round(4).to_dict() == {
        "adam": 0.005, "heavy_ball": 0.05, "nadam": 0.01, "nadamw": 0.01, "nesterov": 0.05,
    }  # fmt: skip


def schedule_panels() -> dict[str, Panel]:
    configs = [suites.load_run(["preset=quick/flights_dlrm", f"optimizer={name}"])
               for name in ("adam", "nadam", "nadamw", "heavy_ball", "nesterov")]  # fmt: skip
    return {panel.title: panel for panel in rate_panels(learning_rates(configs, []))}


def test_rates_that_span_decades_have_a_logarithmic_axis():
    (panel,) = schedule_panels().values()
    assert panel.log_y
    assert panel.apart == 0
    low, high = panel.y_limits
    values = np.concatenate([line.y for line in panel.lines])
    assert 0 < low < values[values > 0].min()
    assert high > values.max()
    rows = [("w", "a", 0, 0.1), ("w", "a", 9, 0.1), ("w", "b", 0, 0.3), ("w", "b", 9, 0.3)]
    constant = pd.DataFrame(rows, columns=["workload", "optimizer", "step", "learning_rate"])
    (panel,) = rate_panels(constant)
    assert not panel.log_y
    assert panel.y_limits == (0.0, pytest.approx(0.324))


def test_no_curve_of_learning_rates_is_hidden_or_moved():
    (panel,) = schedule_panels().values()
    styles = looks([line.name for line in panel.lines], {})
    with house_style():
        _, axes = figure_of(panel, styles)
        bottom, _ = axes.get_ylim()
    drawn = {line.get_gid().removeprefix("series:"): line for line in axes.lines if line.get_gid()}
    assert bottom > 0
    for line in panel.lines:
        np.testing.assert_array_equal(drawn[line.name].get_ydata(), line.y)
    svg = inline_svg(panel, styles, name="n", title="t")
    dashes = {}
    for group in re.findall(
        r'<g class="series" data-series="([^"]+)">\s*<path[^>]*?style="([^"]*)"', svg
    ):
        name, style = group
        pattern = re.search(r"stroke-dasharray: ([\d., ]+); stroke-dashoffset: ([\d.]+)", style)
        dashes[name] = pattern.groups() if pattern else None
    assert dashes["adam"] is None
    for one, other in (("nadam", "nadamw"), ("heavy_ball", "nesterov")):
        assert dashes[one] is not None
        assert dashes[one][0] == dashes[other][0]  # equal dashes ...
        on, off = map(float, dashes[one][0].split(","))
        assert on == pytest.approx(off)
        starts = sorted(float(dashes[name][1]) for name in (one, other))
        assert starts == pytest.approx([0, on])  # ... of which one begins where the other ends


def test_lines_that_only_cross_or_meet_are_drawn_as_they_are():
    x = np.linspace(0, 1, 11)
    lines = [Line("a", x, x), Line("b", x, 1 - x), Line("c", x[:4], x[:4]), Line("d", x, x + 0.02)]
    panel = Panel("t", "x", "y", lines)
    svg = inline_svg(panel, looks("abcd", {}), name="n", title="t")
    assert "stroke-dasharray" not in svg
    panel = Panel("t", "x", "y", [*lines, Line("e", x[:10], x[:10] + 0.001)])
    assert inline_svg(panel, looks("abcde", {}), name="n", title="t").count("dasharray") == 2


def test_what_velo_is_told(results: Results):
    table = progress_frame(results)
    assert set(table["condition"]) == {"time"}
    short = table[(table["optimizer"] == "velo_short") & (table["workload"] == "icbm_unet")]
    assert short["share"].tolist() == pytest.approx((short["step"] / 300).clip(upper=1).tolist())
    runs = [fed(run, "feed") for run in race(conditions=("time",)) if run.optimizer == "velo"]
    told = progress_frame(results_of(runs, FEW_SAMPLES))
    assert told["share"].max() == pytest.approx(1.0, abs=0.05)
    first = next(run for run in runs if run.workload == "icbm_unet")
    shares = told.loc[told["workload"] == "icbm_unet", "share"].tolist()
    assert shares[3] == pytest.approx(first.evaluations[3].train_seconds / first.budget)


def test_ranks_and_how_far_they_move(results: Results):
    table = rank_table(results)
    adam = next(row for row in table.body if row[0].text == "adam")
    assert adam[1].text == "1"
    assert re.fullmatch(r"1( to \d)?", adam[2].text)
    assert table.body[-1][2].text.endswith(" %")


def test_latex_and_markdown_hold_what_the_page_shows():
    body = [[Cell("a_b", kind="label"), Cell("0.5 ± 0.1", "0.4 to 0.6", kind="best"), Cell("1|2")]]
    table = Table("t_1", "100 % & more", header("x", "y", "z"), body, [("pair", 2)])
    text = exports.latex(table, table.title)
    assert r"\caption{100 \% \& more}" in text
    assert r"a\_b & \makecell[r]{\textbf{0.5 $\pm$ 0.1} \\ \scriptsize 0.4 to 0.6} & 1" in text
    assert r"\multicolumn{2}{c}{pair} \\" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    lines = exports.markdown(table).splitlines()
    assert lines[2] == "| x | pair: y | pair: z |"
    assert lines[4] == r"| a\_b | **0.5 ± 0.1** (0.4 to 0.6) | 1\|2 |"


def test_evaluations_in_parquet_are_those_of_the_runs():
    records = race(conditions=("step",))[:2]
    frame = evaluation_frame(records)
    assert len(frame) == sum(len(row.metrics) for run in records for row in run.evaluations)
    back = pd.read_parquet(io.BytesIO(exports.parquet(frame)))
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    row = frame[(frame["split"] == "validation") & (frame["metric"] == "loss")].iloc[3]
    assert row["value"] == records[0].evaluations[3].metrics["validation/loss"]


def test_long_tables_are_written_with_arrow_and_read_back_alike():
    number = 12_000
    frame = pd.DataFrame({
        "name": ["a b", "c"] * (number // 2),
        "step": range(number),
        "value": [0.1, math.inf, -math.inf, math.nan, 1e-300, 1 / 3] * (number // 6),
    })  # fmt: skip
    data = exports.csv(frame)
    assert data.startswith(b"name,step,value\na b,0,0.1\nc,1,inf\na b,2,-inf\nc,3,\n")
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(data)), frame)
    for odd in ("a, b", 'say "a"', "two\nlines", 7, None):
        mixed = frame.assign(name=[odd, "b"] * (number // 2))
        assert exports.csv(mixed) == mixed.to_csv(index=False, lineterminator="\n").encode()
    flags = frame.assign(value=True)
    assert exports.csv(flags).splitlines()[1] == b"a b,0,True"


def test_numbers_in_words():
    assert interval_text(0.5, math.inf) == "0.500 to never"
    assert interval_text(math.inf, math.inf) == "never"
    assert interval_text(math.nan, 1.0) == ""
    assert [signed(x) for x in (0.123, -0.5, 0.001, -0.001)] == ["+0.12", "−0.50", "0.00", "0.00"]


def test_facts_about_optimizers_come_from_tags_and_settings_never_from_labels():
    run = race(conditions=("step",))[0]
    plain = dataclasses.replace(run, optimizer="velo_x[a]", config={}, tags={})
    (one,) = entrants_of([plain]).values()
    assert (one.name, one.learned, one.color, one.fed) == ("velo_x", False, "", False)
    assert math.isnan(one.prompt)
    tags = {"optimizer_name": "mine", "learned": "true", "color": "#AA3377"}
    (one,) = entrants_of([dataclasses.replace(plain, tags=tags)]).values()
    assert (one.name, one.learned, one.color) == ("mine", True, "#AA3377")


def test_facts_that_only_some_runs_recorded_hold_for_the_optimizer():
    first, second = race(conditions=("step",))[:2]
    assert first.optimizer == second.optimizer
    (one,) = entrants_of(
        [
            dataclasses.replace(first, tags={}),
            dataclasses.replace(second, tags={"color": "#aa3377", "learned": "true"}),
        ]
    ).values()
    assert (one.color, one.learned) == ("#aa3377", True)


def test_the_report_names_no_optimizer():
    sources = [*Path(report.__file__).parent.rglob("*.py")]
    assert len(sources) > 25
    for source in sources:
        constants = {
            node.value
            for node in ast.walk(ast.parse(source.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not constants & set(OPTIMIZERS), source


def test_older_runs_of_learned_optimizers_are_known_by_their_weights():
    run = race(conditions=("step",))[0]
    tags = {"velo.weights": "embedded", "velo.num_steps": "300"}
    config = {"optimizer": "velo_short", "optimizer.prompt": "0.75"}
    old = dataclasses.replace(run, optimizer="a", tags=tags, config=config)
    (one,) = entrants_of([old]).values()
    assert (one.name, one.learned, one.prompt, one.fed) == ("velo_short", True, 0.75, False)
    assert one.is_variant
    (one,) = entrants_of([dataclasses.replace(old, tags={**tags, "learned": "false"})]).values()
    assert not one.learned
    config = {"optimizer": "velo_feed", "optimizer.weights": "embedded"}
    (one,) = entrants_of([dataclasses.replace(old, config=config)]).values()
    assert one.fed
    assert one.is_variant


def test_the_papers_optimizers_are_described_by_its_table(published: Results):
    known = published.entrants
    assert set(published.optimizers) == set(known)
    assert {name for name, one in known.items() if one.learned} == {"velo", "velo_short"}
    assert known["velo"].is_full
    assert known["velo_short"].prompt == 0.75


@pytest.mark.parametrize("side", [0, 1])
def test_colors_stay_apart_with_every_kind_of_color_blindness(side: int):
    """Distance in OKLab (Ottosson, 2020) as seen by Machado et al., 2009, severity 1."""
    kinds = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]],
    ]  # fmt: skip
    to_cones = [[0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468],
              [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip

    def lab(color: str, kind: object) -> npt.NDArray[np.float64]:
        parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        seen = np.clip(np.array(kind) @ linear, 0, 1)
        return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ seen)

    number = 10
    found = looks([f"optimizer {k}" for k in range(number)], {}).values()
    colors = [(look.light, look.dark)[side] for look in found]
    assert len(set(colors)) == number
    for kind in kinds:
        seen = [lab(color, kind) for color in colors]
        pairs = itertools.combinations(range(number), 2)
        assert min(np.linalg.norm(seen[i] - seen[k]) for i, k in pairs) > 0.085
    for one, other in itertools.pairwise(colors):
        seen = [np.linalg.norm(lab(one, kind) - lab(other, kind)) for kind in kinds]
        assert distance(one, other) == pytest.approx(min(seen))
    old = [lab(color, kinds[1]) for color in ("#e08f00", "#a39200")]  # heavy ball and hpo, once
    assert np.linalg.norm(old[0] - old[1]) < 0.03
    assert distance("#e08f00", "#a39200") < 0.03


def test_a_recorded_color_that_some_see_like_another_gives_way():
    entrants = {
        "a": Entrant("a", "a", color="#c97f11"),
        "b": Entrant("b", "b", color="#8a8500"),  # nearly so for people without red cones
        "c": Entrant("c", "c", color="#e08f00"),  # too faint on white
    }
    assert distance("#c97f11", "#8a8500") < 0.05
    found = looks(entrants, entrants)
    assert found["a"].light == "#c97f11"
    for one, other in itertools.combinations(found.values(), 2):
        assert distance(one.light, other.light) > 0.085


def test_the_optimizers_of_the_mini_suite_have_colors_of_their_own():
    names = suites.load_suite(["suite=mini"])[0].optimizer_names()
    entrants = {name: Entrant(name, name, color=OPTIMIZERS[name].color)
                for name in names if name != "hpo"} | {"hpo": Entrant("hpo", "nadamw")}  # fmt: skip
    found = looks(names, entrants)
    assert len(found) >= 9
    for one, other in itertools.combinations(found.values(), 2):
        assert distance(one.light, other.light) > 0.05
        assert distance(one.dark, other.dark) > 0.05


def test_recorded_colors_are_used_unless_taken_or_invisible():
    def named(label: str, color: str) -> Entrant:
        return Entrant(label, label, color=color)

    wanted = {"a": "#AA3377", "b": "#aa3379", "c": "#ffffff", "d": "red", "e": "#1f5eab", "f": ""}
    found = looks(wanted, {label: named(label, color) for label, color in wanted.items()})
    assert found["a"].light == "#aa3377"
    assert found["e"] == looks(["e"], {})["e"]  # of the palette, with its own dark twin
    assert len({look.light for look in found.values()}) == len(wanted)
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for look in found.values()
               for color in (look.light, look.dark))  # fmt: skip
    assert found["a"].dark > found["a"].light


def test_what_only_says_which_run_it_is_is_no_setting():
    run = race(conditions=("step",))[0]
    internal = {
        "described": "true", "pid": "1", "process_start": "x", "learned": "false", "spool": "p",
        "spool_id": "q", "journal": "j", "journal_sent": "3", "color": "#112233",
        "learning_rates": "[]", "optimizer_name": "adam", "mlflow.runName": "r", "config_hash": "c",
        "stop_reason": "BUDGET", "diverged": "false", "sets_time_budget": "true", "seed": "0",
    }  # fmt: skip
    shown = {"host_cpu": "Z80", "version.jax": "1", "warning": "w", "colorspace": "rgb"}
    frame = settings_frame([dataclasses.replace(run, tags={**internal, **shown})])
    assert set(frame["setting"]) == set(shown)


def test_a_race_with_fixed_targets_also_shows_those_that_it_would_set_itself():
    runs = race(conditions=("step",))
    fixed = [
        dataclasses.replace(run, tags={**run.tags, "target.validation": "0.5"}) for run in runs
    ]
    found = sensitivity.section(results_of(fixed, FEW_SAMPLES))
    assert found is not None
    table = found.frames["sensitivity"]
    assert set(table["kind"]) == {"chosen", "share", "relaxed", "setter", "r_max"}
    assert [len(plot.panels) for plot in found.plots] == [4]
    own = sensitivity.section(results_of(runs, FEW_SAMPLES))
    assert own is not None
    free = [
        one.frames["sensitivity"].loc[lambda t: t["kind"].isin(["share", "setter"])]
        for one in (found, own)
    ]
    pd.testing.assert_frame_equal(*(table.reset_index(drop=True) for table in free))
