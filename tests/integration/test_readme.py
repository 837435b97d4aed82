"""README and the optimizer of docs/race-your-optimizer.md; test_documentation.py has all blocks."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

from tiny import TinyWorkload

import timetrial
from timetrial.bench import cli
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
