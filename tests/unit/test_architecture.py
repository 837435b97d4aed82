from __future__ import annotations

import ast
import re
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
    "mlflow": ("tracking/store/", "tracking/read/"),
    "optuna": ("bench/tune/",),
    "yaml": ("framework/yaml_files.py",),
    "ray": ("bench/launch/ray",),
    "submitit": ("bench/launch/slurm",),
    "learned_optimization": ("optimizers/adapters/", "benchmarks/"),
}
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
EVERYTHING = [
    *MODULES,
    *(path for room in ("tests", "tools", "benchmarks") for path in (ROOT / room).rglob("*.py")),
]


def imported(path: Path) -> list[str]:
    """Every module that a file imports, dotted; ``from a import b`` counts as ``a.b``."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def rooms_of(names: list[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("timetrial.")} & set(ROOMS)


def test_the_rule_sees_the_modules():
    assert len(MODULES) > 25
    assert "yaml" in imported(ROOT / "framework/yaml_files.py")
    names = imported(ROOT / "bench/experiment.py") + imported(ROOT / "bench/workshop.py")
    assert rooms_of(names) == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_the_package_links_every_room(room: str):
    link = ROOT / "timetrial" / room
    assert link.is_symlink()
    assert link.resolve() == ROOT / room
    assert not link.readlink().is_absolute()


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_a_room_by_its_bare_name(path: Path):
    bare = [name for name in imported(path) if name.split(".")[0] in ROOMS]
    assert not bare, f"{path}: expected timetrial.{bare[0]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_between_the_rooms_point_down(path: Path):
    relative = path.relative_to(ROOT).as_posix()
    names = imported(path)
    assert rooms_of(names) <= MAY_IMPORT[relative.split("/")[0]]
    packages = {name.split(".")[0] for name in names}
    for package, places in ONLY_IN.items():
        assert package not in packages or relative.startswith(places), f"{package} in {relative}"


OPTIMIZERS_MAY_IMPORT = {
    "weights": ("weights",),
    "velo/tiling": ("velo.tiling",),
    "velo/weights": ("velo.weights", "velo.layout", "weights"),
    "velo": ("velo", "weights", "calls"),
    "celo": ("celo", "velo", "weights", "calls"),
    "celo2": ("celo2", "velo.tiling", "weights", "settings", "calls"),
    "metatraining": ("metatraining", "velo", "celo2", "weights"),
    "adapters": ("adapters",),
}


@pytest.mark.parametrize("folder", OPTIMIZERS_MAY_IMPORT)
def test_arrows_between_the_parts_of_optimizers_point_down(folder: str):
    """Weights know names and shapes only, tiles know no optimizer, VeLO no meta-training."""
    place = ROOT / "optimizers" / folder
    inner = [place / "tiling", place / "weights"]
    paths = [path for path in place.rglob("*.py") if path.parent not in inner]
    assert paths
    for path in paths:
        for name in imported(path):
            part = name.removeprefix("timetrial.optimizers.")
            allowed = tuple(f"{one}." for one in OPTIMIZERS_MAY_IMPORT[folder])
            assert part == name or f"{part}.".startswith(allowed), f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_is_longer_than_400_lines(path: Path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_fit_a_screen(path: Path):
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    }
    assert {name: lines for name, lines in long.items() if lines > 50} == {}


PARTS = (
    *("framework", "workloads", "optimizers", "bench"),
    *(f"tracking/{part}" for part in ("record", "store", "read", "scores", "report")),
)


def part_of(path: str) -> str | None:
    return next((part for part in PARTS if f"{path}/".startswith(f"{part}/")), None)


def test_the_picture_in_contributing_shows_the_arrows_there_are():
    found = set()
    for path in MODULES:
        here = part_of(path.relative_to(ROOT).as_posix())
        for name in imported(path):
            there = part_of(name.removeprefix("timetrial.").replace(".", "/"))
            if name.startswith("timetrial.") and here and there and here != there:
                found.add((here, there))
    assert {(here, "framework") for here in PARTS if here != "framework"} <= found
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (picture,) = re.findall(r"```mermaid\n(.*?)```", text, re.S)
    labels = dict(re.findall(r"(\w+)\[([\w/]+)\]", picture))
    drawn = {
        (labels.get(one, one), labels.get(other, other))
        for one, other in re.findall(r"(\w+)(?:\[[\w/]+\])? --> (\w+)", picture)
    }
    assert drawn == {
        (here, there) for here, there in found if there != "framework" and here != "bench"
    }
    assert set(re.findall(r"^    (\w+)$", picture, re.M)) | set(labels.values()) == set(PARTS)
    diagram = (ROOT / "docs" / "architecture.svg").read_text()  # the same, for the site
    shown = re.findall(r'data-arrow="(\w+) --> (\w+)"', diagram)
    assert {(labels.get(one, one), labels.get(other, other)) for one, other in shown} == drawn
    assert {name.split("/")[-1] for name in PARTS} <= set(re.findall(r">(\w+)</text>", diagram))


def test_help_does_not_wait_for_jax_or_mlflow():
    code = "import sys, timetrial.bench.cli; timetrial.bench.cli.parser(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"jax", "mlflow", "pandas", "flax"} & set(loaded)


def test_lists_do_not_wait_for_tables_or_transforms():
    code = "import sys, timetrial.bench.listing; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"mlflow", "pandas", "matplotlib", "scipy.fft", "optuna"} & set(loaded)
