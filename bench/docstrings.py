"""Descriptions of a class's attributes, from its docstring and those of its parents.

Pure: text in, text out; reads Google's sections (``Attributes:``, ``Args:``) and numpydoc's.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterable
from typing import Final

_SECTION: Final = re.compile(r"(Attributes|Args|Arguments|Parameters):?\s*$")
_RULE: Final = re.compile(r"-{3,}\s*$")  # below a section's title, in numpydoc
_ENTRY: Final = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?:\(.*?\))?\s*:(?:\s+(.*)|$)")


def attribute_texts(cls: type) -> dict[str, str]:
    """Description by attribute, one line each; derived classes override their parents."""
    found: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        found |= _texts(inspect.cleandoc(vars(parent).get("__doc__") or ""))
    return found


def _texts(doc: str) -> dict[str, str]:
    """The entries of the first section of attributes in a docstring."""
    lines = doc.split("\n")
    start = next((i for i, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    body = lines[start + 1 :]
    if body and _RULE.match(body[0]):
        ends = [i for i in range(2, len(body)) if _RULE.match(body[i])]
        return _entries(body[1 : ends[0] - 1 if ends else None], types_follow=True)
    indented = itertools.takewhile(lambda line: not line or line[0].isspace(), body)
    return _entries(indented, types_follow=False)


def _entries(lines: Iterable[str], *, types_follow: bool) -> dict[str, str]:
    """Text by name; entries begin at the indent of the first, continuation lines are deeper.

    Args:
        lines: the section, without its title.
        types_follow: ``name : type``, as in numpydoc; the description begins on the next line.
    """
    found: dict[str, list[str]] = {}
    names: list[str] = []
    margin = None
    for line in (line for line in lines if line.strip()):
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        margin = indent if margin is None else margin
        entry = _ENTRY.match(text) if indent <= margin else None
        if types_follow and indent <= margin and re.fullmatch(r"\w+", text):
            names, text = [text], ""
        elif entry:
            names = [name.strip(" *") for name in entry[1].split(",")]
            text = "" if types_follow else entry[2] or ""
        for name in names:
            found.setdefault(name, []).extend([text] if text else [])
    return {name: " ".join(texts) for name, texts in found.items() if texts}
