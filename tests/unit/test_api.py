from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import timetrial

SOURCE = ast.parse(Path(timetrial.__file__).read_text())


def typed_names() -> dict[str, str]:
    """Module of each name that type checkers see."""
    (block,) = [node for node in SOURCE.body if isinstance(node, ast.If)]
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_see_the_same_names_from_the_same_rooms():
    lazy = {name: f"timetrial.{home}" for name, home in timetrial._HOME.items()}
    assert typed_names() == lazy
    assert sorted({*lazy, "__version__"}) == timetrial.__all__
    assert (Path(timetrial.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("name", timetrial.__all__)
def test_every_public_name_is_there_and_documented(name: str):
    value = getattr(timetrial, name)
    assert name in dir(timetrial)
    assert isinstance(value, str) or value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'timetrial' has no attribute 'nope'"):
        timetrial.nope  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import timetrial",
        "from timetrial.bench.cli import main; main(['--help'])",
        "from timetrial.bench.cli import main; main(['train', '--help'])",
        "from timetrial.bench.cli import main; main(['--version'])",
    ],
)
def test_heavy_libraries_are_not_loaded(code: str):
    heavy = {"jax", "mlflow", "pandas", "flax", "numpy", "matplotlib", "optuna"}
    code = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
