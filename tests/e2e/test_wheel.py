"""The wheel: its contents, and its commands without a checkout."""

from __future__ import annotations

import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from wheel import ROOMS, ROOT, built, copy_sources, install, run

ALSO = {"timetrial/__init__.py", "timetrial/__main__.py", "timetrial/py.typed"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", source, tmp_path_factory.mktemp("wheel") / "dist")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("installed"))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_holds_the_package_and_nothing_else(wheel: Path, source: Path):
    assert {name.split("/")[0].split("-")[0] for name in names(wheel)} == {"timetrial"}
    packaged = {name for name in names(wheel) if name.startswith("timetrial/")}
    files = [path for room in ROOMS for path in (source / room).rglob("*") if path.is_file()]
    assert packaged == {f"timetrial/{path.relative_to(source)}" for path in files} | ALSO


def test_a_wheel_made_from_the_sdist_has_the_same_files(wheel: Path, source: Path, tmp_path: Path):
    with tarfile.open(built("sdist", source, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = built("wheel", unpacked, tmp_path / "again")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        records = [
            archive.read(name)
            for archive in (one, other)
            for name in archive.namelist()
            if name.endswith("/RECORD")
        ]
    assert names(again) == names(wheel)
    assert records[0] == records[1]


def timetrial(installed: Path, cwd: Path, *words: str) -> str:
    return run([sys.executable, "-P", "-m", "timetrial", *words], cwd, installed)


@pytest.mark.slow
def test_its_commands_work_from_another_folder(installed: Path, tmp_path: Path):
    assert f"from {installed}/timetrial " in timetrial(installed, tmp_path, "--version")
    assert "flights_dlrm" in timetrial(installed, tmp_path, "list")
    plan = timetrial(installed, tmp_path, "bench", "--plan")
    assert "flights_dlrm heavy_ball seed 2" in plan
    assert [path.name for path in tmp_path.iterdir() if path.name == "runs"] == []
    report = timetrial(installed, tmp_path, "report", "--paper")
    assert str(tmp_path / "runs/reports/paper/report.html") in report
    words = ["train", "workload=flights_dlrm", "optimizer=nesterov", "budget.steps=20"]
    assert "validation/loss" in timetrial(installed, tmp_path, *words)
    assert (tmp_path / "runs" / "mlflow.db").exists()


def test_the_example_runs_where_there_is_no_checkout(installed: Path, tmp_path: Path):
    shutil.copy(ROOT / "examples" / "compare.py", tmp_path)
    printed = run([sys.executable, "-P", "compare.py", "20"], tmp_path, installed)
    assert "runs/reports/comparison/report.html" in printed
    assert (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.slow
def test_it_installs_with_all_dependencies_into_an_empty_environment(wheel: Path, tmp_path: Path):
    run([sys.executable, "-m", "venv", "venv"], tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], tmp_path)
    program = str(tmp_path / "venv" / "bin" / "timetrial")
    assert f"from {tmp_path}/venv/" in run([program, "--version"], tmp_path)
    assert "flights_dlrm" in run([program, "list"], tmp_path)
    assert "heavy_ball" in run([program, "bench", "--plan"], tmp_path)
    assert "report.html" in run([program, "report", "--paper"], tmp_path)
    words = ["train", "workload=flights_dlrm", "optimizer=adam", "budget.steps=20"]
    printed = run([program, *words], tmp_path)
    assert "venv/bin/timetrial ui" in printed
    shutil.copy(ROOT / "examples" / "learned.py", tmp_path)
    assert "velo: validation loss" in run([str(python), "learned.py", "50"], tmp_path)
