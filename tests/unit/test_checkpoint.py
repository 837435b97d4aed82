"""Checkpoints: a resumed run is bitwise the uninterrupted one, and damaged files raise errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recorded import identity
from tiny import TinyWorkload

from timetrial.framework import callbacks as cb
from timetrial.framework.budget import Budget, StopReason
from timetrial.framework.checkpoint import Checkpoint, Saved, load, save
from timetrial.framework.clock import Clock
from timetrial.framework.entries import Horizon
from timetrial.framework.errors import UserError
from timetrial.framework.records import Row, RunResult
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.types import Direction
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.record.evaluations_file import evaluations_in
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
    path: Path, name: str, program: Program, *extra: cb.Callback, budget: Budget | None = None
) -> tuple[RunResult, list[Row]]:
    """One part of a run, from the checkpoint where there is one; its result and journal."""
    clock = Clock()
    saved = load(path, name) if path.exists() else None
    if saved:
        clock.resume(saved.seconds)
        tracker = resume_run(path.parent / saved.journal, saved.offset, {})
        rows = read_journal(tracker.path, evaluations_only=True).rows
    else:
        tracker = start_run(path.parent, identity())
    callbacks = [
        cb.StopIfDiverged(),
        *extra,
        cb.FeedRemainingFraction(),
        cb.Track(tracker),
        Checkpoint(path, name, clock, tracker, {"note": "kept"}),
    ]
    earlier = evaluations_in(rows) if saved else []
    trainer = Trainer(program, budget or Budget(steps=23), callbacks, 3, clock, earlier)
    state = program.init(3)
    result = trainer.fit(saved.state(state) if saved else state)
    return result, list(read_journal(tracker.path).rows)


def make_program(name: str) -> Program:
    entry = OPTIMIZERS[name]
    return Program(TinyWorkload(), entry.make(entry.settings(), Horizon(23, 23)))


@pytest.mark.parametrize("name", ["nadamw", "nesterov", "velo"])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(name: str, tmp_path: Path):
    program = make_program(name)
    whole, all_rows = part(tmp_path / "whole", name, program)
    for step in (3, 7, 11, 22):  # before the first checkpoint worth having, between, near the end
        with pytest.raises(Killed):
            part(tmp_path / "run", name, program, KillAt(step))
    resumed, rows = part(tmp_path / "run", name, program)
    assert int(load(tmp_path / "run", name).leaves[".step"]) == 20
    assert (resumed.reason, resumed.step) == (StopReason.BUDGET, 23)
    for one, other in zip(
        jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True
    ):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)
    assert [(e.step, e.metrics) for e in resumed.evaluations] == [
        (e.step, e.metrics) for e in whole.evaluations
    ]
    assert [(r.step, r.metrics) for r in rows] == [(r.step, r.metrics) for r in all_rows]
    seconds = [row.train_seconds for row in rows]
    assert seconds == sorted(seconds)


def test_the_clock_goes_on_with_its_saved_seconds(tmp_path: Path):
    program = make_program("adam")
    budget = Budget(seconds=0.4)
    with pytest.raises(Killed):
        part(tmp_path / "run", "x", program, KillAt(12), budget=budget)
    before = load(tmp_path / "run", "x").seconds
    result, _ = part(tmp_path / "run", "x", program, budget=budget)
    assert result.reason is StopReason.BUDGET
    assert 0.4 <= result.train_seconds < 1.4
    for account, seconds in before.items():
        assert result.seconds[account] >= seconds
    times = [e.train_seconds for e in result.evaluations]
    assert times == sorted(times)
    assert result.seconds["checkpoint"] > 0


def test_an_ending_run_is_not_saved_again_so_that_it_ends_at_the_same_update(tmp_path: Path):
    class DieAfterLastEvaluation(cb.Callback):
        def on_fit_end(self, result: RunResult | None) -> None:
            raise Killed

    with pytest.raises(Killed):
        part(tmp_path / "run", "adam", make_program("adam"), DieAfterLastEvaluation())
    resumed, _ = part(tmp_path / "run", "adam", make_program("adam"))
    assert resumed.step == 23
    assert [e.step for e in resumed.evaluations] == [0, 5, 10, 15, 18, 20, 23]


def test_a_target_met_at_the_moment_of_the_checkpoint_is_met_again(tmp_path: Path):
    whole, _ = part(tmp_path / "whole", "adam", make_program("adam"))
    target = whole.evaluations[2].metrics["train/loss"]
    stop = cb.StopAtTarget("train/loss", target, Direction.MINIMIZE)

    class DieAfterLastEvaluation(cb.Callback):
        def on_fit_end(self, result: RunResult | None) -> None:
            raise Killed

    with pytest.raises(Killed):
        part(tmp_path / "run", "adam", make_program("adam"), stop, DieAfterLastEvaluation())
    resumed, _ = part(tmp_path / "run", "adam", make_program("adam"), stop)
    assert (resumed.reason, resumed.step) == (StopReason.TARGET, 10)


def test_every_type_of_array_survives(tmp_path: Path):
    program = Program(TinyWorkload(), optax.sgd(0.1))
    state = dataclasses.replace(
        program.init(0),
        model_state={
            "half": jnp.array([1.5, -0.0, jnp.nan], jnp.bfloat16),
            "whole": jnp.array([1, -2], jnp.int8),
            "yes": jnp.array(True),
            "none": jnp.zeros((0, 3)),
        },
    )
    path = tmp_path / "new" / "run"
    save(path, state, Saved({}, {"train": 0.1}, "run.jsonl", 77, {"a": "b"}), "me")
    saved = load(path, "me")
    again = saved.state(dataclasses.replace(state, key=jax.random.key(77)))
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        assert one.dtype == other.dtype
        if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    key = np.asarray(jax.random.key_data(jax.random.fold_in(again.key, 7)))
    np.testing.assert_array_equal(key, jax.random.key_data(jax.random.fold_in(state.key, 7)))
    assert (saved.seconds, saved.notes) == ({"train": 0.1}, {"a": "b"})
    assert (saved.journal, saved.offset, saved.step) == ("run.jsonl", 77, 0)
    assert [p.name for p in path.parent.iterdir()] == ["run"]  # no draft is left


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path):
    path = tmp_path / "run"
    state = Program(TinyWorkload(), optax.sgd(0.1)).init(0)
    save(path, state, Saved({}, {}, "", 0, {}), "one")
    with pytest.raises(UserError, match="expected one of configuration other, got one of one"):
        load(path, "other")
    with pytest.raises(UserError, match=r"of another model or optimizer.*count"):
        load(path, "one").state(Program(TinyWorkload(), optax.adam(0.1)).init(0))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="cannot be read"):
        load(path, "one")
    path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read"):
        load(path, "one")
