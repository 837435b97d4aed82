"""The three answers: the paper's own conclusions from its tables, and every kind of verdict."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.report.answers import (
    Answer,
    Verdict,
    overall,
    p_text,
    resolution_text,
)
from timetrial.tracking.report.comparison import baselines, contender
from timetrial.tracking.report.entrants import entrants_of
from timetrial.tracking.report.measures import COLUMNS, FINAL, Kind, Measure
from timetrial.tracking.report.measures import improvement as probabilities
from timetrial.tracking.report.pairs import Pair, costs, deciding_open, firsts, pairs, seeds_needed
from timetrial.tracking.report.paper import published as paper_results
from timetrial.tracking.report.paper import read
from timetrial.tracking.report.prompts import flips, variants
from timetrial.tracking.report.results import ReportOptions, Results, results_of
from timetrial.tracking.report.section import Bullets, Section, Text
from timetrial.tracking.report.sections import improvement, prompt, scores
from timetrial.tracking.report.standings import directions, places, standings
from timetrial.tracking.scores.final_quality import final_quality
from timetrial.tracking.scores.resampling import Bootstrap

FEW = ReportOptions(bootstrap=Bootstrap(samples=200))
FIVE = ("adam", "nadam", "nadamw", "heavy_ball", "nesterov")
PROMPTS = {"velo": 1.0, "short": 0.75, "fed": math.nan}
NAN = math.nan

Finals = Mapping[str, Mapping[str, Sequence[float]]]


def run(workload: str, optimizer: str, seed: int, final: float, condition: str) -> RunRecord:
    """A run whose accuracy grows evenly up to its final value; NaN = it diverges half-way."""
    reached = 0.5 if math.isnan(final) else final
    steps = range(0, 51 if math.isnan(final) else 101, 10)
    rows = []
    for step in steps:
        accuracy = reached * step / 100
        metrics = {
            f"{split}/{name}": value
            for split in ("train", "validation")
            for name, value in (("accuracy", accuracy), ("loss", 1 - accuracy))
        }
        rows.append(Row(step, 2.0 * step, metrics))
    config, tags = {"optimizer": optimizer}, {"optimizer_name": optimizer, "learned": "false"}
    if optimizer in PROMPTS:
        tags |= {"learned": "true", "velo.num_steps": "100", "velo.weights": "embedded"}
        config |= {"optimizer.weight_decay": "0"}
        if not math.isnan(PROMPTS[optimizer]):
            config |= {"optimizer.prompt": str(PROMPTS[optimizer])}
    return RunRecord(
        run_id=f"{condition}-{workload}-{optimizer}-{seed}",
        workload=workload,
        optimizer=optimizer,
        seed=seed,
        condition=Condition(condition),
        budget=100.0 if condition == "step" else 200.0,
        metric="accuracy",
        direction=Direction.MAXIMIZE,
        status="FAILED" if math.isnan(final) else "FINISHED",
        reason="DIVERGED" if math.isnan(final) else "BUDGET",
        step=rows[-1].step,
        train_seconds=rows[-1].train_seconds,
        evaluations=rows,
        config=config,
        tags=tags,
    )


def runs(finals: Finals, conditions: Sequence[str] = ("step",)) -> list[RunRecord]:
    return [
        run(workload, optimizer, seed, value, condition)
        for condition in conditions
        for optimizer, by_workload in finals.items()
        for workload, values in by_workload.items()
        for seed, value in enumerate(values)
    ]


def made(finals: Finals, conditions: Sequence[str] = ("step",)) -> Results:
    return results_of(runs(finals, conditions), FEW)


def around(value: float, seeds: int = 3) -> list[float]:
    return [value + 0.001 * seed for seed in range(seeds)]


def everywhere(value: float, workloads: str = "abcd", seeds: int = 3) -> dict[str, list[float]]:
    return {workload: around(value, seeds) for workload in workloads}


def table(section: Section, name: str) -> dict[tuple[str, int], tuple[str, str, str]]:
    """Text, small text and kind of the cells of a section's table, by row and column."""
    (found,) = (one for one in section.tables if one.name == name)
    return {
        (row[0].text, place): (cell.text, cell.sub, cell.kind)
        for row in found.body
        for place, cell in enumerate(row[1:])
    }


# The paper's conclusions from its own tables.


@pytest.fixture(scope="module")
def paper() -> Results:
    return paper_results()


def test_the_paper_velo_is_not_free_of_hyperparameters(paper: Results):
    """2 of 8 cells flip between reached and never in the time condition (Table 1)."""
    answer = prompt.answer(paper)
    assert answer.verdict is Verdict.NO
    assert answer.lead.startswith("No: ")
    found, number = flips(paper, "velo", "velo_short")
    by_time = [flip for flip in found if flip.standing.condition == "time"]
    assert [flip.text for flip in by_time] == [
        "criteo1tb, training (only velo_short, after 6,088 seconds)",
        "ogbg, training (only velo, after 13,215 seconds)",
    ]
    assert (len(by_time), len(found), number) == (2, 4, 16)
    assert "4 of 16 cells" in answer.lead
    short = "from velo to velo_short, prompted with 75 % of its steps"
    listed = f"{by_time[0].text}; {by_time[1].text}."
    said = f"Under time control, 2 of 8 cells flip between reached and never {short}: {listed}"
    assert said in answer.points
    # Appendices D.2-D.5: the full prompt has the lower training loss on all four workloads, the
    # short one the lower validation loss on three.
    counted = "training loss on 4 and 0; training metric on 4 and 0; validation loss on 1 and 3"
    assert any(counted in point for point in answer.points)
    assert any("imagenet_resnet from 1.536 to 1.377 (−10.3 %)" in point for point in answer.points)


def test_the_paper_velo_is_not_better_in_final_quality(paper: Results):
    """Best in 1 of 4 workloads by training loss and in 1 of 4 by validation loss (Table 2)."""
    answer = improvement.answer(paper)
    assert answer.verdict is Verdict.NO
    best = {
        (condition, split, kind): firsts(paper, Measure(condition, split, kind), "velo", FIVE)
        for condition in Condition
        for split in (Split.TRAIN, Split.VALIDATION)
        for kind in FINAL
    }
    four = ["criteo1tb", "fastmri", "imagenet_resnet", "ogbg"]
    for condition in Condition:
        assert best[condition, Split.TRAIN, Kind.LOSS] == (["ogbg"], [], four)
        assert best[condition, Split.VALIDATION, Kind.LOSS] == (["imagenet_resnet"], [], four)
        assert best[condition, Split.TRAIN, Kind.METRIC] == (["ogbg"], [], four)
        metric = best[condition, Split.VALIDATION, Kind.METRIC]
        assert metric == (["fastmri", "imagenet_resnet"], [], four)
        best_loss = "the best training loss on 1 of 4"
        assert f"{best_loss} and the best validation loss on 1 of 4 under {condition}" in (
            answer.lead.replace(" workloads", "")
        )
    assert set(baselines(paper)) == set(FIVE)  # hpo is a reference
    assert "hpo is tuned on each workload: a reference, no baseline." in answer.points
    # Table 2: 0.0153 on OGBG against Adam's 0.0165, 0.1046 on ImageNet against 0.0470.
    training = costs(paper, Measure(Condition.STEP, Split.TRAIN, Kind.LOSS)).to_dict()
    assert (training["ogbg"]["velo"], training["ogbg"]["adam"]) == (0.0153, 0.0165)
    assert training["imagenet_resnet"]["velo"] == 0.1046
    assert training["imagenet_resnet"]["adam"] == 0.0470
    assert "worse than nadamw and adam by at least one measure" in answer.lead


def test_the_paper_velo_is_not_faster(paper: Results):
    """Training: 0.19 against Adam's 1.00 in seconds, 0.00 against 1.00 in steps (Table 3)."""
    answer = scores.answer(paper)
    assert answer.verdict is Verdict.NO
    printed = read("scores.csv").set_index(["condition", "split", "optimizer"])["score"]
    said = {
        ("time", "train"): ("adam", 0.19, 1.00, "0.20 against adam’s 1.00 on training, time"),
        ("step", "train"): ("adam", 0.00, 1.00, "0.00 against adam’s 1.00 on training, step"),
        ("time", "validation"): ("nadamw", 0.71, 0.49, "0.72 against nadamw’s 0.49 on valid"),
        ("step", "validation"): ("adam", 0.39, 0.50, "0.40 against adam’s 0.50 on validation"),
    }
    found = {(one.condition, one.split): one.scores for one in paper.standings}
    for where, (rival, mine, best, words) in said.items():
        assert (printed[(*where, "velo")], printed[(*where, rival)]) == (mine, best)
        assert found[where]["velo"] == pytest.approx(mine, abs=0.015)
        assert found[where][rival] == pytest.approx(best, abs=0.015)
        assert words in answer.lead
    assert "higher than every baseline in 1 of 4 rankings and lower than at least one in 3" in (
        answer.lead
    )
    (training,) = (p for p in answer.points if p.startswith("Training, step control"))
    assert "a three-way tie for last of 7" in training
    assert "It reaches 2 of 4 targets, none of them before every baseline" in training


def test_the_paper_without_flips_cannot_tell(paper: Results):
    same = []
    for standing in paper.standings:
        times = standing.times.copy()
        times.loc["velo_short"] = times.loc["velo"]
        same.append(dataclasses.replace(standing, times=times))
    answer = prompt.answer(dataclasses.replace(paper, standings=same))
    assert answer.verdict is Verdict.OPEN
    assert "0 of 16 cells" in answer.lead
    assert any("4 are reached by both, 4 by neither" in point for point in answer.points)
    assert answer.needed == "Needed: the single trials, which are not published."


# Question 1: the prompt.


def test_two_scores_of_zero_say_nothing_but_final_values_do():
    """B13: both scores are 0.00; by final values the full prompt wins every pair of runs."""
    found = made({"velo": everywhere(0.5), "short": everywhere(0.4), "adam": everywhere(0.9)})
    answer = prompt.answer(found)
    assert answer.verdict is Verdict.NO
    assert any("0.00 for both on validation, so that the score cannot tell" in p
               for p in answer.points)  # fmt: skip
    duel = "validation metric (velo better with P = 1.00, 1.00 to 1.00; p < 0.001)"
    assert any(duel in point for point in answer.points)
    assert any("8 cells flip" in p and "0 are reached by both, 8 by neither" in p
               for p in answer.points)  # fmt: skip
    cells = table(prompt.section(found), "prompt_improvement")
    level = ("0.50", "0.50 to 0.50 · all level · 0 of 4", "")
    assert cells["time to the training target, step control", 0] == level
    # The two times to target cannot differ: 4 comparisons count, 4 x 2 / 20^4.
    (pair,) = (p for p in pairs(found, [("velo", "short")], tuple(Kind), any_difference=True)
               if p.measure == ("step", "train", "loss"))  # fmt: skip
    assert pair.p_value == pytest.approx(4 * 0.1**4)


def test_a_prompt_that_helps_here_and_harms_there_matters():
    up, down = around(0.8), around(0.6)
    found = made(
        {
            "velo": {"a": up, "b": up, "c": down, "d": down},
            "short": {"a": down, "b": down, "c": up, "d": up},
        }
    )
    (pair,) = (p for p in pairs(found, [("velo", "short")], FINAL, any_difference=True)
               if p.measure == ("step", "validation", "metric"))  # fmt: skip
    assert pair.probability == 0.5
    assert pair.shown
    assert pair.sign == 0
    assert prompt.answer(found).verdict is Verdict.NO
    (directed,) = (p for p in pairs(found, [("velo", "short")], FINAL)
                   if p.measure == ("step", "validation", "metric"))  # fmt: skip
    assert not directed.shown


def noise(seed: int, seeds: int, names: Sequence[str], workloads: str = "abcd") -> Finals:
    """Equal optimizers."""
    random = np.random.default_rng(seed)
    return {
        name: {workload: random.normal(0.7, 0.02, seeds).tolist() for workload in workloads}
        for name in names
    }


def test_a_prompt_that_does_not_matter_takes_many_seeds_to_show():
    few = prompt.answer(made(noise(1, 3, ("velo", "short"))))
    assert few.verdict is Verdict.OPEN
    assert few.needed.startswith("Needed: ")
    finals = {name: {w: around(0.7, 12) for w in "abcd"} for name in ("velo", "short", "adam")}
    many = prompt.answer(made({**finals, "adam": everywhere(0.2, seeds=12)}))
    assert many.verdict is Verdict.YES
    assert many.needed == ""
    assert "0 of 8 cells" in many.lead
    some = prompt.answer(made({name: everywhere(0.7, seeds=2) for name in ("velo", "short")}))
    assert some.verdict is Verdict.OPEN  # equal in every number, but of two seeds


def test_one_seed_tells_nothing_about_the_prompt():
    finals = {"velo": everywhere(0.7, seeds=1), "short": everywhere(0.3, seeds=1)}
    answer = prompt.answer(made(finals))
    assert answer.verdict is Verdict.OPEN
    assert "not even a win in every pair of runs is told from chance" in answer.points[-1]
    assert "about 3 seeds instead of 1" in answer.needed  # (2 / 6)^4 > 0.05 / 6 > (2 / 20)^4
    assert "8 of 8 cells" in answer.lead


def test_prompts_of_the_same_weights_are_compared():
    finals = {"velo": everywhere(0.7), "short": everywhere(0.6), "fed": everywhere(0.6)}
    records = runs(finals)
    google = [
        dataclasses.replace(
            r,
            optimizer="z[google]",
            run_id=f"{r.run_id}g",
            tags={**r.tags, "velo.weights": "google"},
        )
        for r in records
        if r.optimizer == "velo"
    ]
    both = results_of([*records, *google], FEW)
    assert contender(both) == "z[google]"  # the question is about Google's VeLO
    assert variants(both, "velo") == ["fed", "short"]
    assert variants(both, "z[google]") == ["fed", "short"]  # none has its weights
    other = [
        dataclasses.replace(
            r,
            optimizer="short[google]",
            run_id=f"{r.run_id}s",
            config={**r.config, "optimizer.prompt": "0.75"},
        )
        for r in google
    ]
    assert variants(results_of([*records, *google, *other], FEW), "z[google]") == ["short[google]"]
    answer = prompt.answer(results_of(records, FEW))
    assert any("to fed, fed the remaining share of the budget" in point for point in answer.points)


def test_a_prompt_that_also_ends_the_run_is_said_to():
    records = runs({"velo": everywhere(0.7), "short": everywhere(0.6)})
    cut = [dataclasses.replace(r, step=75) if r.optimizer == "short" else r for r in records]
    said = "short also ends after 75 % of velo’s updates"
    assert said in prompt.answer(results_of(cut, FEW)).lead
    assert said not in prompt.answer(results_of(records, FEW)).lead


def test_a_diverged_prompt_is_the_worse_one():
    broken = {w: [NAN, NAN, NAN] for w in "abcd"}
    answer = prompt.answer(made({"velo": everywhere(0.7), "short": broken}))
    assert answer.verdict is Verdict.NO
    assert any("training loss (velo better with P = 1.00" in point for point in answer.points)
    assert not any("Largest change" in point for point in answer.points)


# Question 2: final quality.


def test_better_by_every_measure_is_yes():
    found = made({"velo": everywhere(0.9), **{name: everywhere(0.7) for name in FIVE}})
    answer = improvement.answer(found)
    assert answer.verdict is Verdict.YES
    assert "the best training loss on 4 of 4 workloads" in answer.lead
    assert "under step control. It is better than " in answer.lead
    assert "worse" not in answer.lead
    assert answer.needed == ""
    cells = table(improvement.section(found), "improvement")
    # 20 comparisons, each 2 of 20^4 relabellings
    assert cells["adam", 0] == ("1.00", "1.00 to 1.00 · p < 0.001 · 4 of 4", "best")
    (pair, *_) = pairs(found, [("velo", name) for name in FIVE], FINAL)
    assert pair.p_value == pytest.approx(20 * 2 / 20**4)


def test_worse_than_one_baseline_by_one_measure_is_no():
    others = {name: everywhere(0.7) for name in FIVE}
    found = made({"velo": everywhere(0.8), **others, "nadam": everywhere(0.9)})
    answer = improvement.answer(found)
    assert answer.verdict is Verdict.NO
    assert "the best training loss on 0 of 4" in answer.lead
    assert "better than adam, heavy_ball, nadamw and nesterov by every measure" in answer.lead
    assert "worse than nadam by at least one measure" in answer.lead
    assert table(improvement.section(found), "improvement")["nadam", 3][2] == "bad"


def test_five_comparisons_at_once_need_more_than_one():
    """One workload, 4 seeds: p = 2 / 70 for a complete separation, below 0.05 only alone."""
    alone = improvement.answer(
        results_of(
            [
                dataclasses.replace(r, evaluations=[_only(row) for row in r.evaluations])
                for r in runs({"velo": {"a": around(0.8, 4)}, "adam": {"a": around(0.7, 4)}})
            ],
            FEW,
        )
    )
    assert alone.verdict is Verdict.YES
    five = improvement.answer(
        made({"velo": {"a": around(0.8, 4)}, **{name: {"a": around(0.7, 4)} for name in FIVE}})
    )
    assert five.verdict is Verdict.OPEN
    assert "not even a win in every pair of runs is told from chance" in five.points[-1]
    assert "20 comparisons at once" in five.points[-1]
    assert "Not distinguished in 20 of 20 comparisons".lower() in five.points[1]


def _only(row: Row) -> Row:
    """The row with one measure: a single comparison."""
    kept = {"validation/accuracy": row.metrics["validation/accuracy"]}
    return dataclasses.replace(row, metrics=kept)


def test_an_open_question_says_how_many_seeds_it_takes():
    finals = {"velo": {w: [0.71, 0.72, 0.79] for w in "abcd"},
              "adam": {w: [0.70, 0.73, 0.80] for w in "abcd"}}  # fmt: skip
    found = made(finals)
    answer = improvement.answer(found)
    assert answer.verdict is Verdict.OPEN
    pair = pairs(found, [("velo", "adam")], FINAL)[0]
    assert pair.probability == pytest.approx(4 / 9)  # of nine pairs: 0.71 beats 1, 0.72 1, 0.79 2
    assert "(0.44) is too small" in answer.needed or "(0.44) stays as it is" in answer.needed
    assert "is told from chance is 0.8" in answer.points[-1]


def test_seeds_needed_by_hand():
    measure = Measure(Condition.STEP, Split.TRAIN, Kind.LOSS)
    pair = Pair(measure, "x", "y", ["a"], [], [], 1.0, 1.0, 1.0, 0.1, trials=3, seeds=3, effect=0.5)
    assert seeds_needed(pair, 1, 0.95) == 4  # 2 / 70
    assert seeds_needed(pair, 2, 0.95) == 5  # 2 / 252, at most 0.025
    anyway = dataclasses.replace(pair, any_difference=True)
    assert seeds_needed(anyway, 1, 0.95) == 4
    weak = dataclasses.replace(pair, probability=0.52, effect=0.02)
    assert seeds_needed(weak, 1, 0.95) is None
    better = dataclasses.replace(pair, other="z", probability=0.6, effect=0.1)
    worse = dataclasses.replace(pair, probability=0.45, effect=0.05)
    assert deciding_open([better, worse]) == worse  # it would refute the claim
    assert deciding_open([better, pair]) == better  # the claim stands with the least clear one
    assert deciding_open([dataclasses.replace(better, any_difference=True), pair]) is not None
    assert deciding_open([dataclasses.replace(pair, shown=True)]) is None
    assert deciding_open([dataclasses.replace(pair, probability=0.5, effect=0.0)]) is None


def test_equal_runs_are_level_not_better():
    found = made({"velo": everywhere(0.7), "adam": everywhere(0.7), "nadam": everywhere(0.6)})
    measure = Measure(Condition.STEP, Split.VALIDATION, Kind.METRIC)
    assert firsts(found, measure, "velo", ["adam", "nadam"]) == ([], list("abcd"), list("abcd"))
    answer = improvement.answer(found)
    assert answer.verdict is Verdict.OPEN
    assert any("on 0 of 4, level with the best on a, b, c and d" in p for p in answer.points)
    assert answer.needed.startswith("Needed: other targets or workloads")


def test_optimizers_with_equal_single_runs_are_not_tested():
    same = {w: [0.7, 0.7, 0.7] for w in "ab"}
    answer = improvement.answer(made({"velo": same, "adam": same}))
    assert answer.verdict is Verdict.OPEN
    assert answer.points[-1] == "All runs are level by every measure: there is nothing to test."


def test_a_cell_with_a_diverged_run_is_never_the_best():
    lost = {**everywhere(0.9), "a": [0.95, 0.96, NAN]}
    found = made({"velo": everywhere(0.8), "adam": lost, "nadam": everywhere(0.7)})
    measure = Measure(Condition.STEP, Split.TRAIN, Kind.LOSS)
    assert costs(found, measure)["a"]["adam"] == math.inf
    assert firsts(found, measure, "velo", ["adam", "nadam"])[0] == ["a"]
    swapped = made({"velo": lost, "adam": everywhere(0.8)})
    alone, _, all_ = firsts(swapped, measure, "velo", ["adam"])
    assert (alone, all_) == (list("bcd"), list("abcd"))


def test_workloads_without_runs_do_not_count():
    found = made({"velo": everywhere(0.9, "ab"), "adam": everywhere(0.8, "abcd")})
    assert "on 2 of 2 workloads" in improvement.answer(found).lead
    apart = made({"velo": everywhere(0.9, "ab"), "adam": everywhere(0.8, "cd")})
    answer = improvement.answer(apart)
    assert answer.verdict is Verdict.OPEN
    assert "no final values of velo and of a baseline on one workload" in answer.lead


def test_a_loss_that_decides_is_counted_once():
    records = [
        dataclasses.replace(r, metric="loss", direction=Direction.MINIMIZE)
        for r in runs({"velo": everywhere(0.9), "adam": everywhere(0.8)})
    ]
    found = results_of(records, FEW)
    assert {p.measure.kind for p in pairs(found, [("velo", "adam")], FINAL)} == {Kind.METRIC}
    assert "the best training metric on 4 of 4" in improvement.answer(found).lead


def test_both_conditions_are_answered():
    finals = {"velo": everywhere(0.9), "adam": everywhere(0.8), "short": everywhere(0.85)}
    found = made(finals, ("time", "step"))
    for make in (prompt.answer, improvement.answer, scores.answer):
        text = " ".join([make(found).lead, *make(found).points])
        assert "time control" in text
        assert "step control" in text
    one = made(finals)
    for make in (prompt.answer, improvement.answer, scores.answer):
        assert "time control" not in " ".join([make(one).lead, *make(one).points])


# Question 3: speed.


def test_faster_than_all_on_every_split_is_yes():
    found = made({"velo": everywhere(0.9), "adam": everywhere(0.6), "nadam": everywhere(0.5)})
    answer = scores.answer(found)
    assert answer.verdict is Verdict.YES
    assert "faster than every baseline in 2 of 2 rankings and slower than at least one in 0" in (
        answer.lead
    )
    (point,) = (p for p in answer.points if p.startswith("Validation"))
    assert "velo scores 1.00 (1.00 to 1.00), place 1 of 3" in point
    assert "It reaches 4 of 4 targets, 4 of them before every baseline (a, b, c and d)" in point
    assert "faster than adam (1.00) and nadam (1.00)" in point


def test_slower_than_one_is_no_and_places_at_zero_are_ties():
    finals = {"velo": everywhere(0.5), "short": everywhere(0.5), "adam": everywhere(0.9)}
    finals |= {name: everywhere(0.5) for name in FIVE[1:]}
    answer = scores.answer(made(finals))
    assert answer.verdict is Verdict.NO
    (point,) = (p for p in answer.points if p.startswith("Training"))
    assert "velo scores 0.00 (0.00 to 0.00), a six-way tie for last of 7" in point
    assert "At 0.00 the score cannot tell it from heavy_ball, nadam, nadamw and nesterov" in point
    assert "slower than adam (0.00)" in point
    assert "not distinguished from heavy_ball (0.50)" in point


def test_where_nobody_is_told_apart_the_data_cannot_tell():
    finals = noise(3, 3, ("velo", *FIVE))
    answer = scores.answer(made(finals))
    assert answer.verdict is Verdict.OPEN
    assert answer.needed.startswith("Needed: ")
    assert all(", coverage " in point for point in answer.points[:2])  # of the score's interval
    assert "Intervals of probabilities hold the true one in " in answer.points[-1]


def test_targets_that_nobody_reaches_need_other_targets():
    records = [
        dataclasses.replace(r, tags={**r.tags, "target.validation": "2.0", "target.train": "2.0"})
        for r in runs({"velo": everywhere(0.9), "adam": everywhere(0.8)})
    ]
    answer = scores.answer(results_of(records, FEW))
    assert answer.verdict is Verdict.OPEN
    assert answer.needed.startswith("Needed: other targets, which velo and the baselines reach")
    assert "at 0.00 the score cannot tell it from the best baseline" in answer.points[0]
    assert "0.00 level with adam’s 0.00 on training" in answer.lead


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.75, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0], "a five-way tie for last of 7"),  # B14
        ([0.0, 0.0], "a two-way tie for first of 2"),
        ([0.9, 0.5, 0.5, 0.1], "a two-way tie for places 2 to 3 of 4"),
        ([0.9, 0.5], "place 2 of 2"),
        ([0.5], "place 1 of 1"),
        ([0.0] * 12, "a 12-way tie for first of 12"),
    ],
)
def test_places(values: list[float], expected: str):
    names = [f"o{k}" for k in range(len(values))]
    found = pd.Series(values, names)
    assert places(found)["o2" if len(values) > 2 else names[-1]].of(len(found)) == expected


# What is lacking, and words.


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), ("VeLO prompted with all its steps", "a learned optimizer", "a learned optimizer")),
        (("adam",), ("VeLO prompted with all its steps", "a learned optimizer", "a learned")),
        (("velo",), ("compare velo with another prompt", "runs of a baseline", "of a baseline")),
    ],
)
def test_questions_without_their_runs_stay_open(names: tuple[str, ...], words: tuple[str, ...]):
    found = made({name: everywhere(0.7) for name in names})
    for make, what in zip((prompt, improvement, scores), words, strict=True):
        answer = make.answer(found)
        assert answer.verdict is Verdict.OPEN
        assert answer.lead.startswith("The data cannot tell: these results hold no ")
        if what == "of a baseline":
            what = "scores of velo and a baseline"
        assert what in answer.lead
        assert answer.needed.startswith("Needed: ")
        first, *rest = make.section(found).blocks
        assert isinstance(first, Text)
        assert (first.text, first.kind) == (answer.lead, "answer")
        assert not any(isinstance(block, Bullets) for block in rest)


def test_a_claim_holds_where_every_part_does():
    assert overall([1, 1]) is Verdict.YES
    assert overall([1, 0]) is Verdict.OPEN
    assert overall([1, -1]) is Verdict.NO
    assert overall([0, -1]) is Verdict.NO
    assert overall([]) is Verdict.OPEN


def test_an_answer_in_words():
    answer = Answer(Verdict.OPEN, "two runs.", ["Too few."], ["a", "b"], "Needed: three.")
    assert answer.short == "The data cannot tell: two runs."
    assert answer.lead == "The data cannot tell: two runs. Too few. Needed: three."
    text, bullets = answer.blocks()
    assert isinstance(text, Text)
    assert isinstance(bullets, Bullets)
    assert bullets.items == ["a", "b"]
    found = [p_text(p) for p in (0.0004, 0.0504, 0.25, 1.0, NAN)]
    assert found == ["p < 0.001", "p = 0.0504", "p = 0.25", "p = 1.00", "all level"]


def bare(records: Sequence[RunRecord]) -> Results:
    """Results without intervals of scores, which take long and no test looks at."""
    found, entrants = standings(records), entrants_of(records)
    return Results(
        records=records,
        standings=found,
        quality=final_quality(records),
        improvement=probabilities(records, found, "velo", ["short"], Bootstrap(samples=20)),
        metrics={run.workload: run.metric for run in records},
        directions=directions(records),
        optimizers=sorted(entrants),
        entrants=entrants,
        options=FEW,
    )


@pytest.mark.slow
def test_equal_optimizers_are_seldom_told_apart():
    """Six equal optimizers: a false statement in at most 5 % of the answers; 40 races."""
    false = {"quality": 0, "speed": 0, "prompt": 0}
    for seed in range(40):
        found = bare(runs(noise(seed, 3, ("velo", "short", *FIVE[:4]), "abc")))
        names = [("velo", other) for other in baselines(found)]
        false["quality"] += any(pair.shown for pair in pairs(found, names, FINAL))
        false["speed"] += any(pair.shown for pair in pairs(found, names, [Kind.TIME]))
        prompted = pairs(found, [("velo", "short")], tuple(Kind), any_difference=True)
        false["prompt"] += any(pair.shown for pair in prompted)
    # Binomial, 40 trials of 0.05: more than 6 with a probability of 0.3 %.
    assert max(false.values()) <= 6, false


def test_the_numbers_behind_the_answers_are_a_table():
    found = made({"velo": everywhere(0.9), "short": everywhere(0.8), "adam": everywhere(0.7)})
    table = found.improvement
    assert list(table.columns) == list(COLUMNS)
    by_metric = table[table["measure"] == "metric"]
    assert len(by_metric) == 2 * 3 * 2  # splits, ordered pairs of three
    assert set(table[table["measure"] != "metric"]["optimizer"]) == {"velo", "short", "adam"}
    tested = table[table["p_any"].notna()]
    assert set(itertools.product(tested["optimizer"], tested["other"])) == {("velo", "short")}
    assert found.improvement is improvement.section(found).frames["improvement"]


def test_the_smallest_difference_is_told():
    found = made({"velo": everywhere(0.9), "adam": everywhere(0.8)})
    compared = pairs(found, [("velo", "adam")], FINAL)
    # 4 workloads of 3 seeds, 4 comparisons
    assert "is told from chance is 0.83 (0.17 on the other side)" in resolution_text(
        found, compared
    )


def test_every_answer_has_its_tables():
    found = made(
        {"velo": everywhere(0.9), "short": everywhere(0.8), "adam": everywhere(0.7)},
        ("time", "step"),
    )
    first, second, third = (make.section(found) for make in (prompt, improvement, scores))
    times = {f"prompt_{c}_{s}" for c in ("time", "step") for s in ("train", "validation")}
    assert {one.name for one in first.tables} == {
        *times, "prompt_differences", "prompt_improvement",
    }  # fmt: skip
    assert {one.name for one in second.tables} == {"loss_time", "loss_step", "improvement"}
    assert {one.name for one in third.tables} == {"scores", "faster"}
    for section in (first, second, third):
        kinds = [block.kind for block in section.blocks if isinstance(block, Text)]
        assert kinds.count("answer") == 1
        assert isinstance(section.blocks[1], Bullets)


def test_tuned_reference_runs_are_the_baseline_of_a_race_without_others():
    """Suite ``learned``: is a learned optimizer better than a tuned one?"""
    alone = made({"velo": everywhere(0.9), "hpo": everywhere(0.8)})
    assert baselines(alone) == ["hpo"]
    answer = improvement.answer(alone)
    assert answer.verdict is Verdict.YES
    assert "hpo is tuned on each workload: the only baseline." in answer.points
    beside = made({"velo": everywhere(0.9), "hpo": everywhere(0.8), "adam": everywhere(0.7)})
    assert baselines(beside) == ["adam"]
