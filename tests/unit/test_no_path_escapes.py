"""Names from files and words stay names: nothing is written outside ``tracking.root``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timetrial.bench.metatrain import config as metatraining
from timetrial.bench.suite import load_suite
from timetrial.bench.tune.settings import load_plan
from timetrial.framework.errors import UserError
from timetrial.framework.paths import is_file_name
from timetrial.tracking.record.journal import RunHeader
from timetrial.tracking.record.schema import REQUIRED_TAGS
from timetrial.tracking.record.tracker import start_run
from timetrial.workloads.data import embedded_data
from timetrial.workloads.data.prepared import MANIFEST, load_manifest

NAMES = ("..", ".", "../x", "a/../../x", "/etc/x", "a/b", "", "x\0y")


def test_names_of_files():
    assert not any(map(is_file_name, NAMES))
    assert all(map(is_file_name, ("a", "..a", "a b", "ä.yaml", "a-1")))


@pytest.mark.parametrize("name", NAMES)
def test_names_in_words_are_refused(name: str):
    run = ["workload=flights_dlrm", "optimizer=adam"]
    for read in (
        lambda: load_plan([*run, f"study.name={name or chr(39) * 2}/"]),
        lambda: load_plan([*run, "study.trials=2", f"study.name={name or '.'}"]),
        lambda: load_suite([f"name={name}"]),
        lambda: metatraining.read([f"name={name}"]),
    ):
        with pytest.raises(UserError, match="name"):
            read()


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_file_cannot_name_another_place(tmp_path: Path, name: str):
    file = tmp_path / "own.yaml"
    file.write_text(f"name: {name!r}\nsummary: x\npresets: quick\nworkloads: [flights_dlrm]\n")
    with pytest.raises(UserError, match=r"name: expected|not valid YAML|own\.yaml"):
        load_suite([f"suite={file}"])


@pytest.mark.parametrize("name", [*NAMES, "a" * 5000, "字" * 300, "x\ny", "~", "-rf *"])
def test_journals_lie_in_their_directory_whatever_the_run_is_called(tmp_path: Path, name: str):
    tags = dict.fromkeys(REQUIRED_TAGS, name)
    run = start_run(tmp_path / "journals", RunHeader(name, name, tags))
    assert [path.parent for path in tmp_path.rglob("*.jsonl")] == [tmp_path / "journals"]
    assert run.path.exists()


@pytest.mark.parametrize("name", NAMES)
def test_manifests_name_files_beside_them(tmp_path: Path, name: str):
    shard = {"file": name, "examples": 1, "bytes": 1, "sha256": "00"}
    tree = {"name": "x", "splits": {"train": [shard]}, "settings": {}, "skipped": [], "sample": 0}
    (tmp_path / MANIFEST).write_text(json.dumps({**tree, "y": {**shard}}))
    with pytest.raises(UserError, match="expected the name of a file"):
        load_manifest(".", tmp_path)
    with pytest.raises(UserError, match="the name of a file"):
        embedded_data.load("y", tmp_path)
