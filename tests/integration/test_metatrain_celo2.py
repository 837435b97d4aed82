"""Meta-training of Celo2: its two stages, exact resumption, export and import."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from test_metatrain import TINY

from timetrial.bench.metatrain import command, config
from timetrial.bench.metatrain.loop import Training
from timetrial.bench.syncing import opened
from timetrial.optimizers.metatraining import families
from timetrial.optimizers.metatraining.celo2 import vector
from timetrial.optimizers.metatraining.celo2.files import EMBEDDED, load_start
from timetrial.optimizers.metatraining.stages import stages_of
from timetrial.tracking.store.opening import open_store

WORDS = [
    "rule=celo2",
    "families=[tiny]",
    "validation_families=[tiny]",
    "rates=[1e-2,1e-1]",
    "steps=6",
    "pairs=2",
    "cores=1",
    "truncation=5",
    "shortest=10",
    "longest_at_first=10",
    "longest=20",
    "learning_rate=0.01",
    "validate_every=3",
    "validation_tasks=2",
    "horizons=[20]",
    "linear.steps=4",
    "linear.longest=10",
]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The tiny family; programs are compiled once, with few optimizations: that takes most time."""
    monkeypatch.setitem(families.FAMILIES, "tiny", TINY)
    directory = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_disable_most_optimizations", False)


def words(**changes: object) -> list[str]:
    """The words of a tiny training; ``linear_steps`` is ``linear.steps``."""
    named = {key.replace("_", ".", 1) if "linear_" in key else key: x for key, x in changes.items()}
    kept = [word for word in WORDS if word.partition("=")[0] not in named]
    return [*kept, *(f"{key}={value}" for key, value in named.items())]


def train(words: list[str], signals: Iterator[int] | None = None) -> tuple[Training, bool]:
    """One piece; ``signals`` are what the loop sees between two outer steps."""
    signals = itertools.repeat(0) if signals is None else signals
    settings, where = config.read(words)
    first, *others = stages_of(settings)
    where.directory.mkdir(parents=True, exist_ok=True)
    return command._pieces(first, others, where, opened(where.tracking), lambda: next(signals))


def after(calls: int) -> Iterator[int]:
    return itertools.chain(itertools.repeat(0, calls), itertools.repeat(2))


@pytest.mark.slow
def same(one: Training, other: Training) -> None:
    """Checks that two states are equal, bit by bit."""
    for a, b in zip(jax.tree.leaves(one.state), jax.tree.leaves(other.state), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_the_harness_resumes_bitwise_and_exports(tmp_path: Path):
    ours = words(start="random", orthogonalize=True, vector_rate=2, steps=3, validate_every=3)
    _, where = config.read(ours)
    assert where.name == "celo2"
    whole, complete = train([*ours, f"tracking.root={tmp_path / 'whole'}"])
    assert complete
    assert not np.array_equal(whole.state.params, whole.stage.start)

    parts = [*ours, f"tracking.root={tmp_path / 'parts'}"]
    training, complete = train(parts, after(4))
    assert 0 < training.step < 3
    assert not complete
    training, complete = train(parts)
    assert complete
    same(whole, training)

    # The exported file starts another training.
    path = tmp_path / "made.state"
    command._export(path, whole, "made")
    weights = load_start(str(path))
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    best = np.asarray(whole.state.opt_state.best)
    np.testing.assert_array_equal(vector.from_meta_params(weights.meta_params), best)
    settings, _ = config.read(words(start=path))
    (make_stage,) = stages_of(settings)
    stage = make_stage(None)
    np.testing.assert_array_equal(stage.start, best)
    assert stage.origin == weights.sha256


@pytest.mark.slow
def test_both_stages_resume_bitwise(tmp_path: Path):
    whole, complete = train([*WORDS, f"tracking.root={tmp_path / 'whole'}"])
    assert complete
    assert (whole.stage.name, whole.step) == ("full", 6)
    assert [row.step for row in whole.evaluations] == [0, 3, 6]

    parts = [*WORDS, f"tracking.root={tmp_path / 'parts'}"]
    seen = []
    for calls in (4, 12, 100):
        training, complete = train(parts, after(calls))
        seen.append((training.stage.name, training.step))
    assert complete
    (one, at_one), (two, at_two), _ = seen
    assert (one, two) == ("linear", "full")
    assert 0 < at_one < 4
    assert 0 < at_two < 6
    same(whole, training)

    # Each stage is one run in MLflow, whatever the number of pieces.
    store = open_store(root=tmp_path / "parts")
    runs = store.client.search_runs([store.experiment_id("timetrial-metatrain")])
    assert sorted(run.data.params["stage"] for run in runs) == ["full", "linear"]
    assert {run.data.params["rule"] for run in runs} == {"celo2"}


def test_starts_differ_and_are_part_of_the_identity():
    identities = set()
    for changes in (
        {"start": "random"},
        {"start": "embedded"},
        {"linear_steps": 0},
        {"start": "random", "seed": 1},
        {"start": "random", "orthogonalize": True},
        {"start": "random", "orthogonalize": True, "vector_rate": 3},
    ):
        settings, _ = config.read(words(**changes))
        (make_stage,) = stages_of(settings)
        stage = make_stage(None)
        assert stage.start.shape == (329,)
        identities.add(config.identity(stage))
    assert len(identities) == 6


def test_the_linear_stage_does_not_depend_on_the_second():
    ours = []
    for changes in ({}, {"steps": 9, "sigma": 0.5, "learning_rate": 0.5}, {"linear_sigma": 0.2}):
        settings, _ = config.read(words(**changes))
        ours.append(config.identity(stages_of(settings)[0](None)))
    assert ours[0] == ours[1] != ours[2]


def test_the_embedded_weights_match_their_card():
    card = (EMBEDDED.parent / "CARD.md").read_text()
    data = EMBEDDED.read_bytes()
    assert hashlib.sha256(data).hexdigest() == load_start("embedded").sha256
    assert f"`{hashlib.sha256(data).hexdigest()}`" in card
    assert f"{len(data):,} bytes" in card
