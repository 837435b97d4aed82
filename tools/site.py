"""Hooks of ``make docs``: pages that come from files outside ``docs/``.

Boundary: build time only; MkDocs calls the functions named ``on_...`` (mkdocs.yml). Text in, text
out; the only files read are those of this repository.

* ``whats-new.md`` is CHANGELOG.md, ``commands.md`` the help texts of ``timetrial``, and
  ``notebook.md`` the notebook with its results.
* A link from a page to a file outside ``docs/`` leads to a copy of it below ``source/``: the site
  is complete without the repository.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import notebook  # noqa: E402

ROOT: Final = Path(__file__).parents[1]
NOTEBOOK: Final = "race-your-optimizer.ipynb"

_LINK: Final = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(\))")
_MERMAID: Final = re.compile(r"```mermaid\n.*?```", re.S)
_DIAGRAM: Final = "![The rooms of Timetrial and their imports](architecture.svg)"


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages, and the files that pages link to."""
    pages = {
        "whats-new.md": ("CHANGELOG.md", changes((ROOT / "CHANGELOG.md").read_text())),
        "commands.md": ("docs/commands.md", commands()),
        "notebook.md": (f"docs/{NOTEBOOK}", notebook.as_markdown(ROOT / "docs" / NOTEBOOK)),
    }
    texts = {
        file.src_uri: (f"docs/{file.src_uri}", file.content_string)
        for file in files.documentation_pages()
    } | pages
    waiting, copied = list(texts), dict[str, str]()
    while waiting:  # a copied page may link to further files
        name = waiting.pop()
        origin, text = texts[name]
        for _, path, _, _ in _LINK.findall(text):
            here = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
            outside = not here.startswith(("docs/", "..")) and here != "CHANGELOG.md"
            if outside and here not in copied and (ROOT / here).is_file():
                copied[here] = f"source/{here}"
                if here.endswith(".md"):
                    texts[copied[here]] = (here, (ROOT / here).read_text())
                    waiting.append(copied[here])
    for name, (origin, text) in texts.items():
        old = files.get_file_from_path(name)
        if old is not None:
            files.remove(old)
        files.append(File.generated(config, name, content=linked(text, origin, name)))
    for origin, name in copied.items():
        if name not in texts:
            files.append(File.generated(config, name, abs_src_path=str(ROOT / origin)))
    return files


def linked(text: str, origin: str, name: str) -> str:
    """The text of a page with its links as they are in the site.

    Args:
        text: Markdown.
        origin: path of its file in the repository.
        name: path of the page below ``docs/``, or where it would be.
    """
    if origin == "CONTRIBUTING.md":
        text = _MERMAID.sub(_DIAGRAM, text)

    def moved(match: re.Match[str]) -> str:
        start, path, anchor, end = match.groups()
        here = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        if here.startswith("docs/"):
            target = here.removeprefix("docs/")
        elif here == "CHANGELOG.md":
            target = "whats-new.md"
        elif (ROOT / here).is_file():
            target = f"source/{here}"
        elif path == "architecture.svg":
            target = path
        else:
            return match.group()  # MkDocs refuses it
        there = posixpath.relpath(target, posixpath.dirname(name) or ".")
        return f"{start}{there}{anchor or ''}{end}"

    return _LINK.sub(moved, text)


def changes(text: str) -> str:
    """CHANGELOG.md as the page *What's new*."""
    return text.replace("# Changelog\n", "# What's new\n", 1)


def commands() -> str:
    """The help text of every command, from the parser itself."""
    import argparse
    import os

    os.environ["COLUMNS"] = "96"
    from timetrial.bench import cli, invocation
    from timetrial.bench.commands import COMMANDS

    here = invocation.program()  # how this installation is typed
    parser = cli.parser()
    (subs,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    lines = [
        "# Commands\n",
        "What `timetrial COMMAND --help` says. Settings of workloads and optimizers:"
        " `timetrial list NAME`.\n",
    ]
    for name, command in COMMANDS.items():
        if command.summary:
            text = subs.choices[name].format_help().replace(f"{here} ", "timetrial ")
            lines += [f"## timetrial {name}\n", f"```text\n{text}```\n"]
    return "\n".join(lines)
