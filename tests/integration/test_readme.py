"""README and docs/race-your-optimizer.md: code and commands work as printed."""

from __future__ import annotations

import re
import shlex
import sys
import types
from pathlib import Path

import pytest
from tiny import TinyWorkload

import timetrial
from timetrial.bench import cli, suite
from timetrial.bench.listing import describe
from timetrial.bench.tune.settings import load_plan
from timetrial.framework.budget import Budget
from timetrial.framework.entries import Horizon
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.yaml_files import read_yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "race-your-optimizer.md").read_text()


def test_the_optimizer_in_12_lines_is_one_and_trains():
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "Lion" in b]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 12
    module = types.ModuleType("lion")
    sys.modules["lion"] = module  # where dataclasses look their annotations up
    try:
        exec(code, vars(module))
    finally:
        del sys.modules["lion"]
    entry = module.LION
    program = Program(TinyWorkload(), entry.make(entry.settings(0.1), Horizon(50, 50)))
    result = Trainer(program, Budget(steps=50), []).fit(program.init(0))
    losses = [e.metrics["train/loss"] for e in result.evaluations]
    assert losses[-1] < 0.5 * losses[0]


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the README and the page show."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (code, *_) = (b for b in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "def make(" in b)
    (space,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "space.yaml").write_text(space)
    return tmp_path


@pytest.mark.parametrize("line", re.findall(r"^timetrial train .*$", README, re.M))
def test_the_commands_are_understood(line: str, own_file: Path):
    words = shlex.split(line)[2:]
    assert suite.load_run(words).workload.name in README


def commands_of_the_page() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    return [shlex.split(line)[1:] for block in blocks for line in block.strip().splitlines()]


def test_the_commands_of_the_page_are_understood(own_file: Path):
    read = {
        "list": lambda words: describe(*words),
        "train": suite.load_run,
        "tune": load_plan,
        "bench": suite.load_suite,
        "check": suite.load_run,
    }
    commands = commands_of_the_page()
    assert [name for name, *_ in commands] == ["list", "train", "check", "tune", "bench"]
    for name, *words in commands:
        assert read[name]([*words, *["workload=flights_dlrm"] * (name == "check")])


@pytest.mark.slow
def test_the_commands_of_the_page_lead_to_a_report(
    own_file: Path, capsys: pytest.CaptureFixture[str]
):
    for words in commands_of_the_page():
        with pytest.raises(SystemExit) as stopped:
            cli.main(words)
        assert stopped.value.code in (0, None), words
    told = capsys.readouterr().out
    assert "all checks passed" in told
    assert f"report   {own_file}/runs/reports/quick/report.html" in told
    assert "mine.py:make[" in (own_file / "runs/reports/quick/report.html").read_text()


def test_the_links_of_the_page_exist():
    links = re.findall(r"\]\((?!http)([^)]+)\)", PAGE)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_the_pictures_and_files_it_links_exist():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert len(links) >= 4
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_it_names_every_make_target_it_uses_and_stays_short():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.M), target
    assert len(README.splitlines()) <= 120
    assert cli.parser().prog == "timetrial"


def test_the_citation_names_this_version_and_the_paper():
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == timetrial.__version__
    assert citation["license"] == "Apache-2.0"
    assert {"message", "title", "authors"} <= set(citation)
    (paper,) = citation["references"]
    assert paper["url"] in README
    assert "](CITATION.cff)" in README
