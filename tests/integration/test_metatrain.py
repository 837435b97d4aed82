"""Meta-training end to end on a tiny family: improvement, resumption, export, errors."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from timetrial.bench.cli import main
from timetrial.bench.metatrain import command, config
from timetrial.bench.syncing import opened
from timetrial.framework.checkpoint import Checkpoints, Loaded
from timetrial.framework.errors import UserError
from timetrial.optimizers.metatraining import families
from timetrial.optimizers.metatraining.rules import adam_rule, velo_rule
from timetrial.optimizers.metatraining.stages import stages_of
from timetrial.optimizers.metatraining.tasks import Data, Family
from timetrial.optimizers.metatraining.validation import Validation
from timetrial.optimizers.metatraining.vector import to_vector
from timetrial.optimizers.velo.weights import embedded_weights, load_weights
from timetrial.optimizers.velo.weights.catalogue import EMBEDDED_SHA256
from timetrial.tracking.record.evaluations_file import evaluations_in
from timetrial.tracking.record.journal import read_journal
from timetrial.tracking.store.opening import open_store

EMBEDDED = Path(families.__file__).parents[1] / "velo" / "embedded"


def regression(key: jax.Array) -> Data:
    """Linear regression of two targets; few random numbers, so that it compiles in seconds."""
    x = jax.random.uniform(key, (64, 4), minval=-1.0)
    y = x[:, :2] * 2.0 - x[:, 2:]
    return Data((x, y), (), jnp.mean(y**2))


TINY = Family(
    "tiny",
    regression,
    lambda key, traits: {"w": 0.5 * jax.random.uniform(key, (4, 2), minval=-1.0)},
    lambda params, batch, traits: jnp.mean((batch[0] @ params["w"] - batch[1]) ** 2),
    batch_size=8,
)

SETTINGS = [
    "families=[tiny]",
    "start=warm",
    "hidden_size=4",
    "bank_size=2",
    "steps=60",
    "pairs=4",
    "cores=1",
    "truncation=10",
    "shortest=20",
    "longest_at_first=20",
    "longest=40",
    "sigma=0.05",
    "learning_rate=0.02",
    "ema=0.5",
    "validate_every=30",
    "validation_tasks=4",
    "horizons=[20,40]",
]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setitem(families.FAMILIES, "tiny", TINY)
    before = jax.config.jax_compilation_cache_dir
    yield [*SETTINGS, f"tracking.root={tmp_path}"]
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(autouse=True)
def quick_to_compile() -> Iterator[None]:
    """What is run here is tiny: nearly all the time would go into XLA's optimizations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def run(words: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["metatrain", *words])
    return int(ended.value.code or 0)


def last(words: list[str]) -> Loaded:
    settings, where = config.read(words)
    (make_stage,) = stages_of(settings)
    identity = config.identity(make_stage(None))
    loaded = Checkpoints(where.directory / "checkpoints", identity).latest()
    assert loaded is not None
    return loaded


def leaves(words: list[str]) -> dict[str, np.ndarray]:
    """All arrays of a small state, which are packed into one file."""
    loaded = last(words)
    packed = (loaded.path / "packed").read_bytes()
    arrays = json.loads((loaded.path / "run.json").read_text())["arrays"]
    return {
        each["name"]: np.frombuffer(packed, each["dtype"], math.prod(each["shape"]), each["at"])
        for each in arrays
    }


@pytest.mark.slow
def test_training_improves_resumes_bitwise_and_exports(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    whole = [*settings, "name=whole"]
    parts = [*settings[:-1], f"tracking.root={tmp_path / 'other'}", "name=parts"]
    made, where = config.read([*whole, "checkpoint_seconds=1e-6"])
    _, other = config.read(parts)
    for directory in (where.directory, other.directory):
        directory.mkdir(parents=True)

    def left_behind_by_kill_9() -> int:
        if next(count) == 25:
            time.sleep(0.5)  # the checkpoint under way is whole then
            shutil.copytree(where.directory / "checkpoints", other.directory / "checkpoints")
            shutil.copytree(tmp_path / "journals", tmp_path / "other" / "journals")
        return 0

    count = itertools.count()
    (make_stage,) = stages_of(made)
    training, complete = command._piece(
        make_stage(None), where, opened(where.tracking), left_behind_by_kill_9
    )
    assert complete
    assert training.step == 60
    exported = tmp_path / "made.params"
    assert run([*whole, "minutes=0", "--export", str(exported)]) == 0

    # It improves: by the fixed validation tasks, which training does not see.
    saved = last(whole).saved
    rows = read_journal(tmp_path / "journals" / saved.journal, evaluations_only=True).rows
    validations = evaluations_in(rows)
    scores = [e.metrics["validation/score"] for e in validations]
    assert [e.step for e in validations] == [0, 30, 60]
    assert scores[-1] < scores[0] - 0.05

    # It exports the best: a container that the ordinary loader reads, with its digest beside it.
    weights = load_weights(exported)
    assert (weights.hidden_size, weights.bank_size) == (4, 2)
    assert weights.sha256 == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert weights.sha256 in capsys.readouterr().out
    best = leaves(whole)[".opt_state.best"]
    np.testing.assert_allclose(to_vector(weights.meta_params), best, rtol=1e-6)

    # Killed in the middle and continued, it ends in the very same bits.
    began = last(parts).saved.step
    assert 10 < began < 30
    assert run(parts) == 0
    one, two = leaves(whole), leaves(parts)
    assert one.keys() == two.keys()
    for key, array in one.items():
        np.testing.assert_array_equal(array, two[key], err_msg=key)

    # Each training is one run in MLflow, however many pieces it had, with its validation curve.
    for root in (tmp_path, tmp_path / "other"):
        store = open_store(root=root)
        (found,) = store.client.search_runs([store.experiment_id("timetrial-metatrain")])
        curve = store.client.get_metric_history(found.info.run_id, "validation/score")
        assert [point.step for point in curve] == [0, 30, 60]
        steps = store.client.get_metric_history(found.info.run_id, "metatrain/learning_rate")
        assert len({point.step for point in steps}) == len(steps)
    assert found.data.tags["resumed_at"] == str(began)

    # A checkpoint of other settings is not continued.
    assert run([*parts, "seed=1"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stepz=1"], "did you mean 'steps'"),
        (["pairs=0"], "pairs: expected a value >= 1"),
        (["families=[mlp]"], "families: expected one or more different ones of perceptron"),
        (["longest=50"], "expected each at least the one before, got 100, 6000, 50"),
        (["start=nowhere.params"], "no such file"),
        (["cores=3"], "cores: expected a divisor of pairs = 16"),
        (["minutes=-1"], "minutes: expected a value >= 0"),
        (["name=../x"], "name: expected letters"),
        (["--export", "no/such/place.params"], "expected a file in an existing directory"),
        (["orthogonalize=true"], "orthogonalize: expected only with rule=celo2, got rule=velo"),
        (["rule=celo2", "bank_size=4"], "bank_size: expected only with rule=velo, got rule=celo2"),
        (["rule=velo2"], "unknown rule 'velo2'; did you mean 'velo'?"),
        (["rule=celo2", "start=nowhere.state"], "start: nowhere.state: no such file"),
        (["rule=celo2", "start=."], "start: .: not a regular file"),
        (["rule=celo2", "vector_rate=2"], "vector_rate: expected only with orthogonalize=true"),
        (["rule=celo2", "rates=[1e-2]"], "rates: expected two or more ascending numbers"),
        (["rule=celo2", "rates=[1e-2,1e-3]"], "rates: expected two or more ascending numbers"),
        (["rule=celo2", "lowest_rate=1"], "lowest_rate: expected at most highest_rate"),
        (["rule=celo2", "validation_families=[]"], "validation_families: expected one or more"),
        (["rule=celo2", "linear.sigma=0"], "linear.sigma: expected a value > 0"),
        (["rule=celo2", "linear.longest=50"], "linear.longest: expected at least shortest = 100"),
    ],
)
def test_bad_input_is_answered_before_anything_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run([*words, f"tracking.root={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_trainings_of_velo_keep_their_identity():
    """That of the embedded weights, in whose names it is; with another one none would resume."""
    settings, _ = config.read(["name=box"])
    (make_stage,) = stages_of(settings)
    assert config.identity(make_stage(None)) == "659b9713a368d3a0"


def test_two_processes_do_not_train_the_same(tmp_path: Path):
    holder = command._only_one(tmp_path)
    with holder:
        code = (
            "import sys, pathlib; from timetrial.bench.metatrain.command import _only_one\n"
            "with _only_one(pathlib.Path(sys.argv[1])): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
        )
    assert UserError.__name__ in other.stderr
    assert "in progress in another process" in other.stderr


def test_the_embedded_weights_match_their_card():
    card = (EMBEDDED / "CARD.md").read_text()
    data = (EMBEDDED / "embedded.params").read_bytes()
    weights = embedded_weights()
    assert hashlib.sha256(data).hexdigest() == EMBEDDED_SHA256
    for fact in (
        EMBEDDED_SHA256,
        f"{len(data):,} bytes",
        f"H = {weights.hidden_size}",
        f"K = {weights.bank_size}",
        f'"{weights.gen_id}"',
        f"`step` {weights.step:,}",
    ):
        assert fact in card, fact
    assert len(data) < 1_000_000


def test_the_embedded_weights_beat_untuned_adam_on_held_out_tasks():
    """Perceptrons on mixtures that neither training nor selection has seen."""
    weights = embedded_weights()
    vector = to_vector(weights.meta_params)
    sizes = (weights.hidden_size, weights.bank_size)
    seed = 7
    tasks = {"families": ("perceptron",), "tasks": 4, "horizons": (200,), "seed": seed}
    ours, _ = Validation(lambda v: velo_rule(v, *sizes), **tasks).losses(vector, "perceptron")
    adam, _ = Validation(adam_rule, **tasks).losses(jnp.float32(1e-3), "perceptron")
    assert ours.mean() < 0.8 * adam.mean()
