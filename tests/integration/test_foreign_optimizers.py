"""Optimizers of google/learned_optimization by name: a stand-in of its interface, or itself."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import learned_library
import pytest
import tiny_suite

from timetrial.bench import cli
from timetrial.bench.listing import describe, listing
from timetrial.bench.schedule import learning_rates
from timetrial.bench.suite import load_run, load_suite
from timetrial.framework.entries import Horizon
from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.adapters.foreign import RELEASED_VELO
from timetrial.optimizers.adapters.learned_optimization import is_installed
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.report.agreement import agreement_text, agreements
from timetrial.tracking.store.opening import open_store

SGD = "learned_optimization.optimizers.base:SGD"
STEPS = 20


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    tiny_suite.register(monkeypatch, tmp_path, steps=STEPS, eval_every_steps=10)
    forget(monkeypatch)
    learned_library.installed(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "learned_optimization"]:
        monkeypatch.delitem(sys.modules, name)


def timetrial(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    return int(stopped.value.code or 0)


def runs() -> list[RunRecord]:
    return load_runs(open_store(root=Path("runs"), create=False), "timetrial")


WORDS = ("workload=tiny", "optimizer=learned_optimization", f"budget.steps={STEPS}")


def test_any_optimizer_of_the_library_is_raced_with_its_arguments():
    arguments = "optimizer.arguments={learning_rate: 5e-2}"
    assert timetrial("train", *WORDS, f"optimizer.make={SGD}", arguments) == 0
    assert timetrial("train", "workload=tiny", "optimizer=optax:sgd",
                     "optimizer.learning_rate=0.05", f"budget.steps={STEPS}") == 0  # fmt: skip
    theirs, ours = runs()
    assert theirs.optimizer == "learned_optimization[SGD]"
    assert theirs.tags["learned"] == "true"
    assert theirs.tags["learned_optimization.num_steps"] == str(STEPS)
    for one, other in zip(theirs.evaluations, ours.evaluations, strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-5)


def test_the_report_says_how_far_its_velo_is_from_ours():
    assert timetrial("train", *WORDS, f"optimizer.make={RELEASED_VELO}") == 0
    words = ("workload=tiny", "optimizer=velo", "optimizer.weights=embedded", WORDS[-1])
    assert timetrial("train", *words) == 0
    theirs, ours = runs()
    assert theirs.tags["same_updates_as"] == "velo[google]"
    assert agreements([theirs, ours]) == []  # ours has other weights
    ours = dataclasses.replace(ours, optimizer="velo[google]")
    (found,) = agreements([theirs, ours])
    assert found.runs == 1
    assert found.difference < 1e-4
    assert found.where.startswith("tiny, seed 0, step ")
    text = agreement_text([theirs, ours])
    assert text.startswith("learned_optimization[LearnedOptimizer] is to make the same updates as "
                           "velo[google]: over 1 pair of runs")  # fmt: skip
    half = [dataclasses.replace(row, metrics={"train/loss": row.metrics["train/loss"] / 2})
            for row in ours.evaluations]  # fmt: skip
    (found,) = agreements([theirs, dataclasses.replace(ours, evaluations=half)])
    assert found.difference == pytest.approx(0.5, rel=1e-3)
    assert agreements([theirs, dataclasses.replace(ours, seed=1)]) == []


def test_a_function_in_a_file_makes_one_and_its_content_is_part_of_the_run(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text("from learned_optimization.optimizers.base import SGD\n\n\n"
                    "def make(rate):\n    return SGD(rate)\n")  # fmt: skip
    words = (*WORDS, f"optimizer.make={file}:make", "optimizer.arguments={rate: 0.1}")
    config = load_run(words)
    assert len(config.optimizer.settings.file_sha256) == 64
    assert timetrial("train", *words) == 0
    file.write_text(file.read_text() + "# edited\n")
    assert load_run(words) != config
    assert runs()[0].optimizer.startswith("learned_optimization[make,")


REFUSED = {
    "optimizer.make: expected package.module:Class": {"make": "SGD"},
    "expected a value, as it has no default": {},
    "ModuleNotFoundError: No module named 'learned_optimization.gone'": {
        "make": "learned_optimization.gone:SGD"
    },
    "unexpected keyword argument 'rate'": {"make": SGD, "arguments": "{rate: 1}"},
    "ValueError: nesterov is not supported": {"make": SGD, "arguments": "{nesterov: true}"},
    "optimizer.arguments: expected keyword arguments such as": {"make": SGD, "arguments": "[1]"},
    "expected an optimizer of learned_optimization, with a method init, got dict": {
        "make": "builtins:dict"
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_raced_is_told_in_one_line(message: str, capsys: pytest.CaptureFixture[str]):
    given = [f"optimizer.{key}={value}" for key, value in REFUSED[message].items()]
    assert timetrial("train", *WORDS, *given) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not Path("runs").exists()


def test_adapters_are_listed_but_are_not_among_all(monkeypatch: pytest.MonkeyPatch):
    assert "learned_optimization" in OPTIMIZERS
    assert "learned_optimization" not in list(OPTIMIZERS)
    suite, _ = load_suite(["suite=quick", "workloads=[tiny]", "presets=p"])
    assert "learned_optimization" not in suite.optimizer_names()
    assert "learned_optimization  built in" in listing()
    assert "optimizer.KEY=VALUE" in describe("learned_optimization")
    with pytest.raises(UserError, match="did you mean 'learned_optimization'"):
        load_run(["workload=tiny", "optimizer=learned_optimisation"])


def test_a_report_imports_nothing_that_a_record_of_an_adapter_names(
    monkeypatch: pytest.MonkeyPatch,
):
    assert timetrial("train", *WORDS, f"optimizer.make={SGD}") == 0
    records = runs()
    forget(monkeypatch)
    assert learning_rates([], records).empty
    assert not [name for name in sys.modules if name.startswith("learned_optimization")]
    assert not OPTIMIZERS.is_installed("learned_optimization")


@pytest.mark.skipif(not is_installed(), reason="needs google/learned_optimization")
def test_the_real_library_builds_its_optimizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path / "site")])
    forget(monkeypatch)
    entry = OPTIMIZERS["learned_optimization"]
    settings = entry.settings(SGD, "{learning_rate: 0.05}")
    entry.make(settings, Horizon(STEPS, STEPS)).init({"w": 1.0})
