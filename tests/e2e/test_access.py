"""``tools/access.py``: axe-core finds nothing grave on a report, which works with a keyboard."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from race import race, rates, study

from timetrial.tracking.report import ReportOptions, write_paper_report, write_report
from timetrial.tracking.scores.resampling import Bootstrap

TOOLS = Path(__file__).parents[2] / "tools"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (os.environ.get("CHROMIUM") or any(map(shutil.which, BROWSERS))),
        reason="needs Chromium",
    ),
]
needs_axe = pytest.mark.skipif(
    not (os.environ.get("AXE") or shutil.which("npm")), reason="needs npm, to fetch axe-core"
)


@pytest.fixture(scope="module")
def access() -> ModuleType:
    """The tool."""
    sys.path.insert(0, str(TOOLS))
    spec = importlib.util.spec_from_file_location("access", TOOLS / "access.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a race with every section, and one of the paper's tables."""
    folder = tmp_path_factory.mktemp("reports")
    few = ReportOptions(rates=rates(), bootstrap=Bootstrap(samples=50))
    write_report([*race(), *study()], folder / "race", few)
    write_paper_report(folder / "paper", few)
    return folder


@needs_axe
def test_axe_finds_nothing_grave_wide_or_narrow_light_or_dark(access: ModuleType, folder: Path):
    pages = [folder / "race" / "report.html", folder / "paper" / "report.html"]
    found = dict(access.found_on(pages))
    assert len(found) == 8
    assert {name: list(map(access.told, rules)) for name, rules in found.items() if rules} == {}


@needs_axe
def test_the_tool_finds_what_is_wrong(
    access: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "bad.html").write_text(
        "<!DOCTYPE html><html><head><title>Bad</title><style>"
        "@media (prefers-color-scheme: dark) { p { color: #eee } } body { background: #fff }"
        "</style></head><body><main><h1>Bad</h1><details><summary>More</summary>"
        "<p>faint in the dark</p></details><img src='x.png'></main></body></html>"
    )
    monkeypatch.setattr(sys, "argv", ["access", str(tmp_path / "bad.html")])
    assert access.main() == 1
    told = capsys.readouterr().out
    assert told.count("critical: image-alt") == 4
    assert told.count("serious: html-has-lang") == 4
    assert told.count("serious: color-contrast") == 2
    assert "10 serious or critical violations on 1 pages" in told


def test_a_page_that_is_not_there_is_no_page_without_violations(
    access: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["access", "nowhere.html"])
    with pytest.raises(SystemExit) as stopped:
        access.main()
    assert stopped.value.code == 2
    assert "expected HTML files, found none at nowhere.html" in capsys.readouterr().err


@pytest.fixture
def page(access: ModuleType, folder: Path):
    """The race's report in a browser."""
    with access.Page((1280, 900)) as page:
        page.open((folder / "race" / "report.html").as_uri())
        yield page


def focused(page: Any) -> dict[str, str]:
    """What has the focus: element, text, and where it leads."""
    found = page.run(
        "(at => JSON.stringify({tag: at.tagName.toLowerCase(), text: at.textContent.trim(),"
        " href: at.getAttribute('href') || '', role: at.getAttribute('role') || '',"
        " outline: getComputedStyle(at).outlineStyle}))(document.activeElement)"
    )
    return dict(json.loads(found))


def test_the_keyboard_reaches_everything_in_the_order_of_reading(page: Any):
    page.press("Tab")
    assert focused(page)["href"] == "#content"
    page.press("Enter")
    assert page.run("document.activeElement.id") == "content"
    seen: list[dict[str, str]] = []
    while len(seen) < 400:
        page.press("Tab")
        here = focused(page)
        if here["tag"] == "body":
            break
        seen.append(here)
        assert here["outline"] != "none", here
    expected = page.run(
        '[...document.querySelectorAll(\'main a, main button, main summary, main [tabindex="0"],'
        " footer summary')].filter(e => e.checkVisibility()).length"
    )
    assert len(seen) == expected > 30
    order = page.run("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))")
    assert [one["href"] for one in seen if one["href"] in order] == order
    assert seen[-1]["text"] == "All files of this report"


def test_arrow_keys_read_the_points_of_a_plot(page: Any):
    page.run("document.querySelector('svg[data-points]').focus()")
    assert focused(page)["role"] == "application"
    told = "document.querySelector('.tip').textContent"
    page.press("ArrowRight")
    last = page.run(told)
    page.press("ArrowLeft")
    before = page.run(told)
    page.press("ArrowDown")
    other = page.run(told)
    assert len({last, before, other}) == 3
    names = page.run(
        "JSON.parse(document.querySelector('svg[data-points]').dataset.points)"
        ".series.map(one => one.name)"
    )
    assert [last.startswith(names[0]), before.startswith(names[0])] == [True, True]
    assert other.startswith(names[1])
    page.press("Escape")
    assert page.run("getComputedStyle(document.querySelector('.tip')).display") == "none"


def test_the_legend_says_what_is_hidden(page: Any):
    page.run("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    page.run("document.querySelector('[data-toggle]').focus()")
    slug = page.run("document.activeElement.dataset.toggle")
    page.press("Enter")
    assert page.run("document.activeElement.getAttribute('aria-pressed')") == "false"
    lines = (
        f"[...document.querySelectorAll('[data-series=\"{slug}\"]')]"
        ".map(line => getComputedStyle(line).display)"
    )
    shown = page.run(lines)
    assert shown == ["none"] * len(shown) != []
    page.press("Enter")
    assert page.run(lines) == ["inline"] * len(shown)
