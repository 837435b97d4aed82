"""The documentation as a site: complete, without broken links, readable from the disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import timetrial

ROOT = Path(__file__).parents[2]
SOURCES = (
    "mkdocs.yml",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs",
    "tools",
    "examples",
)
ROOMS = ("bench", "framework", "optimizers", "tracking", "workloads", "timetrial")


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Builds the site as ``make docs`` does."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=source,
        env=os.environ | {"PYTHONPATH": str(source), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_reader_needs_no_network(site: Path):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="([^"]+)"', text)
        assert [link for link in loaded if re.match(r"https?:|//", link)] == [], page
    for style in site.rglob("*.css"):
        assert re.findall(r"@import|url\(['\"]?(?:https?:)?//", style.read_text()) == [], style
    index = (site / "search" / "search_index.js").read_text()
    assert index.startswith("var __index = ")
    assert "performance profile" in index.lower()


def test_links_lead_to_files_not_directories(site: Path):
    for page in site.glob("*.html"):
        if page.name == "404.html":  # a server's own, with absolute links
            continue
        for link in re.findall(r'href="([^"#?]+)', page.read_text()):
            if not re.match(r"\w+:", link):
                assert (page.parent / link).resolve().is_file(), f"{page.name}: {link}"


def test_every_public_name_has_its_place_in_the_reference(site: Path):
    text = (site / "api.html").read_text()
    names = [name for name in timetrial.__all__ if name != "__version__"]
    missing = [name for name in names if f'id="timetrial.{name}"' not in text]
    assert missing == []
    assert "timetrial.__version__" in text


def test_help_changes_and_the_notebook_are_pages(site: Path):
    commands = (site / "commands.html").read_text()
    assert 'id="timetrial-metatrain"' in commands
    assert "timetrial bench --plan" in re.sub(r"<[^>]+>", "", commands)
    assert not re.search(r"/timetrial (?:train|bench|list)", re.sub(r"<[^>]+>", "", commands))
    assert "What's new" in (site / "whats-new.html").read_text()
    assert 'class="output"' in (site / "notebook.html").read_text()
    assert (site / "source" / "examples" / "compare.py").read_bytes() == (
        ROOT / "examples" / "compare.py"
    ).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[gone](no-such-page.md)", "no-such-page.md"),
        ("[gone](start.md#no-such-place)", "no-such-place"),
        ("[gone](../examples/no_such_file.py)", "no_such_file.py"),
        ("::: timetrial.NoSuchName", "NoSuchName"),
        ("[gone][timetrial.framework.nothing]", "timetrial.framework.nothing"),
    ],
)
def test_a_broken_link_or_reference_fails(line: str, message: str, tmp_path: Path):
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for name in ROOMS:
        (tmp_path / name).symlink_to(ROOT / name)
    page = tmp_path / "docs" / "api.md"
    page.write_text(f"{page.read_text()}\n{line}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
