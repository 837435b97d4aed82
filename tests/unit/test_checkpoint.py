"""Checkpoints: a resumed run is bitwise the uninterrupted one, and damaged files raise errors."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recorded import identity
from tiny import TinyWorkload

from timetrial.framework import callbacks as cb
from timetrial.framework import packing
from timetrial.framework.budget import Budget, StopReason
from timetrial.framework.checkpoint import Checkpoints, Loaded, Saved
from timetrial.framework.clock import Clock
from timetrial.framework.entries import Horizon
from timetrial.framework.errors import Interrupted, UserError
from timetrial.framework.records import Row, RunResult
from timetrial.framework.saving import (
    Checkpoint,
    check_maker,
    ending_of,
    maker,
    restore,
    states_of,
)
from timetrial.framework.state import TrainState
from timetrial.framework.step import Program
from timetrial.framework.trainer import Earlier, Trainer
from timetrial.framework.types import Direction
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.record.journal import read_journal
from timetrial.tracking.record.tracker import resume_run, start_run


class Killed(BaseException):
    """The process is gone."""


@dataclasses.dataclass
class KillAt(cb.Callback):
    step: int

    def on_step_end(self, info: cb.StepInfo) -> None:
        if info.step == self.step:
            raise Killed


def part(
    path: Path,
    name: str,
    program: Program,
    *extra: cb.Callback,
    budget: Budget | None = None,
    minutes: float = 10.0,
    signalled: Callable[[], int] = lambda: 0,
) -> tuple[RunResult, list[Row]]:
    """One part of a run, from the checkpoint where there is one; its result and journal."""
    clock = Clock()
    checkpoints = Checkpoints(path, name)
    loaded, earlier = checkpoints.latest(), Earlier()
    state = program.init(3)
    if loaded:
        saved = loaded.saved
        clock.resume(saved.seconds)
        tracker = resume_run(path.parent / saved.journal, saved.offset, {})
        earlier = Earlier(tracker.earlier, ending_of(saved), saved.stalled_updates)
        state = loaded.state(state)
    else:
        tracker = start_run(path.parent, identity())
    callbacks = [
        cb.StopIfDiverged(),
        *extra,
        cb.FeedRemainingFraction(),
        cb.Track(tracker),
    ]
    save = Checkpoint(
        *(checkpoints, clock, tracker, maker(program.devices)),
        minutes=minutes,
        notes={"note": "kept"},
        callbacks=callbacks,
        share=math.inf,  # at every evaluation
    )
    trainer = Trainer(
        *(program, budget or Budget(steps=23), [*callbacks, save], 3, clock, earlier),
        signalled=signalled,
    )
    result = trainer.fit(state)
    return result, list(read_journal(tracker.path).rows)


def saved_step(path: Path, name: str) -> int:
    loaded = Checkpoints(path, name).latest()
    assert loaded is not None
    return loaded.saved.step


def same(one: TrainState, other: TrainState) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def make_program(name: str) -> Program:
    entry = OPTIMIZERS[name]
    return Program(TinyWorkload(), entry.make(entry.settings(), Horizon(23, 23)))


class Signal:
    """A signal that comes after an update."""

    def __init__(self, step: int) -> None:
        self.watch = At(step, self)
        self.number = 0

    def __call__(self) -> int:
        return self.number


@dataclasses.dataclass
class At(cb.Callback):
    step: int
    signal: Signal

    def on_step_end(self, info: cb.StepInfo) -> None:
        if info.step == self.step:
            self.signal.number = 15


def assert_same_runs(
    whole: tuple[RunResult, list[Row]], resumed: tuple[RunResult, list[Row]]
) -> None:
    """Both have the same state, evaluations and rows, to the last bit."""
    (one, rows), (other, others) = whole, resumed
    assert (one.reason, one.step) == (other.reason, other.step)
    same(one.state, other.state)
    assert [(e.step, e.metrics) for e in one.evaluations] == [
        (e.step, e.metrics) for e in other.evaluations
    ]
    assert [(r.step, r.metrics) for r in rows] == [(r.step, r.metrics) for r in others]
    seconds = [row.train_seconds for row in others]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("name", ["nadamw", "nesterov", "velo"])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(name: str, tmp_path: Path):
    program = make_program(name)
    whole = part(tmp_path / "whole", name, program)
    for step in (3, 7, 11, 22):  # before the first checkpoint worth having, between, near the end
        with pytest.raises(Killed):
            part(tmp_path / "run", name, program, KillAt(step))
    assert saved_step(tmp_path / "run", name) == 20
    assert_same_runs(whole, part(tmp_path / "run", name, program))
    assert saved_step(tmp_path / "run", name) == 23
    assert [p.name for p in (tmp_path / "run").iterdir() if p.name.isdecimal()] == ["6"]


def test_a_signal_saves_the_run_between_two_evaluations(tmp_path: Path):
    program = make_program("adam")
    whole = part(tmp_path / "whole", "x", program)
    for step in (1, 5, 9, 14, 19, 23):  # 5 is an evaluation, 23 the end
        signal = Signal(step)
        with pytest.raises(Interrupted) as caught:
            part(tmp_path / "run", "x", program, signal.watch, signalled=signal)
        assert caught.value.number == 15
        # The signal is seen after the next update, with another one issued ahead.
        assert step <= saved_step(tmp_path / "run", "x") <= step + 2
    # At the last update it comes before the last evaluation, which is made now.
    assert_same_runs(whole, part(tmp_path / "run", "x", program))


def test_a_signal_during_an_evaluation_saves_the_state_before_it(tmp_path: Path):
    workload = TinyWorkload()
    entry = OPTIMIZERS["adam"]
    program = Program(workload, entry.make(entry.settings(), Horizon(23, 23)))
    whole = part(tmp_path / "whole", "x", program)
    numbers = itertools.chain([0] * 60, itertools.repeat(15))
    asked = 0

    def signalled() -> int:
        nonlocal asked
        asked += 1
        return next(numbers)

    with pytest.raises(Interrupted):
        part(tmp_path / "run", "x", program, signalled=signalled)
    assert 0 < saved_step(tmp_path / "run", "x") < 23
    assert_same_runs(whole, part(tmp_path / "run", "x", program))


def test_charged_minutes_save_a_run_between_evaluations(tmp_path: Path):
    @dataclasses.dataclass
    class Pauses(cb.Callback):
        steps: list[int]

        def on_pause(self, info: cb.StepInfo, state: TrainState, last: bool) -> None:
            self.steps.append(info.step)

    program = make_program("adam")
    whole = part(tmp_path / "whole", "x", program)
    pauses = Pauses([])
    run = part(tmp_path / "run", "x", program, pauses, minutes=1e-9)
    assert_same_runs(whole, run)
    assert {7, 9} <= {*pauses.steps}  # evaluations are at 5 and 10


def test_the_clock_goes_on_with_its_saved_seconds(tmp_path: Path):
    program = make_program("adam")
    budget = Budget(seconds=0.4)
    with pytest.raises(Killed):
        part(tmp_path / "run", "x", program, KillAt(12), budget=budget)
    loaded = Checkpoints(tmp_path / "run", "x").latest()
    assert loaded is not None
    before = loaded.saved.seconds
    result, _ = part(tmp_path / "run", "x", program, budget=budget)
    assert result.reason is StopReason.BUDGET
    assert 0.4 <= result.train_seconds < 1.4
    for account, seconds in before.items():
        assert result.seconds[account] >= seconds
    times = [e.train_seconds for e in result.evaluations]
    assert times == sorted(times)
    assert result.seconds["checkpoint"] > 0


def test_a_run_that_is_over_is_not_continued(tmp_path: Path):
    class DieAtTheEnd(cb.Callback):
        def on_fit_end(self, result: RunResult | None) -> None:
            raise Killed

    with pytest.raises(Killed):
        part(tmp_path / "run", "adam", make_program("adam"), DieAtTheEnd())
    resumed, _ = part(tmp_path / "run", "adam", make_program("adam"))
    assert (resumed.reason, resumed.step) == (StopReason.BUDGET, 23)
    assert [e.step for e in resumed.evaluations] == [0, 5, 10, 15, 18, 20, 23]


def test_a_target_is_reached_once(tmp_path: Path):
    whole, _ = part(tmp_path / "whole", "adam", make_program("adam"))
    target = whole.evaluations[2].metrics["train/loss"]
    stop = cb.StopAtTarget("train/loss", target, Direction.MINIMIZE)
    assert part(tmp_path / "run", "adam", make_program("adam"), stop)[0].step == 10
    resumed, _ = part(tmp_path / "run", "adam", make_program("adam"), stop)
    assert (resumed.reason, resumed.step) == (StopReason.TARGET, 10)


def test_callbacks_keep_their_state(tmp_path: Path):
    class Counter(cb.Callback):
        def __init__(self) -> None:
            self.count = 0

        def on_step_end(self, info: cb.StepInfo) -> None:
            self.count += 1

        def state(self) -> dict[str, int]:
            return {"count": self.count}

        def restore(self, state: Any) -> None:
            self.count = state["count"]

    first, second = Counter(), Counter()
    first_name = Counter.__qualname__
    second.count = 100
    states = states_of([first, cb.FeedRemainingFraction(), second])
    assert states == {name: {"count": n} for name, n in ((first_name, 0), (f"{first_name}#2", 100))}
    restore([second, first], json.loads(json.dumps(states)))
    assert (first.count, second.count) == (100, 0)


@pytest.mark.parametrize("packed_bytes", [2**26, 0])
def test_every_type_of_array_survives(
    tmp_path: Path, packed_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(packing, "PACKED_STATE_BYTES", packed_bytes)
    program = Program(TinyWorkload(), optax.sgd(0.1))
    state = dataclasses.replace(
        program.init(0),
        model_state={
            "half": jnp.array([1.5, -0.0, jnp.nan], jnp.bfloat16),
            "whole": jnp.array([1, -2], jnp.int8),
            "yes": jnp.array(True),
            "none": jnp.zeros((0, 3)),
            "large": jnp.arange(2**19, dtype=jnp.float32).reshape(512, -1).astype(jnp.bfloat16),
            "larger": jnp.arange(2**18, dtype=jnp.int32),
        },
    )
    path = tmp_path / "new" / "run"
    checkpoints = Checkpoints(path, "me")
    done: list[int] = []
    facts = Saved(0, {"train": 0.1}, "run.jsonl", 77, "id", {"a": "b"}, callbacks={"c": {"d": 1}})
    checkpoints.save(state, facts, lambda: done.append(1))
    checkpoints.close()
    assert done == [1]
    loaded = Checkpoints(path, "me").latest()
    assert loaded is not None
    assert loaded.saved == facts
    again = loaded.state(dataclasses.replace(state, key=jax.random.key(77)))
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    key = np.asarray(jax.random.key_data(jax.random.fold_in(again.key, 7)))
    np.testing.assert_array_equal(key, jax.random.key_data(jax.random.fold_in(state.key, 7)))
    assert path.stat().st_mode & 0o077 == 0


def test_a_save_holds_the_state_of_its_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "PACKED_STATE_BYTES", 0)
    program = Program(TinyWorkload(), optax.sgd(0.1))
    large = jnp.arange(2**22, dtype=jnp.float32)
    state = dataclasses.replace(program.init(0), model_state=large)
    move = jax.jit(lambda array: array * 0 - 1, donate_argnums=0)
    checkpoints = Checkpoints(tmp_path / "run", "me")
    checkpoints.save(state, Saved(0, {}))
    moved = move(move(large))  # while it is written
    checkpoints.close()
    loaded = Checkpoints(tmp_path / "run", "me").latest()
    assert loaded is not None
    read = loaded.state(dataclasses.replace(state, model_state=moved)).model_state
    np.testing.assert_array_equal(read, np.arange(2**22, dtype=np.float32))


def three_saves(path: Path, model_state: Any = None) -> Checkpoints:
    program = Program(TinyWorkload(), optax.sgd(0.1))
    checkpoints = Checkpoints(path, "me")
    for step in (1, 2, 3):
        state = dataclasses.replace(program.init(0), step=jnp.int32(step))
        if model_state is not None:
            state = dataclasses.replace(state, model_state=model_state)
        checkpoints.save(state, Saved(step, {}))
    checkpoints.close()
    return checkpoints


def test_the_last_two_are_kept_and_a_half_one_is_removed(tmp_path: Path):
    checkpoints = three_saves(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["2", "3"]
    (tmp_path / "run" / "3" / "SHA256SUMS").unlink()  # killed while it was written
    (tmp_path / "run" / "4" / "arrays.orbax-checkpoint-tmp").mkdir(parents=True)
    loaded = checkpoints.latest()
    assert loaded is not None
    assert loaded.saved.step == 2
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["2"]


def test_a_changed_byte_anywhere_sets_a_checkpoint_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(packing, "PACKED_STATE_BYTES", 0)  # Orbax writes the large array
    three_saves(tmp_path / "first", jnp.arange(2**18, dtype=jnp.float32))
    files = [p for p in (tmp_path / "first" / "3").rglob("*") if p.is_file()]
    assert len(files) > 6
    for i, file in enumerate(files):
        root = tmp_path / str(i)
        shutil.copytree(tmp_path / "first", root)
        found = root / "3" / file.relative_to(tmp_path / "first" / "3")
        content = bytearray(found.read_bytes() or b"x")
        content[len(content) // 2] ^= 1
        found.write_bytes(content)
        caplog.clear()
        loaded = Checkpoints(root, "me").latest()
        assert loaded is not None, file
        assert loaded.saved.step == 2, file
        assert "3.damaged" in caplog.text
        assert (root / "3.damaged").is_dir()


def test_sha256sum_can_check_a_checkpoint(tmp_path: Path):
    three_saves(tmp_path / "run")
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    subprocess.run(command, cwd=tmp_path / "run" / "3", check=True, capture_output=True)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path):
    three_saves(tmp_path / "run")
    with pytest.raises(UserError, match="expected configuration other, got me"):
        Checkpoints(tmp_path / "run", "other").latest()
    loaded = Checkpoints(tmp_path / "run", "me").latest()
    assert loaded is not None
    with pytest.raises(UserError, match=r"expected \.opt_state.*count.*got nothing"):
        loaded.state(Program(TinyWorkload(), optax.adam(0.1)).init(0))


def test_other_devices_or_precision_are_refused_and_other_versions_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    three_saves(tmp_path / "run")
    loaded = Checkpoints(tmp_path / "run", "me").latest()
    assert loaded is not None
    devices = Program(TinyWorkload(), optax.sgd(0.1)).devices
    now = maker(devices)

    def saved_with(**other: str) -> Loaded:
        saved = dataclasses.replace(loaded.saved, made_by={**now, **other})
        return dataclasses.replace(loaded, saved=saved)

    check_maker(saved_with(), devices)
    assert not caplog.text
    check_maker(saved_with(jax="0.1"), devices)
    assert f"jax 0.1, now {jax.__version__}" in caplog.text
    with pytest.raises(UserError, match=r"got devices 8, now 1\. Allowed: .*train\.devices"):
        check_maker(saved_with(devices="8"), devices)
    with pytest.raises(UserError, match=r"got precision highest, float32, now default, float32"):
        check_maker(saved_with(precision="highest, float32"), devices)


def test_saving_at_evaluations_takes_its_share_of_the_time_only(tmp_path: Path):
    program = Program(TinyWorkload(), optax.sgd(0.1))
    state, clock, seconds = program.init(0), Clock(), 0.0
    checkpoints = Checkpoints(tmp_path / "run", "me")
    tracker = start_run(tmp_path, identity())
    save = Checkpoint(checkpoints, clock, tracker, {}, share=0.01, now=lambda: seconds)
    saved: list[int] = []
    for step in range(1, 400):
        seconds = 0.1 * step
        checkpoints.seconds = 0.05
        save.on_pause(cb.StepInfo(step, 0.0, 0.0, step), state, last=False)
        checkpoints.wait()
        if checkpoints.seconds != 0.05:
            saved.append(step)
    assert saved[0] == 50  # 0.05 s are 1 % of 5 s
    assert len(saved) == 7
    save.on_fit_end(None)
