"""Runs whose seconds are not credible: scores under time control leave them out, or count them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from race import race

from timetrial import score
from timetrial.bench.leaderboard import leaderboard_of
from timetrial.bench.planning import suspect_digests
from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.tracking.record import schema
from timetrial.tracking.report.listing import listed_runs
from timetrial.tracking.report.results import ReportOptions, results_of
from timetrial.tracking.report.sections.notes import notes
from timetrial.tracking.report.sections.runs import run_frame, run_table
from timetrial.tracking.report.standings import standings
from timetrial.tracking.report.summary import score_table_text
from timetrial.tracking.scores.algoperf_rules import RULES
from timetrial.tracking.scores.machines import left_out, suspect, with_suspect
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.targets import trials

WHY = "Other processes used 48 % of the 2 cores during 3.2 charged seconds (allowed: 15 %)."


def marked(record: RunRecord) -> RunRecord:
    return dataclasses.replace(record, tags={**record.tags, schema.SECONDS_SUSPECT: WHY})


def slowed(record: RunRecord, factor: float) -> RunRecord:
    """The same run with every charged second taking longer, as beside a busy machine."""
    rows = [
        dataclasses.replace(row, train_seconds=factor * row.train_seconds)
        for row in record.evaluations
    ]
    slow = dataclasses.replace(record, evaluations=rows)
    return marked(dataclasses.replace(slow, train_seconds=factor * record.train_seconds))


def disturbed(records: list[RunRecord]) -> list[RunRecord]:
    """Seed 1 of Adam ran beside other processes, four times as slow."""
    return [slowed(r, 4.0) if (r.optimizer, r.seed) == ("adam", 1) else r for r in records]


def at(records: list[RunRecord], condition: str) -> dict[str, float]:
    found = next(
        s for s in standings(records) if (s.condition, s.split) == (condition, "validation")
    )
    return {str(name): float(value) for name, value in found.scores.items()}


def test_marked_runs_count_under_step_control_only():
    records = disturbed(race())
    here = [r for r in records if suspect(r)]
    assert {(r.condition, r.optimizer, r.seed) for r in here} == {("time", "adam", 1)}
    timed, stepped = (trials(records, condition=c) for c in ("time", "step"))
    assert ("adam", 1) not in {(r.optimizer, r.seed) for r in timed}
    assert ("adam", 1) in {(r.optimizer, r.seed) for r in stepped}
    without = [r for r in race() if (r.condition, r.optimizer, r.seed) != ("time", "adam", 1)]
    assert at(records, "time") == at(without, "time")
    assert at(records, "step") == at(race(), "step")


def test_asked_for_they_count():
    records = disturbed(race())
    bare = [
        dataclasses.replace(
            r, tags={k: v for k, v in r.tags.items() if k != schema.SECONDS_SUSPECT}
        )
        for r in records
    ]
    for ours, theirs in zip(standings(records, include_suspect=True), standings(bare), strict=True):
        pd.testing.assert_frame_equal(ours.times, theirs.times)
        pd.testing.assert_series_equal(ours.scores, theirs.scores)
    asked, unasked = (score(records, include_suspect=asked) for asked in (True, False))
    assert not np.allclose(asked["time"], unasked["time"])
    np.testing.assert_array_equal(asked["step"], unasked["step"])
    assert with_suspect(race()) == race()


def test_a_credible_run_comes_before_a_suspect_one_of_the_same_seed():
    (original,) = [
        r
        for r in race()
        if (r.condition, r.workload, r.optimizer, r.seed) == ("time", "assays_gnn", "adam", 0)
    ]
    bad = dataclasses.replace(slowed(original, 4.0), run_id="zzz", step=10**6)
    for records in ([bad, original], [original, bad]):
        assert trials(records, condition="time") == [original]
        assert trials(with_suspect(records), condition="time") == [original]
        assert left_out(records) == []  # it is replaced
    stepped = [dataclasses.replace(r, condition="step") for r in (bad, original)]
    assert trials(stepped, condition="step") == stepped[1:]
    assert trials([bad], condition="time") == []
    assert left_out([bad]) == [bad]
    assert [r.run_id for r in trials(with_suspect([bad]), condition="time")] == ["zzz"]


def test_a_diverged_run_is_a_result_at_any_speed():
    (lost,) = [
        r
        for r in race()
        if r.reason == "DIVERGED" and r.condition == "time" and r.workload == "icbm_unet"
    ]
    assert not suspect(marked(lost))
    assert trials([marked(lost)], condition="time") == [marked(lost)]


def test_an_optimizer_without_a_credible_run_stays_in_the_table():
    records = [marked(r) if r.optimizer == "velo" else r for r in race()]
    (found,) = [s for s in standings(records) if (s.condition, s.split) == ("time", "validation")]
    assert found.times.loc["velo"].isna().all()
    assert found.scores["velo"] == 0


def test_the_report_names_them():
    records = disturbed(race())
    options = ReportOptions(bootstrap=Bootstrap(samples=20))
    results = results_of(records, options)
    names = {(r.workload, r.optimizer, r.seed) for r in results.left_out}
    assert names == {(r.workload, "adam", 1) for r in records if suspect(r)}
    said = " ".join(notes(results.records, results.standings))
    assert "seconds are suspect: adam on assays_gnn seed 1, adam on fashion" in said
    assert "--include-suspect" in said
    assert "seconds are suspect" in score_table_text(records, options)
    listed = listed_runs(records)
    for run in listed:
        if run.record is not None and suspect(run.record):
            assert not run.counted
    frame = run_frame(listed)
    assert set(frame.loc[frame["seconds_suspect"] == WHY, "optimizer"]) == {"adam"}
    table = run_table(listed, "", name="runs", title="x")
    told = [row for row in table.body if "seconds suspect" in row[5].text]
    assert len(told) == len(names)


def test_the_report_counts_them_when_asked():
    records = disturbed(race())
    options = ReportOptions(bootstrap=Bootstrap(samples=20), include_suspect=True)
    results = results_of(records, options)
    assert results.left_out == []
    assert "suspect" not in " ".join(notes(results.records, results.standings))
    assert "suspect" not in score_table_text(records, options)
    counted = {(r.workload, r.optimizer, r.seed) for r in trials(results.records, condition="time")}
    assert ("assays_gnn", "adam", 1) in counted


def test_algoperfs_rules_leave_them_out_too():
    rules = RULES["algoperf-v2"]
    tag = f"{schema.GIVEN_TARGET}validation"
    timed = [
        dataclasses.replace(r, tags={**r.tags, tag: "0.4"})
        for r in race()
        if (r.workload, r.condition) == ("assays_gnn", "time") and r.status == "FINISHED"
    ]
    every = leaderboard_of(timed, rules)
    bad = [marked(r) if r.optimizer == "velo" else r for r in timed]
    assert "velo" in every.times.index
    assert "velo" not in leaderboard_of(bad, rules).times.index
    asked = leaderboard_of(bad, rules, include_suspect=True)
    pd.testing.assert_frame_equal(asked.times, every.times)
    with pytest.raises(UserError, match="expected credible runs under time control, got none"):
        leaderboard_of([marked(r) for r in timed], rules)


def test_configurations_whose_finished_runs_are_all_suspect():
    def recorded(digest: str, **fields: str) -> RunRecord:
        return dataclasses.replace(race()[0], tags={schema.CONFIG_HASH: digest}, **fields)

    good, other, failed = recorded("a"), recorded("b"), recorded("c", status="FAILED")
    lost = recorded("d", reason="DIVERGED")
    assert suspect_digests([good, other, failed, lost]) == set()
    assert suspect_digests([marked(good), good, marked(other), marked(failed), marked(lost)]) == {
        "b"
    }
