"""The README's pictures show the weights and presets of this code, and are drawn by it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from timetrial.bench import suite as suites

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import pictures  # noqa: E402

RENEW = "the README's pictures are older than the code: make pictures"


@pytest.fixture
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs" / pictures.RECORD).read_text())
    return found


def test_the_pictures_show_todays_weights_suite_presets_and_page(record: dict[str, Any]):
    assert {key: record[key] for key in record if key != "pictures"} == pictures.shown(), RENEW


def test_changed_drawing_code_changes_the_record_and_docstrings_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = pictures.shown()["code"]
    shutil.copytree(ROOT / "tracking", tmp_path / "tracking")
    monkeypatch.setattr(pictures, "_TRACKING", tmp_path / "tracking")
    plots = tmp_path / "tracking" / "report" / "plots.py"
    text = plots.read_text()
    plots.write_text(f'"""Another docstring."""\n# a remark\n{text.split(chr(34) * 3, 2)[2]}')
    assert pictures.shown()["code"] == before
    plots.write_text(f"{text}\nWIDTH = 7\n")
    assert pictures.shown()["code"] != before
    plots.write_text(text)
    page = tmp_path / "tracking" / "report" / "page.css"
    page.write_text(page.read_text().replace("px", "em"))
    assert pictures.shown()["code"] != before


def test_no_picture_was_replaced_alone(record: dict[str, Any]):
    assert record["pictures"] == pictures.made(ROOT / "docs"), RENEW


def test_the_readme_shows_the_one_that_answers_the_question():
    text = (ROOT / "README.md").read_text()
    assert re.findall(r"!\[[^\]]+\]\(docs/(.*?)\)", text) == [pictures.PICTURES[0]]
    assert "\npictures: " in (ROOT / "Makefile").read_text()


def test_changed_presets_change_the_record_and_comments_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = pictures.shown()
    for name in ("presets", "suites"):
        shutil.copytree(ROOT / "bench" / name, tmp_path / name)
    monkeypatch.setattr(suites, "PRESETS_DIRECTORY", tmp_path / "presets")
    monkeypatch.setattr(suites, "SUITES_DIRECTORY", tmp_path / "suites")
    preset = tmp_path / "presets" / "quick" / "flights_dlrm.yaml"
    text = preset.read_text()
    preset.write_text(f"# a remark\n{text}\n")
    assert pictures.shown() == before
    preset.write_text(text.replace("steps: 200", "steps: 201"))
    changed = pictures.shown()
    assert {key for key in changed if changed[key] != before[key]} == {"presets"}
    moved = {key for key, value in changed["presets"].items() if value != before["presets"][key]}
    assert moved == {"quick/flights_dlrm"}
    preset.write_text(text)
    suite = tmp_path / "suites" / "quick.yaml"
    suite.write_text(suite.read_text().replace("[0, 1, 2]", "[0, 1]"))
    assert pictures.shown()["suite"] != before["suite"]
