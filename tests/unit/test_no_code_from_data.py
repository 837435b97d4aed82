"""Nothing that is read can run: no pickle, eval, shell or unsafe loader in the code that ships."""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from timetrial.bench.schedule import learning_rates
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction, Status

ROOT = Path(__file__).parents[2]
ROOMS = ("framework", "workloads", "optimizers", "tracking", "bench")
MODULES = sorted([p for room in ROOMS for p in (ROOT / room).rglob("*.py")])
MODULES.append(ROOT / "timetrial" / "__init__.py")

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "omegaconf"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "pd.read_pickle", "pandas.read_pickle", "joblib.load"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "torch.load"),
    *("tarfile.extractall", "shutil.unpack_archive"),
}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(source: str) -> Iterator[str]:
    """What code could run something that it reads, as ``line: why``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
            yield from (f"{node.lineno}: import {n}" for n in names if n in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in FORBIDDEN_MODULES:
                yield f"{node.lineno}: from {node.module}"
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            given = {k.arg: k.value for k in node.keywords}
            if name in FORBIDDEN_CALLS or name.endswith((".extractall", ".extract")):
                yield f"{node.lineno}: {name}"
            if isinstance(shell := given.get("shell"), ast.Constant) and shell.value:
                yield f"{node.lineno}: shell=True"
            if isinstance(pickled := given.get("allow_pickle"), ast.Constant) and pickled.value:
                yield f"{node.lineno}: allow_pickle=True"
            if name.endswith("np.load") and "allow_pickle" not in given:
                yield f"{node.lineno}: np.load without allow_pickle=False"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_can_run_what_it_reads(path: Path):
    assert list(offences(path.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "yaml.load(text, yaml.Loader)",
        "yaml.unsafe_load(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "archive.extractall(directory)",
        "import omegaconf",
    ],
)
def test_the_search_finds(line: str):
    assert list(offences(line))


def test_yaml_is_composed_only():
    """The one importer of PyYAML builds no objects: its loader knows texts, lists and mappings."""
    importers = [p for p in MODULES if "import yaml\n" in p.read_text()]
    assert [p.relative_to(ROOT).as_posix() for p in importers] == ["framework/yaml_files.py"]
    assert "yaml.BaseLoader" in importers[0].read_text()


def test_a_recorded_run_cannot_name_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stranger's journal may name a module in the current directory; a report imports none."""
    (tmp_path / "stranger.py").write_text("def make():\n    raise SystemExit('code ran')\n")
    monkeypatch.chdir(tmp_path)
    for names in ({"optimizer": "stranger:make"}, {"workload": "stranger:make"}):
        config = {"workload": "flights_dlrm", "optimizer": "adam", **names}
        run = RunRecord(
            *("id", "flights_dlrm", "x", 0, Condition.STEP, 10.0, "loss", Direction.MINIMIZE),
            *(Status.FINISHED, "", 10, 1.0, (), config),
        )
        assert learning_rates([], [run]).empty
    assert "stranger" not in sys.modules
    run = dataclasses.replace(run, config={"workload": "flights_dlrm", "optimizer": "adam"})
    assert len(learning_rates([], [run])) > 1
