"""Programs of a race: shared by runs that compute the same, compiled for those charged for it."""

from __future__ import annotations

from typing import Any

import jax
import pytest

from timetrial.bench.experiment import run
from timetrial.bench.naming import end_tags
from timetrial.bench.suite import load_run
from timetrial.bench.workshop import Workshop
from timetrial.framework.compilation import Source, without_cache
from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.records import RunResult
from timetrial.tracking.record import schema
from timetrial.workloads import WORKLOADS


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch):
    """Makes runs of the tiny workload with one workshop, without a record."""
    from tiny_cli import TinySettings, make_tiny

    monkeypatch.setitem(WORKLOADS, "tiny", WorkloadEntry("tiny", TinySettings, make_tiny))
    workshop = Workshop()

    def make(optimizer: str, *words: str) -> RunResult:
        config = load_run(["workload=tiny", f"optimizer={optimizer}", *words])
        return run(config, None, workshop)

    return make


def test_the_update_of_velo_serves_velo_short_and_other_numbers_of_steps(made: Any):
    with without_cache():
        alone = made("velo", "budget.steps=8")
        short = made("velo_short", "budget.steps=8")
        longer = made("velo", "budget.steps=12")
    assert set(alone.compile_sources) == {Source.COMPILED}
    assert set(short.compile_sources) == set(longer.compile_sources) == {Source.SHARED}
    assert (alone.step, short.step, longer.step) == (8, 6, 12)


def test_a_shared_update_computes_what_its_own_would(made: Any):
    made("velo", "budget.steps=8")
    shared = made("velo_short", "budget.steps=8")
    own = made("velo_short", "budget.steps=8", "budget.charge_compile=true")
    same = jax.tree.map(
        lambda a, b: a.tobytes() == b.tobytes(),
        *map(
            jax.device_get,
            (
                (shared.state.params, shared.state.opt_state),
                (own.state.params, own.state.opt_state),
            ),
        ),
    )
    assert jax.tree.all(same)


def test_other_weights_or_settings_are_other_programs(made: Any):
    made("velo", "budget.steps=8")
    decayed = made("velo", "budget.steps=8", "optimizer.weight_decay=0.1")
    assert Source.COMPILED in decayed.compile_sources or Source.CACHE in decayed.compile_sources


def test_a_run_charged_for_its_compilation_compiles_everything(made: Any):
    words = ("budget.steps=4", "budget.charge_compile=true")
    made("adam", "budget.steps=4")
    for seed in (0, 0, 1):
        charged = made("adam", *words, f"seed={seed}")
        assert charged.compile_sources == (Source.COMPILED,)
    assert "compile" not in charged.seconds


def test_the_record_says_where_the_executables_came_from(made: Any):
    with without_cache():
        first, second = (made("adam", "budget.steps=4", f"seed={seed}") for seed in (0, 1))
    assert end_tags(first)[schema.COMPILE_SOURCES] == "compilation"
    assert end_tags(second)[schema.COMPILE_SOURCES] == "earlier run"
    assert second.seconds["compile"] < first.seconds["compile"]
