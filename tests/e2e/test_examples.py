"""The examples: short, with public names only, and each one runs."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from plugins import package

import timetrial
from timetrial import load_runs
from timetrial.bench import cli

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py"))
PLUGIN = EXAMPLES / "plugin"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without Google's weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMETRIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def play(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs an example with words of its command line; returns what it prints."""

    def played(script: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, *words])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out

    return played


def test_there_are_at_most_six_and_the_table_names_each():
    table = (EXAMPLES / "README.md").read_text()
    assert re.findall(r"^\| \[(.*\.py)\]\(\1\) \|", table, re.M) == [
        "compare.py",
        "learned.py",
        "study.py",
        "suite/race.py",
        "plugin/timetrial_sine.py",
        "results.py",
    ]
    assert len(SCRIPTS) <= 6
    links = re.findall(r"\]\(([^)]+)\)", table)
    assert set(SCRIPTS) <= set(links)
    assert [link for link in links if not (EXAMPLES / link).exists()] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_is_short_and_takes_public_names_only(script: str):
    source = (EXAMPLES / script).read_text()
    assert len(source.splitlines()) < 40
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert not {name for name in plain if name.startswith("timetrial")}
    ours = [
        node
        for node in nodes
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("timetrial")
    ]
    assert {node.module for node in ours} == {"timetrial"}
    assert {alias.name for node in ours for alias in node.names} <= set(timetrial.__all__)


def test_a_model_data_and_the_comparison_take_ten_lines():
    code = ast.parse((EXAMPLES / "compare.py").read_text())
    first = next(node for node in code.body if ast.unparse(node).startswith("model ="))
    last = code.body[-1].end_lineno
    assert last is not None
    assert last - first.lineno + 1 <= 10


def test_a_comparison_and_its_runs_in_pandas(play, here: Path):
    told = play("compare.py", "60")
    assert f"report {here}/runs/reports/comparison/report.html" in told
    assert re.search(r"^adam .* 60 .* 3$", told, re.M)
    assert re.search(r"^lion .* 60 .* 3$", told, re.M)
    runs = load_runs("comparison")
    assert [(run.workload, run.optimizer, run.seed, run.step) for run in runs] == [
        ("sine", optimizer, seed, 60) for optimizer in ("adam", "lion") for seed in (0, 1, 2)
    ]
    ends = {run.optimizer: [] for run in runs}
    for run in runs:
        ends[run.optimizer].append(run.evaluations[-1].metrics["validation/loss"])
    told = play("results.py", "comparison", str(here / "runs"))
    for optimizer, values in ends.items():
        (line,) = re.findall(rf"{optimizer} +(\S+) +(\S+) +(\S+) +3$", told, re.M)
        found = [sum(values) / 3, min(values), max(values)]
        assert [float(number) for number in line] == pytest.approx(found, abs=1e-5)
    assert "workload step" in told
    assert play("results.py") == told


def test_a_learned_optimizer_as_a_drop_in(play):
    told = play("learned.py", "100")
    losses = dict(re.findall(r"^(\w+): validation loss (\d\.\d{4})$", told, re.M))
    assert set(losses) == {"adam", "velo"}
    assert all(0 < float(loss) < 0.3 for loss in losses.values())  # 0.41 before training


@pytest.mark.slow
def test_a_study(play, here: Path):
    told = play("study.py", "2", "10")
    assert "study flights_dlrm-adam-sobol-0: 2 complete" in told
    trials = re.findall(r"^ +([01]) (0\.\d+) +0\.\d+ +\d+\.\d+$", told, re.M)
    assert sorted(trial for trial, _ in trials) == ["0", "1"]
    assert float(trials[0][1]) <= float(trials[1][1])
    assert (here / "runs" / "studies.db").exists()


def test_a_suite_of_ones_own(play, here: Path):
    shutil.copytree(EXAMPLES / "suite", here / "suite")
    preset = here / "suite" / "presets" / "flights_dlrm.yaml"
    text = preset.read_text()
    assert "budget: {steps: 100}" in text
    preset.write_text(text.replace("steps: 100", "steps: 20"))
    told = play(str(here / "suite" / "race.py"), "seeds=[0]", "optimizers=[adam,lion]")
    assert re.search(r"^adam +seed 0: loss 0\.\d{4} after 20 updates$", told, re.M)
    assert re.search(r"^lion +seed 0: loss 0\.\d{4} after 20 updates$", told, re.M)
    assert f"report   {here}/runs/reports/mine/report.html" in told
    assert "1 workloads x 2 optimizers x 1 seeds" in told


def test_a_plug_in_package(play, here: Path, monkeypatch: pytest.MonkeyPatch):
    told = play("plugin/timetrial_sine.py", "20")
    assert re.search(r"^sign_momentum .* 20 .* 3$", told, re.M)
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]
    site = here / "site"
    site.mkdir()
    (module,) = project["tool"]["setuptools"]["py-modules"]
    code = (PLUGIN / f"{module}.py").read_text()
    declared = "".join(
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in names.items())
        for group, names in points.items()
    )
    package(site, project["project"]["name"], {module: code}, declared)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, module, raising=False)
    words = re.search(r"timetrial (train .*)", (PLUGIN / "pyproject.toml").read_text())
    assert words is not None
    with pytest.raises(SystemExit) as stopped:
        cli.main(words[1].split())
    assert stopped.value.code in (0, None)
    (run,) = load_runs("timetrial", root=here / "runs")
    assert (run.workload, run.optimizer, run.step) == ("sine", "sign_momentum", 500)
    assert run.config["workload.width"] == "64"
