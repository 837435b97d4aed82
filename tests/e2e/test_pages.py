"""README and docs as a reader follows them: from the installed wheel, in a folder of its own.

Budgets are made tiny. Blocks marked ``checked, not run`` stay out, and the commands in ``NOT_RUN``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import documentation
import pytest
from documentation import ROOT, Line
from wheel import built, copy_sources, environment, install

NOT_RUN = {
    "make test": "this is one of its tests",
    "make install": "needs the network",
    "source .venv/bin/activate": "a setting of the shell",
    "pip install": "needs the network",
}
"""Commands that are not run here, by their beginning, with the reason."""

MAY_FAIL = (  # exit code 1: this machine is busy, or lacks data
    "timetrial doctor",
    "timetrial bench suite=paper-step --plan",
    "timetrial bench suite=paper-time --plan",
)
BROUGHT = {
    "README.md": "from timetrial.optimizers.velo.weights import embedded_weights\n"
    "weights = embedded_weights().meta_params\n",
}
LEFT = {"docs/race-your-optimizer.md": {"runs/reports/quick/report.html": "mine.py:make["}}
"""Text in files that the commands of a page leave."""

STEPS = {"train": 3, "tune": 3}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    wheel = built("wheel", copy_sources(tmp_path_factory.mktemp("source")), folder / "dist")
    return install(wheel, tmp_path_factory.mktemp("installed"))


def tiny(words: list[str]) -> list[str]:
    """The words of a command with a tiny budget; what they choose stays chosen."""
    name, *rest = words
    given = {word.split("=")[0] for word in rest if "=" in word and not word.startswith("-")}
    if name in STEPS and "--plan" not in rest:
        kept = [re.sub(r"^study\.trials=.*", "study.trials=2", word) for word in rest]
        kept = [re.sub(r"^budget\.seconds=.*", "budget.seconds=1", word) for word in kept]
        kept = [word for word in kept if not word.startswith("budget.steps=")]
        timed = "budget.seconds" in given
        return [name, *kept, *([] if timed else [f"budget.steps={STEPS[name]}"])]
    if name == "bench" and "--plan" not in rest:
        workload = "ogbg" if any(word.endswith("-fixture") for word in rest) else "flights_dlrm"
        least = {"workloads": f"[{workload}]", "optimizers": "[adam,heavy_ball]", "seeds": "[0]"}
        return [name, *rest, *(f"{k}={v}" for k, v in least.items() if k not in given)]
    return words


def commands_of_make(words: tuple[str, ...]) -> list[Line]:
    """The commands of timetrial that a target runs."""
    done = subprocess.run(
        ["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = re.findall(r"^\.venv/bin/(timetrial .*)$", done.stdout, re.M)
    assert found, f"{words}: expected a command of timetrial, got {done.stdout}"
    return [Line(tuple(command.split())) for command in found]


def run_line(line: Line, folder: Path, installed: Path) -> None:
    """Runs one command of a page, with tiny budgets."""
    if any(str(line).startswith(beginning) for beginning in NOT_RUN):
        return
    if line.words[0] == "make":
        for command in commands_of_make(line.words):
            run_line(command, folder, installed)
        return
    assert line.words[0] == "timetrial", line
    command = [sys.executable, "-P", "-m", "timetrial", *tiny([*line.words[1:]])]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder, installed)
        | {k: v.replace("~", str(folder)) for k, v in line.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    allowed = (0, 1) if str(line).startswith(MAY_FAIL) else (0,)
    assert done.returncode in allowed, f"{command}: {done.stdout + done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", documentation.pages())
def test_a_page_works_from_top_to_bottom(page: str, tmp_path: Path, installed: Path):
    documentation.write_files(page, tmp_path)
    for block in documentation.blocks(page):
        if block.language == "sh" and not block.reason:
            for line in documentation.command_lines(block):
                run_line(line, tmp_path, installed)
    code = [b.code for b in documentation.blocks(page) if b.language == "python" and not b.reason]
    if code:
        (tmp_path / "page.py").write_text("\n".join([BROUGHT.get(page, ""), *code]))
        run_python(tmp_path, installed, "page.py")
    for path, text in LEFT.get(page, {}).items():
        assert text in (tmp_path / path).read_text()


MARKED = [b for page in documentation.pages() for b in documentation.blocks(page) if b.reason]


@pytest.mark.slow
@pytest.mark.parametrize("block", MARKED, ids=str)
def test_a_block_that_is_not_run_is_listed(block: documentation.Block):
    pytest.skip(f"{block} is checked, not run: {block.reason}")


@pytest.mark.slow
def test_the_notebook_runs_from_the_wheel(tmp_path: Path, installed: Path):
    shutil.copy(ROOT / "tools" / "notebook.py", tmp_path)
    for path in (ROOT / "docs").rglob("*.ipynb"):
        shutil.copy(path, tmp_path)
        run_python(tmp_path, installed, "notebook.py", path.name)


def run_python(folder: Path, installed: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", *words],
        cwd=folder,
        env=environment(folder, installed),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_budgets_become_tiny_and_choices_stay():
    assert tiny(["train", "workload=a", "budget.steps=900"]) == [
        "train",
        "workload=a",
        "budget.steps=3",
    ]
    assert tiny(["train", "budget.seconds=60"]) == ["train", "budget.seconds=1"]
    assert tiny(["bench", "optimizers=[lion]"])[1:3] == [
        "optimizers=[lion]",
        "workloads=[flights_dlrm]",
    ]
    assert tiny(["bench", "--plan"]) == ["bench", "--plan"]
    assert tiny(["tune", "study.trials=20"]) == ["tune", "study.trials=2", "budget.steps=3"]


def test_make_bench_is_a_command_of_timetrial():
    assert commands_of_make(("make", "bench")) == [Line(("timetrial", "bench", "suite=quick"))]
