"""README and docs: every block is known, every command is taken by the program, Python runs.

``e2e/test_pages.py`` runs the commands themselves, from the wheel.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import documentation
import pytest
from documentation import LANGUAGES, ROOT, Block, Line

from timetrial.bench import cli, hosts
from timetrial.bench.commands import COMMANDS
from timetrial.bench.doctor import command as doctor
from timetrial.framework.errors import UserError

sys.path.insert(0, str(ROOT / "tools"))

import notebook

PAGES = documentation.pages()
ALL = [block for page in PAGES for block in documentation.blocks(page)]
SHELL = {"source", "make", "pip", "python", "timetrial"}

BROUGHT = {  # names that a page takes from its reader
    "README.md": "from timetrial.optimizers.velo.weights import embedded_weights\n"
    "weights = embedded_weights().meta_params\n",
}
MISSING = (
    r"pools/h100\.yaml",
    r"expected a prepared data set",
    r"got a machine with 0 GPUs",
    r"make it with: timetrial calibrate ",
    r"launcher=ray: expected the package ray",
)
"""Errors of commands in marked blocks for want of what they have elsewhere: the last check."""

TRAINS = re.compile(r"\b(train|compare)\(|tx\.init\(")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a checkout, on a machine that is idle."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(doctor, "require_idle", lambda: None)
    monkeypatch.setattr(hosts, "join", lambda settings: None)
    preset = (ROOT / "bench/presets/quick/flights_dlrm.yaml").read_text()
    (tmp_path / "tuned.yaml").write_text(f"{preset}\noptimizer: adam\n")  # as docs/hpo.md exports
    return tmp_path


@pytest.mark.parametrize("block", ALL, ids=str)
def test_its_language_is_known_and_a_mark_gives_a_reason(block: Block):
    assert block.language in LANGUAGES
    assert not block.reason or (block.language == "sh" and len(block.reason) > 3)


def test_blocks_that_are_not_run_are_listed(capsys: pytest.CaptureFixture[str]):
    marked = [block for block in ALL if block.reason]
    code = [block for block in ALL if block.language != "text"]
    with capsys.disabled():
        print(f"\n{len(code)} blocks of code and files, {len(marked)} of them checked, not run:")
        for block in marked:
            print(f"  {block}: {block.reason}")
    assert len(code) > 45
    assert len(marked) < len(code) / 2


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_taken_by_the_real_program(page: str, folder: Path):
    documentation.write_files(page, folder)
    for block in documentation.blocks(page):
        if block.language == "sh":
            for line in documentation.command_lines(block):
                check(line, f"{block}: {line}", marked=bool(block.reason))


def check(line: Line, where: str, *, marked: bool = False) -> None:
    """Raises unless the program that a line names would begin with it."""
    program, *words = line.words
    assert program in SHELL, where
    with pytest.MonkeyPatch.context() as patch:
        for name, value in line.environment:
            patch.setenv(name, value)
        {
            "timetrial": partial(check_timetrial, marked=marked),
            "make": check_make,
            "python": check_module,
            "pip": check_pip,
            "source": lambda words, where: None,
        }[program](words, where)


def check_timetrial(words: list[str], where: str, *, marked: bool = False) -> None:
    """Parses and prepares a command; its job, which would run, is thrown away."""
    if words == ["--version"]:
        return
    options = cli._parsed(words)
    try:
        job = options.command.prepare(options)
    except UserError as error:
        if not marked or not any(re.search(text, str(error)) for text in MISSING):
            pytest.fail(f"{where}: {error}")
        return
    assert callable(job), where


def check_make(words: list[str], where: str) -> None:
    """Lets make print what it would run; checks the commands of timetrial in it."""
    done = subprocess.run(
        ["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{where}: {done.stderr}"
    for found in re.findall(r"^\.venv/bin/timetrial (.*)$", done.stdout, re.M):
        check_timetrial(found.split(), where)


def check_module(words: list[str], where: str) -> None:
    """Parses ``python -m benchmarks.NAME ...`` with its own parser."""
    assert words[0] == "-m", where

    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *arguments: object) -> None:
        parse(self, *arguments)  # type: ignore[arg-type]
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", words[1:])
        with pytest.raises(ParsedError):
            importlib.import_module(words[1]).main(words[2:])


def check_pip(words: list[str], where: str) -> None:
    """Extras of this package exist; other packages are somebody else's."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert words[0] == "install", where
    for word in words[1:]:
        named = re.fullmatch(r"(?:timetrial|\.)\[([\w,]+)\]", word)
        assert named is None or set(named.group(1).split(",")) <= set(extras), where


def test_extras_that_the_text_names_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    named = re.findall(r"pip install '?(?:timetrial|\.)\[([\w,]+)\]", text)
    assert named
    assert {extra for group in named for extra in group.split(",")} <= set(extras)


def inline_commands() -> Iterator[tuple[str, str]]:
    """Commands of the program in running text, with their page."""
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S)
        for found in re.findall(r"`(?:[A-Z_]+=\S+ )?timetrial ([^`]+)`", text):
            yield page, " ".join(found.split())


def test_commands_in_the_text_exist_with_their_options():
    parsers = {
        name: sub
        for action in cli.parser()._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, sub in action.choices.items()
    }
    found = list(inline_commands())
    assert len(found) > 40
    for page, text in found:
        name, *words = text.split()
        for one in name.split("|"):
            if re.fullmatch(r"[a-z]+", one):
                assert one in COMMANDS, f"{page}: timetrial {text}"
                for option in (word.split("=")[0] for word in words if word.startswith("--")):
                    assert option in parsers[one]._option_string_actions, f"{page}: {text}"


def python_of(page: str) -> str:
    return "".join(b.code for b in documentation.blocks(page) if b.language == "python")


QUICK = [page for page in PAGES if python_of(page) and not TRAINS.search(python_of(page))]
"""Pages whose code trains nothing; e2e/test_pages.py runs that of all pages."""


@pytest.mark.parametrize("page", QUICK)
def test_its_python_runs_from_top_to_bottom(page: str, folder: Path):
    names: dict[str, object] = {"__name__": "page"}
    sys.modules["page"] = type(sys)("page")  # where dataclasses look their annotations up
    exec(BROUGHT.get(page, ""), names)
    for block in documentation.blocks(page):
        if block.language == "python":
            lines = "\n" * block.line  # so that a traceback names the line of the page
            exec(compile(lines + block.code, page, "exec"), names)
    del sys.modules["page"]


NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_its_stored_results_are_of_this_code(path: Path, folder: Path):
    cells = notebook.cells(path)
    made = notebook.run(cells, folder)
    stored = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    assert [kinds(outputs) for outputs in made] == [kinds(outputs) for outputs in stored]
    assert (folder / "runs" / "mlflow.db").exists()


def kinds(outputs: list[dict[str, object]]) -> list[object]:
    return [(o["output_type"], sorted(dict(o.get("data") or {}))) for o in outputs]  # type: ignore[call-overload]


def test_a_cell_that_raises_is_named(tmp_path: Path):
    cell = {"cell_type": "code", "id": "wrong", "source": ["1 / 0"]}
    with pytest.raises(RuntimeError, match=r"cell wrong raised ZeroDivisionError"):
        notebook.run([cell], tmp_path)
    assert Path.cwd() != tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```sh\nls\n", "never closed"),
        ("Text.\n\n    indented code\n", "indented block"),
    ],
)
def test_a_block_that_is_no_fence_is_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        documentation.blocks("page.md", text)


def test_wrong_commands_are_found(folder: Path):
    for words in (
        ("timetrial", "train", "workload=flights_dlrm", "optimizer=adan"),
        ("timetrial", "bench", "--plam"),
        ("make", "nothing-of-the-kind"),
        ("pip", "install", "timetrial[dat]"),
        ("sl",),
    ):
        with pytest.raises((AssertionError, UserError, pytest.fail.Exception)):
            check(Line(words), "here")


def test_marks_files_and_continued_lines_are_read():
    text = (
        "Here in `mine.py`:\n\n```python\nx = 1\n```\n\n"
        "<!-- checked, not run: a GPU -->\n```sh\nA=1 timetrial bench \\\n  --plan  # now\n```\n"
    )
    file, command = documentation.blocks("page.md", text)
    assert (file.file, file.reason, command.reason) == ("mine.py", "", "a GPU")
    (line,) = documentation.command_lines(command)
    assert line == Line(("timetrial", "bench", "--plan"), (("A", "1"),))
    assert os.environ.get("A") != "1"


@pytest.mark.parametrize("page", PAGES)
def test_no_code_in_a_table_holds_a_bar(page: str):
    """GitHub ends the cell there; with a backslash the site shows the backslash."""
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| ")]
    assert [row for row in rows if any("|" in code for code in row.split("`")[1::2])] == []
