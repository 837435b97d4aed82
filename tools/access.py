"""Checks HTML pages for people with a keyboard or a screen reader: ``make access``.

Boundary: build time only; runs axe-core (https://github.com/dequelabs/axe-core) in Chromium on each
page, wide and narrow, light and dark, with everything unfolded, and prints what it finds::

    python tools/access.py runs/reports/quick/report.html site/index.html

axe-core comes from npm, once, into ``build/axe-core``; ``AXE=FILE`` names another copy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from browser import Page, browser

VERSION: Final = "4.14.1"
"""Version of axe-core, pinned: other versions have other rules."""

SIZES: Final = {1280: 900, 390: 844}
"""Height by width of the windows, in pixels."""

GRAVE: Final = ("serious", "critical")
"""Impacts that fail the check."""

ROOT: Final = Path(__file__).parents[1]
_SCRIPT: Final = ROOT / "build" / "axe-core" / VERSION / "axe.min.js"
_UNFOLD: Final = "document.querySelectorAll('details').forEach(fold => { fold.open = true; })"
_FLAT: Final = (  # axe-core judges no contrast on a gradient, and none in mid-change
    "document.head.appendChild(document.createElement('style')).textContent = "
    "'* { background-image: none !important; transition: none !important }'"
)
_RUN: Final = (
    "axe.run(document, {resultTypes: ['violations']}).then(found => JSON.stringify("
    "found.violations.map(rule => ({id: rule.id, impact: rule.impact, help: rule.help, "
    "nodes: rule.nodes.map(node => ({target: node.target.join(' '), why: node.failureSummary}))}"
    "))))"
)


def axe() -> Path:
    """Path of axe-core's script: ``$AXE``, else from npm; exits if there is neither."""
    if given := os.environ.get("AXE"):
        return Path(given)
    if _SCRIPT.exists():
        return _SCRIPT
    if shutil.which("npm") is None:
        sys.exit("access: expected npm on PATH, to fetch axe-core, or AXE=FILE")
    _SCRIPT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        words = ["npm", "pack", "--silent", f"axe-core@{VERSION}", "--pack-destination", temporary]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(temporary).glob("*.tgz"))) as archive:
            script = archive.extractfile("package/axe.min.js")
            assert script is not None
            _SCRIPT.write_bytes(script.read())
    return _SCRIPT


def found_on(pages: Sequence[Path]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Name of each page and view, and what axe-core finds there: rules with their elements."""
    script = axe().read_text()
    for width, height in SIZES.items():
        with Page((width, height)) as page:
            for path in pages:
                for dark in (False, True):
                    page.view((width, height), dark=dark)
                    page.open(path.absolute().as_uri())
                    page.run(_UNFOLD)
                    page.run(_FLAT)
                    page.run(f"{script}; true")
                    answer = page.run(_RUN)
                    if answer is None:
                        raise RuntimeError(f"{path}: axe-core failed")
                    yield f"{path}, {width} wide, {'dark' if dark else 'light'}", json.loads(answer)
                    page.open("about:blank#", until="true")


def is_grave(rule: Mapping[str, Any]) -> bool:
    """True for a violation that shuts somebody out."""
    return rule["impact"] in GRAVE


def told(rule: Mapping[str, Any], most: int = 5) -> str:
    """A violation in words, with its first few elements."""
    nodes = rule["nodes"]
    lines = [f"  {rule['impact']}: {rule['id']}, {rule['help']} ({len(nodes)} elements)"]
    for node in nodes[:most]:
        why = " ".join(str(node["why"]).split())
        lines.append(f"    {node['target']}: {why}")
    return "\n".join(lines)


def main() -> int:
    """Checks pages; 1 if one of them has a serious or critical violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path, help="HTML files")
    options = parser.parse_args()
    if missing := [str(page) for page in options.pages if not page.is_file()]:
        parser.error(f"expected HTML files, found none at {', '.join(missing)}")
    browser()  # exits at once if there is none
    grave = 0
    for name, rules in found_on(options.pages):
        print(f"{name}: {len(rules)} violations")
        for rule in rules:
            print(told(rule))
        grave += sum(map(is_grave, rules))
    print(f"{grave} serious or critical violations on {len(options.pages)} pages")
    return 1 if grave else 0


if __name__ == "__main__":
    sys.exit(main())
