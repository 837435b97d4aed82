"""What a race costs: expected seconds of runs, chains, schedules, money."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny_suite
from command_line import command_line
from recorded import record

from timetrial.bench import lengths
from timetrial.bench.costs import Crew, Planned, cost_lines, hours, longest_chain, schedule
from timetrial.bench.lengths import CALIBRATED, ESTIMATED, LIMITED, RECORDED, UNKNOWN, Expected
from timetrial.bench.planning import planned_lengths
from timetrial.bench.suite import Suite, load_run, plan
from timetrial.framework.budget import Budget
from timetrial.framework.calibration import Calibration, Reference, save_calibration
from timetrial.framework.config import Tracking, digest, workload_texts
from timetrial.framework.types import Condition
from timetrial.tracking.read.lengths import Length, read_lengths
from timetrial.tracking.store.opening import open_store


def runs(*parts: tuple[float, tuple[int, ...]]) -> list[Planned]:
    return [Planned(Expected(seconds, ESTIMATED), after) for seconds, after in parts]


# A reference run of 10 s, then two first trials, each with one run behind it.
TREE = runs((10.0, ()), (20.0, (0,)), (5.0, (0, 1)), (40.0, (0,)), (5.0, (0,)))


def test_the_longest_chain_follows_what_runs_wait_for():
    assert longest_chain(TREE) == (50.0, 2)
    assert longest_chain(TREE[:3]) == (35.0, 3)
    assert longest_chain(runs((3.0, ()), (4.0, ()))) == (4.0, 1)
    assert longest_chain([]) == (0.0, 0)


@pytest.mark.parametrize(
    ("workers", "wall", "counts"),
    [
        (1, 80.0, (5,)),
        (2, 50.0, (4, 1)),  # worker 0: 10, 20, then 5 and 5; worker 1: 40 from 10 on
        (3, 50.0, (3, 1, 1)),
        (100, 50.0, (3, 1, 1, *[0] * 97)),
    ],
)
def test_who_is_idle_takes_the_first_run_that_may_begin(workers: int, wall: float, counts):
    found = schedule(TREE, workers)
    assert found.wall_seconds == wall
    assert sum(found.counts) == 5
    assert (sorted(found.counts), found.counts) == (sorted(counts), counts)


def test_a_schedule_is_never_shorter_than_its_chain_or_its_share():
    for workers in range(1, 8):
        wall = schedule(TREE, workers).wall_seconds
        assert max(longest_chain(TREE)[0], sum(r.seconds for r in TREE) / workers) <= wall <= 80.0


def test_hours_are_those_of_gpus_or_of_machines():
    ten = runs(*[(1800.0, ())] * 10)
    assert hours(ten, Crew(workers=1)) == 5.0
    assert hours(ten, Crew(workers=5)) == 1.0  # five workers share one machine
    assert hours(ten, Crew("slurm", 5, one_machine=False)) == 5.0
    assert hours(ten, Crew("ray", 5, gpus=2, one_machine=False)) == 10.0
    assert hours(ten, Crew(workers=5, gpus=1)) == 5.0  # each has its own GPU


def test_costs_in_words():
    ten = runs(*[(1800.0, ())] * 10)
    ten[0] = dataclasses.replace(ten[0], is_recorded=True)
    text = cost_lines(ten, Crew("slurm", 4, 1, False), machine="a GPU", price=2.5)
    assert text == [
        "time of a run: 10 from the suite's estimate (a GPU)",
        "cost: 5 GPU-hours; longest chain of waiting runs: 30 min (1 run)",
        "launcher slurm, 4 workers, 1 GPU each: about 1 h 30 min; 2 to 3 runs per worker",
        "price: 12.50, at 2.5 per GPU-hour",
        "recorded already: 1 of 10 runs; the others take 4 h 30 min",
    ]
    (unknown, *_) = cost_lines([Planned(Expected(0.0, UNKNOWN))], Crew())
    assert unknown == (
        "time of a run: 1 unknown and counted as 0 s, until one such run is recorded"
    )


RUN = load_run(["workload=flights_dlrm", "optimizer=adam", "budget.steps=100"])
SETTINGS = workload_texts(RUN.workload)


def length(seconds: float, budget: float = 100.0, **changes) -> Length:
    found = Length("e", "", "flights_dlrm", "adam", Condition.STEP, budget, seconds, SETTINGS)
    return dataclasses.replace(found, **changes)


def timed(**changes):
    return dataclasses.replace(RUN, budget=Budget(**changes))


def test_recorded_runs_of_the_same_kind_come_first():
    others = [
        length(999.0, optimizer="nadam"),
        length(999.0, workload="icbm_unet"),
        length(999.0, condition=Condition.TIME),
        length(999.0, config={**SETTINGS, "workload.batch_size": "7"}),
        length(999.0, config={**SETTINGS, "budget.also_seconds": "3.0"}),
    ]
    found = lengths.expected(RUN, [*others, length(4.0), length(9.0), length(5.0)], None, 77.0)
    assert found == Expected(5.0, RECORDED)
    assert lengths.expected(RUN, others, None, 77.0) == Expected(77.0, ESTIMATED)
    longer = {**SETTINGS, "workload.step_hint": "9", "workload.eval_every_steps": "1"}
    assert lengths.expected(RUN, [length(6.0, config=longer)]).seconds == 6.0
    assert lengths.expected(RUN, [length(6.0, config={})]).seconds == 6.0


def test_other_budgets_are_scaled_unless_one_is_equal():
    assert lengths.expected(RUN, [length(4.0, 50.0), length(30.0, 300.0)]).seconds == 9.0
    assert lengths.expected(RUN, [length(4.0, 50.0), length(30.0)]).seconds == 30.0
    of_time = [length(8.0, 4.0, condition=Condition.TIME)]
    assert lengths.expected(timed(seconds=6.0), of_time).seconds == 12.0
    found = lengths.expected(timed(seconds=1.0), of_time, limit_is_known=False)
    assert found == Expected(8.0, RECORDED)


def calibration(**changes) -> Calibration:
    reference = Reference("here", 1.0, 1.0)
    parts = ("flights_dlrm", SETTINGS, "heavy_ball", 9, 1, (0.5,), 0.5, 0.0, reference, 20.0)
    return dataclasses.replace(Calibration(*parts, "2026-11-30", {}, {}), **changes)


def test_a_calibration_comes_next_then_the_suite_then_the_budget():
    assert lengths.expected(RUN, [], calibration(), 77.0) == Expected(60.0, CALIBRATED)
    both = timed(steps=100, also_seconds=80.0)
    assert lengths.expected(both, [], calibration()).seconds == pytest.approx(96.0)
    assert lengths.expected(timed(seconds=20.0), [], calibration()) == Expected(24.0, CALIBRATED)
    assert lengths.expected(timed(seconds=20.0), [], None, 77.0) == Expected(77.0, ESTIMATED)
    assert lengths.expected(timed(seconds=20.0), []) == Expected(24.0, LIMITED)
    assert lengths.expected(RUN, []) == Expected(0.0, UNKNOWN)
    unset = lengths.expected(timed(seconds=1.0), [], limit_is_known=False)
    assert unset == Expected(0.0, UNKNOWN)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Suite:
    tiny_suite.register(monkeypatch, tmp_path, steps=30, eval_every_steps=5)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    conditions = ("step", "time")
    names = ("adam", "heavy_ball", "velo", "velo_short")
    return Suite("s", "summary", "p", ("tiny",), names, (0, 1), conditions, seconds_per_run=3.0)


def test_a_plan_knows_what_waits_for_the_reference_run_and_the_first_trial(
    tiny: Suite, tmp_path: Path
):
    found = planned_lengths(tiny, Tracking(root=str(tmp_path / "runs")))
    # heavy_ball seed 0 is the reference; adam and heavy_ball: one run for both budgets; VeLO: two.
    assert found[0].after == ()
    assert all(0 in run.after for run in found[1:])
    assert len(found) == 1 + 4 + 8 - 1
    assert longest_chain(found) == (9.0, 3)
    assert {run.expected for run in found} == {Expected(3.0, ESTIMATED)}
    assert not (tmp_path / "runs").exists()


def test_a_plan_reads_the_times_of_earlier_runs(tiny: Suite, tmp_path: Path):
    root = tmp_path / "runs"
    suite = dataclasses.replace(tiny, conditions=("step",), optimizers=("adam", "nadam"))
    tracking = Tracking(root=str(root), experiment="here")
    store = open_store(root=root)
    adam = plan(suite, tracking, "tiny")[0]
    tags = {"workload": "tiny", "optimizer": "adam", "condition": "step", "budget": "30"}
    for seconds, experiment in ((2.0, "here"), (6.0, "elsewhere"), (5.0, "elsewhere")):
        more = {"config_hash": digest(adam)} if experiment == "here" else {}
        summary = {"time/wall_seconds": seconds}
        record(store, experiment=experiment, summary=summary, **tags, **more)
    record(store, status="FAILED", summary={"time/wall_seconds": 500.0}, **tags)
    record(store, summary={"time/wall_seconds": 500.0}, resumed_at="3", **tags)
    record(store, summary={}, **tags)
    expected = [(5.0, True), (5.0, False), (3.0, False), (3.0, False)]
    found = planned_lengths(suite, tracking)
    assert [(run.seconds, run.is_recorded) for run in found] == expected
    for journal in store.journals.glob("*.jsonl"):  # MLflow knows them, too
        journal.unlink()
    assert [(run.seconds, run.is_recorded) for run in planned_lengths(suite, tracking)] == expected


def test_damaged_journals_tell_no_time(tmp_path: Path):
    store = open_store(root=tmp_path)
    kept = record(store, summary={"time/wall_seconds": 2.0})
    other = record(store, summary={"time/wall_seconds": 7.0})
    assert sorted(one.wall_seconds for one in read_lengths(store)) == [2.0, 7.0]
    text = kept.path.read_bytes()
    kept.path.write_bytes(text.replace(b'"batch/loss": 1.6', b'"batch/loss": 9.6'))
    (tmp_path / "journals" / "junk.jsonl").write_bytes(b"{}\n")
    assert other.path.exists()
    assert 7.0 in [one.wall_seconds for one in read_lengths(store)]


def test_calibrations_of_a_suite_give_the_time_of_its_runs(tiny: Suite, tmp_path: Path):
    (run, *_) = plan(tiny, Tracking(), "tiny")
    own = calibration(workload="tiny", workload_settings=workload_texts(run.workload))
    save_calibration(own, tmp_path / "c" / "tiny.yaml")
    suite = dataclasses.replace(tiny, calibrations=str(tmp_path / "c"), optimizers=("adam",))
    found = planned_lengths(suite, Tracking(root=str(tmp_path / "runs")))
    assert [run.expected for run in found] == [Expected(24.0, CALIBRATED)] * 2
    assert longest_chain(found) == (24.0, 1)


def test_the_commands_show_costs_and_write_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    timetrial = command_line(capsys)
    done = timetrial("bench", "suite=quick", "--plan", "--price", "36", "launcher.workers=2")
    assert done.code == 0, done.err
    assert "launcher local, 2 workers: about 4 min; 42 runs per worker" in done.out
    assert "cost: 0.0583 machine-hours; longest chain of waiting runs: 5 s (1 run)" in done.out
    assert "price: 2.10, at 36 per machine-hour" in done.out
    words = ["workload=flights_dlrm", "optimizer=adam", "budget.seconds=100", "study.trials=6"]
    done = timetrial("tune", *words, "--plan", "launcher.workers=3")
    assert done.code == 0, done.err
    assert "6 trials of adam on flights_dlrm" in done.out
    assert "time of a run: 6 from time budgets x 1.2" in done.out
    assert "launcher local, 3 workers: about 4 min; 2 runs per worker" in done.out
    for command in (["bench"], ["tune", *words]):
        refused = timetrial(*command, "--price", "3")
        assert refused.code == 2
        assert "--price: expected it with --plan" in refused.err
    assert not any(tmp_path.iterdir())
