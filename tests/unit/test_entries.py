"""Facts in an optimizer's entry: recorded, drawn, used in evaluation, and listed."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
from tiny import TinyWorkload

from timetrial.bench.docstrings import attribute_texts
from timetrial.bench.listing import describe, listing
from timetrial.bench.naming import entry_tags
from timetrial.bench.schedule import learning_rates
from timetrial.bench.suite import load_run
from timetrial.framework import config as configuration
from timetrial.framework.budget import Budget
from timetrial.framework.config import RunConfig
from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.errors import UserError
from timetrial.framework.ranges import check, ranges_of
from timetrial.framework.records import RunRecord
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.types import Condition, Direction, Status
from timetrial.optimizers import OPTIMIZERS, baselines
from timetrial.optimizers.schedules import sampled
from timetrial.tracking.record import schema
from timetrial.workloads import WORKLOADS

HORIZON = Horizon(200, 200)


def config(optimizer: str, *words: str) -> RunConfig:
    return load_run(["preset=quick/flights_dlrm", f"optimizer={optimizer}", *words])


def record(config: RunConfig, step: int, **tags: str) -> RunRecord:
    return RunRecord(
        *("id", config.workload.name, config.label or config.optimizer.name, 0),
        *(Condition.STEP, 200.0, "loss", Direction.MINIMIZE, Status.FINISHED, "BUDGET"),
        *(step, 1.0, ()),
        config=configuration.flat(config),
        tags=tags,
    )


def test_built_in_optimizers_record_what_a_report_needs_to_draw_them():
    tags = {
        name: entry_tags(OPTIMIZERS[name], config(name), HORIZON) for name in OPTIMIZERS.built_in
    }
    assert all(tags[name][schema.OPTIMIZER_NAME] == name for name in tags)
    learned = {name for name in tags if tags[name][schema.LEARNED] == "true"}
    celo2 = {"celo2", "celo2_base"}
    assert learned == {"velo", "velo_short", "velo_feed", "celo", "celo_adam", *celo2}
    chosen_inside = (learned - celo2) | {"momo_adam", "prodigy"}
    assert {name for name in tags if schema.LEARNING_RATES in tags[name]} == set(
        tags
    ) - chosen_inside
    colors = [tags[name][schema.COLOR] for name in tags if schema.COLOR in tags[name]]
    assert len(set(colors)) == len(colors) == 7
    assert all(len(text) < 5000 for found in tags.values() for text in found.values())
    assert json.loads(tags["heavy_ball"][schema.LEARNING_RATES]) == [[0, 0.05], [200, 0.05]]


def test_a_run_with_a_label_of_its_own_has_no_colour_of_its_optimizer():
    tags = entry_tags(OPTIMIZERS["adam"], config("adam", "label=hpo"), HORIZON)
    assert schema.COLOR not in tags
    assert tags[schema.OPTIMIZER_NAME] == "adam"


def test_recorded_learning_rates_are_at_most_101_points_of_5_digits_over_the_horizon():
    long = Horizon(186_666, None)
    points = json.loads(entry_tags(OPTIMIZERS["adam"], config("adam"), long)[schema.LEARNING_RATES])
    assert len(points) == 101
    assert [points[0][0], points[-1][0]] == [0, 186_666]
    schedule = baselines.AdamSettings().learning_rates(long)
    for step, rate in points:
        assert rate == pytest.approx(float(schedule(step)), rel=5.1e-5, abs=1e-12)
        assert len(f"{rate:e}".rstrip("0").split("e")[0].rstrip("0")) <= 6
    assert len(sampled(schedule, 7, 101)) == 8


@pytest.mark.parametrize(
    "schedule",
    [
        lambda step: 0.1 if step < 4 else 0.01,  # no arrays
        optax.constant_schedule(0.1),  # one number for any array
        lambda step: np.inf if step == 0 else 0.1,  # not finite at first
    ],
)
def test_schedules_for_single_steps_are_sampled_one_by_one(schedule):
    points = sampled(schedule, 8, 9)
    expected = [(step, float(schedule(step))) for step in range(9)]
    assert points == [point for point in expected if np.isfinite(point[1])]


def test_a_report_draws_what_was_recorded_of_an_optimizer_it_does_not_know():
    known = config("adam")
    tag = json.dumps([[0, 0.5], [10, 0.25], [20, 0.125]])
    alien = dataclasses.replace(record(known, 15, learning_rates=tag), optimizer="alien")
    short = dataclasses.replace(record(known, 5, learning_rates="[[0, 9.0]]"), optimizer="alien")
    table = learning_rates([], [short, alien])
    assert table.to_numpy().tolist() == [
        ["flights_dlrm", "alien", 0, 0.5],
        ["flights_dlrm", "alien", 10, 0.25],
    ]
    damaged = dataclasses.replace(alien, tags={schema.LEARNING_RATES: "[[0,"})
    assert learning_rates([], [damaged]).empty


def test_a_recorded_schedule_counts_more_than_the_entrys():
    planned = config("adam")
    table = learning_rates([planned], [record(planned, 200, learning_rates="[[0,3.0],[200,4.0]]")])
    assert table["learning_rate"].tolist() == [3.0, 4.0]


@pytest.mark.parametrize("name", ["adam", "nesterov"])
def test_older_records_are_drawn_from_their_configuration(name: str):
    planned = config(name, "optimizer.learning_rate=0.123")
    old = record(planned, 150)
    from_record = learning_rates([], [old])
    assert from_record.equals(learning_rates([planned], [old]))
    assert len(from_record) == 151
    assert from_record["learning_rate"].max() == pytest.approx(0.123, rel=0.02)
    unknown = dataclasses.replace(old, config=old.config | {"optimizer": "gone"})
    assert learning_rates([], [unknown]).empty


def program(entry: OptimizerEntry) -> Program:
    return Program(TinyWorkload(), entry.build(entry.settings(), HORIZON))


def test_evaluation_takes_the_parameters_that_the_entry_gives():
    def make(settings: object, horizon: Horizon) -> optax.GradientTransformation:
        return optax.chain(optax.sgd(0.05), optax.ema(0.9, debias=False))

    def start(opt_state, params):  # the average of the updates, in the place of the parameters
        return jax.tree.map(lambda ema, p: 0 * p + ema, opt_state[1].ema, params)

    entry = OptimizerEntry("averages", baselines.AdamSettings, make, eval_params=start)
    made = program(entry)
    result = Trainer(made, Budget(steps=20), []).fit(made.init(0))
    plain = program(dataclasses.replace(entry, eval_params=OPTIMIZERS["adam"].eval_params))
    trained = Trainer(plain, Budget(steps=20), []).fit(plain.init(0))
    for one, two in zip(
        jax.tree.leaves(result.state.params), jax.tree.leaves(trained.state.params), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    average = start(result.state.opt_state, result.state.params)
    moved = dataclasses.replace(trained.state, params=average)
    assert result.evaluations[-1].metrics == plain.evaluate(moved)
    assert result.evaluations[-1].metrics != trained.evaluations[-1].metrics


def test_the_default_hands_the_parameters_themselves_on():
    state = program(OPTIMIZERS["adam"]).init(0)
    assert OPTIMIZERS["adam"].eval_params(state.opt_state, state.params) is state.params


class Parent:
    """Parent.

    Attributes:
        a, b: two, one and
            the same: with a colon.

            A paragraph.
        c (int): typed.

    Raises:
        ValueError: never.
    """


class Child(Parent):
    """Child.

    Attributes:
      c: mine.
    """


class Scientific:
    """Scientific.

    Parameters
    ----------
    rate : float, default 0.1
        How far,
        at most.
    steps
        How often.

    Notes
    -----
    rate : nothing
        Not this.
    """


@dataclasses.dataclass
class Bare:
    rate: float = 0.1


def test_descriptions_of_attributes_are_read_from_docstrings_of_several_styles():
    both = "two, one and the same: with a colon. A paragraph."
    assert attribute_texts(Parent) == {"a": both, "b": both, "c": "typed."}
    assert attribute_texts(Child) == {"a": both, "b": both, "c": "mine."}
    assert attribute_texts(Scientific) == {"rate": "How far, at most.", "steps": "How often."}
    assert attribute_texts(Bare) == {}


def test_ranges_are_those_that_settings_check():
    assert ranges_of(baselines.MomentumSettings)["decay_fraction"] == "(0, 1]"

    @dataclasses.dataclass
    class Required:
        rate: float

        def __post_init__(self) -> None:
            check(self, rate="> 0")

    assert ranges_of(Required) == {}
    assert ranges_of(Bare) == {}


def test_the_list_describes_every_setting_of_everything():
    for registry in (OPTIMIZERS, WORKLOADS):
        for name, entry in registry.built_in.items():
            lines = describe(name).splitlines()
            assert lines[0].startswith(f"{registry.what} {name} (built in): {entry.summary}")
            for field in dataclasses.fields(entry.settings):
                (at,) = [i for i, line in enumerate(lines) if line.startswith(f"  {field.name} ")
                         and "; default " in line]  # fmt: skip
                assert lines[at + 1].startswith("      "), f"{name}.{field.name} has no meaning"


def test_types_ranges_and_defaults_are_shown_as_they_are_typed():
    adam = describe("adam")
    assert "  learning_rate    a number >= 0; default 0.005\n" in adam
    assert "  b1               a number in [0, 1); default 0.9\n" in adam
    assert "  one_minus_b1              0.02 to 0.5, log" in adam
    assert "learned  no" in adam
    fashion = describe("fashion_mnist_resnet")
    assert "a list of whole numbers; default [1, 1, 1]" in fashion
    assert "a number > 0 or null; default null" in fashion
    assert "metric  accuracy, higher is better" in fashion
    assert 'weights_sha256      text; default ""' in describe("velo")
    assert "learned  yes" in describe("velo_feed")


def test_suites_and_presets_are_shown_whole():
    assert "conditions: [step, time]" in describe("mini")
    assert "step_hint: 1500" in describe("quick/assays_gnn")
    with pytest.raises(UserError, match="unknown name 'nadmw'; did you mean 'nadamw'"):
        describe("nadmw")
    with pytest.raises(UserError, match="optimizer json:nothing cannot be used: AttributeError"):
        describe("json:nothing")


def test_the_list_says_metric_and_direction_of_each_workload():
    assert "(mean_average_precision, higher is better)" in listing()
    assert "DLRM on 200,000 flights: late or not? (loss, lower is better)" in listing()
