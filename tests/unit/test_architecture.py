from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("framework", "workloads", "optimizers", "tracking", "bench")
MAY_IMPORT = {
    "framework": {"framework"},
    "workloads": {"workloads", "framework"},
    "optimizers": {"optimizers", "framework"},
    "tracking": {"tracking", "framework"},
    "bench": set(ROOMS),
}
ONLY_IN = {
    "mlflow": ("tracking/",),
    "optuna": ("bench/tune/",),
    "omegaconf": ("framework/config.py",),
    "learned_optimization": ("optimizers/learned_optimization.py", "benchmarks/"),
}
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module).split(".")[0])
    return names


def test_the_rule_sees_the_modules():
    assert len(MODULES) > 25
    assert "omegaconf" in imported(ROOT / "framework/config.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_between_the_rooms_point_down(path: Path):
    relative = path.relative_to(ROOT).as_posix()
    names = imported(path)
    assert names & set(ROOMS) <= MAY_IMPORT[relative.split("/")[0]]
    for package, places in ONLY_IN.items():
        assert package not in names or relative.startswith(places), f"{package} in {relative}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_is_longer_than_400_lines(path: Path):
    assert len(path.read_text().splitlines()) <= 400


def test_help_does_not_wait_for_jax_or_mlflow():
    code = "import sys, bench.cli; bench.cli.parser(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"jax", "mlflow", "pandas", "flax"} & set(loaded)
