"""Plug-ins that raise anything anywhere: recorded as FAILED with the reason, the others go on."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optuna
import pytest
import tiny_suite
from tiny import TinyWorkload

from timetrial.bench import race as races
from timetrial.bench.experiment import run
from timetrial.bench.resuming import run_directory
from timetrial.bench.suite import Suite, load_run
from timetrial.bench.tune.study import tune
from timetrial.bench.workshop import Workshop
from timetrial.framework import callbacks as cb
from timetrial.framework.config import Tracking
from timetrial.framework.entries import Horizon, OptimizerEntry, WorkloadEntry
from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.record import schema
from timetrial.tracking.record.journal import JournalContents, journals_in, read_journal
from timetrial.tracking.store.opening import Store, open_store
from timetrial.workloads import WORKLOADS

STEPS, EVERY = 20, 5


@dataclasses.dataclass(frozen=True)
class Rate:
    learning_rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Size:
    step_hint: int = STEPS
    eval_every_steps: int = EVERY


class Stop(BaseException):
    """Neither an Exception nor one of Python's."""


def out_of_memory() -> Exception:
    return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")


def raising(error: BaseException) -> Any:
    raise error


def optimizer(
    make: BaseException | None = None,
    init: BaseException | None = None,
    update: BaseException | None = None,
    running: BaseException | None = None,
    observed: BaseException | None = None,
) -> OptimizerEntry:
    """Gradient descent that raises in one place; ``running`` while an update is computed."""

    def build(settings: Rate, horizon: Horizon) -> optax.GradientTransformation:
        if make is not None:
            raise make
        inner = optax.sgd(settings.learning_rate)

        def begin(params: Any) -> Any:
            if init is not None:
                raise init
            return inner.init(params), jnp.zeros((), jnp.int32)

        def count(step: Any) -> Any:
            if running is not None and step == 7:
                raise running
            return step + 1

        def look(step: Any) -> None:
            if observed is not None and step == 7:
                raise observed

        def change(updates: Any, state: Any, params: Any = None) -> Any:
            if update is not None:
                raise update
            step = jax.pure_callback(count, jax.ShapeDtypeStruct((), jnp.int32), state[1])
            if observed is not None:
                jax.debug.callback(look, step)
            updates, below = inner.update(updates, state[0], params)
            return updates, (below, step)

        return optax.GradientTransformation(begin, change)

    return OptimizerEntry("raises", Rate, build)


OPTIMIZERS_THAT_RAISE: Mapping[str, tuple[OptimizerEntry, str]] = {
    "make_value": (optimizer(make=ValueError("no such rate")), "no such rate"),
    "make_exit": (optimizer(make=SystemExit(3)), "SystemExit(3) was raised"),
    "make_interrupt": (optimizer(make=KeyboardInterrupt()), "KeyboardInterrupt() was raised"),
    "init": (optimizer(init=TypeError("no such leaf")), "TypeError: no such leaf"),
    "init_exit": (optimizer(init=SystemExit("bye")), "SystemExit('bye') was raised"),
    "traced": (optimizer(update=ZeroDivisionError("by nought")), "ZeroDivisionError: by nought"),
    "traced_exit": (optimizer(update=SystemExit()), "SystemExit() was raised"),
    "traced_stop": (optimizer(update=Stop("stop")), "Stop('stop') was raised"),
    "running": (optimizer(running=KeyError("lost")), "lost"),
    "memory": (optimizer(update=out_of_memory()), "RESOURCE_EXHAUSTED"),
}


class Faulty(TinyWorkload):
    """The tiny workload, with one method that raises."""

    def __init__(self, settings: Size, place: str, error: BaseException) -> None:
        super().__init__(step_hint=settings.step_hint, eval_every_steps=settings.eval_every_steps)
        self._place, self._error = place, error

    def _at(self, place: str, due: bool = True) -> None:
        if place == self._place and due:
            raise self._error

    def init(self, key: jax.Array) -> Any:
        self._at("init")
        return super().init(key)

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array) -> Any:
        self._at("loss")
        return super().loss(params, model_state, batch, key)

    def eval_step(self, params: Any, model_state: Any, batch: Batch) -> Any:
        self._at("eval_step")
        return super().eval_step(params, model_state, batch)

    def finish(self, outputs: Sequence[Any]) -> dict[str, float]:
        self._at("finish")
        return super().finish(outputs)

    def train_batch(self, seed: int, step: int) -> Batch:
        self._at("batch", step == 13)
        return super().train_batch(seed, step)

    def eval_batches(self, split: Split) -> Sequence[Batch]:
        self._at("eval_batches", split == "validation")
        return super().eval_batches(split)


WORKLOADS_THAT_RAISE: Mapping[str, tuple[str, BaseException, str]] = {
    "w_make": ("make", OSError("no such file"), "OSError: no such file"),
    "w_init": ("init", RuntimeError("no key"), "RuntimeError: no key"),
    "w_loss": ("loss", out_of_memory(), "RESOURCE_EXHAUSTED"),
    "w_batch": ("batch", IndexError("no such row"), "IndexError: no such row"),
    "w_batch_exit": ("batch", SystemExit(5), "SystemExit(5) was raised"),
    "w_eval_batches": ("eval_batches", MemoryError("full"), "MemoryError: full"),
    "w_eval_step": ("eval_step", AssertionError("no"), "AssertionError: no"),
    "w_finish": ("finish", ArithmeticError("nought"), "ArithmeticError: nought"),
}


def workload(place: str, error: BaseException) -> WorkloadEntry:
    def make(settings: Size) -> TinyWorkload:
        return raising(error) if place == "make" else Faulty(settings, place, error)

    return WorkloadEntry("raises", Size, make)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_suite.register(monkeypatch, tmp_path, steps=STEPS, eval_every_steps=EVERY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, (entry, _) in OPTIMIZERS_THAT_RAISE.items():
        monkeypatch.setitem(OPTIMIZERS, name, entry)
    preset = (tmp_path / "presets" / "p" / "tiny.yaml").read_text()
    for name, (place, error, _) in WORKLOADS_THAT_RAISE.items():
        monkeypatch.setitem(WORKLOADS, name, workload(place, error))
        path = tmp_path / "presets" / "p" / f"{name}.yaml"
        path.write_text(preset.replace("name: tiny", f"name: {name}"))


@pytest.fixture
def tracking(tmp_path: Path) -> Tracking:
    return Tracking(experiment="e", root=str(tmp_path / "runs"), checkpoint_minutes=1e-6)


def suite(workloads: Sequence[str], optimizers: Sequence[str]) -> Suite:
    return Suite("s", "summary", "p", tuple(workloads), tuple(optimizers), (0,), ("step",))


def recorded(tracking: Tracking) -> dict[tuple[str, str], JournalContents]:
    """Journals by workload and optimizer; one for each."""
    contents = [read_journal(path) for path in journals_in(Path(tracking.root))]
    found = {(c.tags[schema.WORKLOAD], c.tags[schema.OPTIMIZER]): c for c in contents}
    assert len(found) == len(contents)
    return found


def store(tracking: Tracking) -> Store:
    return open_store(root=Path(tracking.root), create=False)


def in_mlflow(tracking: Tracking) -> dict[str, Any]:
    """Runs in MLflow by identity of their journals; none is running."""
    opened = store(tracking)
    runs = opened.client.search_runs([opened.experiment_id(tracking.experiment, create=False)])
    assert not [run for run in runs if run.info.status == "RUNNING"]
    named = {run.data.tags.get(schema.JOURNAL_ID): run for run in runs}
    named.pop(None, None)  # the run of the report
    return named


def check_failed(tracking: Tracking, contents: JournalContents, reason: str) -> None:
    """FAILED, with the reason as a tag and the traceback as an artifact, journal and MLflow."""
    assert contents.end is not None
    assert contents.end.status == "FAILED"
    assert reason in contents.end.tags[schema.ERROR]
    text = contents.end.files[schema.TRACEBACK_ARTIFACT]
    assert text.startswith("Traceback")
    assert reason in text
    run = in_mlflow(tracking)[contents.journal_id]
    assert run.info.status == "FAILED"
    assert run.data.tags[schema.ERROR] == contents.end.tags[schema.ERROR]
    folder = Path(tracking.root) / "artifacts" / run.info.run_id / "artifacts"
    assert (folder / schema.TRACEBACK_ARTIFACT).read_text() == text


def test_a_race_goes_on_after_every_optimizer_that_raises(
    tracking: Tracking, capsys: pytest.CaptureFixture[str]
):
    names = [*OPTIMIZERS_THAT_RAISE, "adam"]
    assert races.race(suite(["tiny"], names), tracking) == 1
    err = capsys.readouterr().err
    found = recorded(tracking)
    assert found["tiny", "adam"].end.status == "FINISHED"
    for name, (_, reason) in OPTIMIZERS_THAT_RAISE.items():
        check_failed(tracking, found["tiny", name], reason)
        (line,) = [x for x in err.splitlines() if x.startswith(f"timetrial: FAILED tiny {name} ")]
        assert reason in line


def test_a_race_goes_on_after_every_workload_that_raises(
    tracking: Tracking, capsys: pytest.CaptureFixture[str]
):
    names = [*WORKLOADS_THAT_RAISE, "tiny"]
    assert races.race(suite(names, ["adam"]), tracking) == 1
    err = capsys.readouterr().err
    found = recorded(tracking)
    assert found["tiny", "adam"].end.status == "FINISHED"
    for name, (_, _, reason) in WORKLOADS_THAT_RAISE.items():
        check_failed(tracking, found[name, "adam"], reason)
        assert f"timetrial: FAILED {name} adam seed 0: " in err


@pytest.mark.parametrize("place", ["on_fit_start", "on_step_end", "on_eval_end", "on_fit_end"])
def test_a_callback_that_raises_fails_its_run(place: str, tracking: Tracking, tmp_path: Path):
    class Raises(cb.Callback):
        pass

    def method(self: Any, *args: Any) -> Any:
        raise LookupError("no such thing")

    setattr(Raises, place, method)
    config = load_run(["workload=tiny", "optimizer=adam", "budget.steps=20"])
    config = dataclasses.replace(config, tracking=tracking)
    opened = open_store(root=Path(tracking.root))
    with pytest.raises(LookupError):
        run(config, opened, Workshop(), callbacks=[Raises()], directory=run_directory(config))
    (contents,) = recorded(tracking).values()
    check_failed(tracking, contents, "LookupError: no such thing")


def test_a_study_goes_on_after_trials_that_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def build(settings: Rate, horizon: Horizon) -> optax.GradientTransformation:
        if settings.learning_rate > 0.05:
            raise SystemExit("too fast")
        return optax.sgd(settings.learning_rate)

    monkeypatch.setitem(OPTIMIZERS, "picky", OptimizerEntry("picky", Rate, build))
    points = tmp_path / "points.json"
    points.write_text('[{"learning_rate": 0.1}, {"learning_rate": 0.01}]')
    words = ["workload=tiny", "optimizer=picky", "budget.steps=20", "study.name=study"]
    words += [f"study.points={points}"]
    assert tune([*words, f"tracking.root={tmp_path / 'runs'}"]) == 1
    assert "SystemExit('too fast') was raised" in capsys.readouterr().err
    found = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path}/runs/studies.db")
    assert [trial.state.name for trial in found.trials] == ["FAIL", "COMPLETE"]
    tracked = Tracking(experiment=schema.STUDIES, root=str(tmp_path / "runs"))
    ends = {read_journal(p).end.status for p in journals_in(Path(tracked.root))}
    assert ends == {"FAILED", "FINISHED"}


def doubled(root: Path) -> list[tuple[str, int]]:
    """Keys and steps with the same point twice in MLflow."""
    query = "select key, step from metrics group by run_uuid, key, step, value having count(*) > 1"
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        return list(database.execute(query))


def flags(faults: list[BaseException]) -> Callable[[Size], TinyWorkload]:
    def make(settings: Size) -> TinyWorkload:
        if faults:
            return Faulty(settings, "batch", faults.pop())
        return TinyWorkload(
            step_hint=settings.step_hint, eval_every_steps=settings.eval_every_steps
        )

    return make


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workload that raises in its first run."""
    entry = WorkloadEntry("raises once", Size, flags([OSError("the disk is gone")]))
    monkeypatch.setitem(WORKLOADS, "tiny", entry)
    entry.metric  # noqa: B018  # the entry looks at an instance once
    monkeypatch.setitem(
        WORKLOADS, "tiny", dataclasses.replace(entry, make=flags([OSError("the disk is gone")]))
    )


def test_a_failed_run_goes_on_from_its_checkpoint_as_one_run(
    tracking: Tracking, once: None, tmp_path: Path
):
    one = suite(["tiny"], ["adam"])
    assert races.race(one, tracking) == 1
    (failed,) = recorded(tracking).values()
    check_failed(tracking, failed, "OSError: the disk is gone")
    before = in_mlflow(tracking)[failed.journal_id]
    assert races.race(one, tracking) == 0
    (contents,) = recorded(tracking).values()
    assert contents.journal_id == failed.journal_id
    assert contents.end.status == "FINISHED"
    assert schema.ERROR not in contents.tags
    assert int(contents.tags[schema.RESUMED_AT]) >= EVERY
    run = in_mlflow(tracking)[contents.journal_id]
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    assert schema.ERROR not in run.data.tags
    assert doubled(Path(tracking.root)) == []

    undisturbed = dataclasses.replace(tracking, root=str(tmp_path / "undisturbed"))
    assert races.race(one, undisturbed) == 0
    (expected,) = recorded(undisturbed).values()
    assert [r.step for r in contents.rows] == [r.step for r in expected.rows]
    for got, want in zip(contents.rows, expected.rows, strict=True):
        same = {k: v for k, v in want.metrics.items() if not k.startswith("system/")}
        assert {k: v for k, v in got.metrics.items() if not k.startswith("system/")} == same
