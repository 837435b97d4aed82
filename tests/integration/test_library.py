"""The public API on a workload of the user's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import optax
import pytest
from tiny import TinyWorkload

from timetrial import (
    Budget,
    Callback,
    Horizon,
    OptimizerEntry,
    StopReason,
    UserError,
    load_runs,
    score,
    train,
)
from timetrial.framework.callbacks import StepInfo


@dataclasses.dataclass(frozen=True)
class LionSettings:
    learning_rate: float = 3e-2


def make_lion(settings: LionSettings, horizon: Horizon) -> optax.GradientTransformation:
    return optax.lion(settings.learning_rate)


LION = OptimizerEntry("Lion", LionSettings, make_lion)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one run per kind of optimizer."""
    root = tmp_path_factory.mktemp("runs")
    own = {"experiment": "own", "root": root}
    train(TinyWorkload(), optax.sgd(0.1), Budget(steps=20), name="my_sgd", **own)
    train(TinyWorkload(), LION, name="mine", settings={"learning_rate": 0.1}, seed=3, **own)
    train(TinyWorkload(), "nesterov", Budget(steps=20), settings={"learning_rate": 0.1}, **own)
    return root


def test_each_run_is_recorded_with_what_is_known_of_it(root: Path):
    sgd, lion, nesterov = load_runs("own", root=root)
    assert [run.optimizer for run in (sgd, lion, nesterov)] == ["my_sgd", "mine", "nesterov"]
    assert {run.workload for run in (sgd, lion, nesterov)} == {"tiny"}
    assert {run.status for run in (sgd, lion, nesterov)} == {"FINISHED"}
    assert {run.step for run in (sgd, lion, nesterov)} == {20}  # the step hint is the default
    cls = TinyWorkload
    assert sgd.config["workload.code"] == f"{cls.__module__}.{cls.__qualname__}"
    assert sgd.config["optimizer.code"].startswith("optax.")
    assert lion.config["optimizer.learning_rate"] == "0.1"
    assert lion.seed == 3
    assert nesterov.config["optimizer.learning_rate"] == "0.1"


def test_the_runs_can_be_scored(root: Path):
    found = score(load_runs("own", root=root))
    assert list(found.columns) == ["step"]
    assert set(found.index) == {"my_sgd", "mine", "nesterov"}
    assert found["step"].max() == 1.0


def test_the_result_has_the_trained_state(tmp_path: Path):
    class StopAtFive(Callback):
        def on_step_end(self, info: StepInfo) -> StopReason | None:
            return StopReason.TARGET if info.step >= 5 else None

    result = train(
        TinyWorkload(), optax.sgd(0.1), name="mine", root=tmp_path, callbacks=[StopAtFive()]
    )
    assert result.reason is StopReason.TARGET
    assert result.state.params["w"].shape == (3,)


REFUSED = {
    "workload": ({"workload": "flight_dlrm"}, "did you mean 'flights_dlrm'"),
    "optimizer": ({"optimizer": "adan"}, "did you mean 'adam'"),
    "setting": ({"optimizer": "adam", "settings": {"lr": 1}}, "unknown config key 'settings.lr'"),
    "type": ({"optimizer": LION, "name": "mine", "settings": {"learning_rate": "x"}}, "a number"),
    "no name": ({"optimizer": optax.sgd(0.1)}, "name: expected an unused name"),
    "a taken name": (
        {"optimizer": optax.sgd(0.1), "name": "adam"},
        "name: expected an unused name",
    ),
    "settings": (
        {"optimizer": optax.sgd(0.1), "name": "sgd", "settings": {"a": 1}},
        "settings: expected none",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_run_is_refused_and_leaves_no_file(case: str, tmp_path: Path):
    changed, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        train(**{"workload": TinyWorkload(), "optimizer": "adam", "root": tmp_path} | changed)
    assert list(tmp_path.iterdir()) == []
