"""README and docs as programs: their code blocks, and the commands in these.

A block is a fence. A comment before it, ``<!-- checked, not run: REASON -->``, marks one that a
test cannot run. A block goes into a file if the paragraph above ends with ``:`` and names one of
its language last, as in "here in `mine.py`:".
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANGUAGES = {"python": ".py", "sh": ".sh", "yaml": ".yaml", "toml": ".toml", "text": ".txt"}

_FENCE = re.compile(r"^( *)(`{3,}|~{3,})(.*)$")
_MARK = re.compile(r"^<!-- checked, not run: (.+) -->$")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Attributes:
        page: path below the repository.
        line: number of its first fence.
        language: first word of the fence.
        code: its text.
        reason: why it is not run; "" if it is.
        file: name of the file that the page says it is, or "".
    """

    page: str
    line: int
    language: str
    code: str
    reason: str
    file: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README.md and all pages below docs/."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return ["README.md", *found]


def blocks(page: str, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        ValueError: a fence is never closed, or a block is indented instead of fenced.
    """
    lines = (text if text is not None else (ROOT / page).read_text()).splitlines()
    found: list[Block] = []
    above: list[str] = []  # lines of the text since the last block
    number = 0
    while number < len(lines):
        opened = _FENCE.match(lines[number])
        if opened is None:
            if re.match(r" {4,}\S", lines[number]) and not any(line.strip() for line in above[-1:]):
                raise ValueError(f"{page}:{number + 1}: expected a fence, got an indented block")
            above.append(lines[number])
            number += 1
            continue
        indent, fence, info = opened.groups()
        ends = [n for n in range(number + 1, len(lines)) if lines[n].strip() == fence]
        if not ends:
            raise ValueError(f"{page}:{number + 1}: the fence is never closed")
        code = [line.removeprefix(indent) for line in lines[number + 1 : ends[0]]]
        language = (info.split() or [""])[0]
        reason, paragraph = _above(above)
        file = _file(paragraph, language)
        found.append(Block(page, number + 1, language, "\n".join(code) + "\n", reason, file))
        above, number = [], ends[0] + 1
    return found


def _above(lines: list[str]) -> tuple[str, str]:
    """The reason of a mark right above a block, and the paragraph above it."""
    text = "\n".join(lines).strip()
    last = text.splitlines()[-1] if text else ""
    mark = _MARK.match(last)
    paragraph = text.removesuffix(last).strip() if mark else text
    return (mark.group(1) if mark else ""), paragraph.split("\n\n")[-1]


def _file(paragraph: str, language: str) -> str:
    """The last file of this language that a paragraph names, if it ends with a colon."""
    ending = re.escape(LANGUAGES.get(language, "?"))
    named = re.findall(rf"`(?:\./)?([\w-]+{ending})`", paragraph)
    return named[-1] if named and paragraph.endswith(":") and language != "sh" else ""


@dataclasses.dataclass(frozen=True)
class Line:
    """One command of a shell block: its words, and variables set for it alone."""

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return shlex.join([*(f"{k}={v}" for k, v in self.environment), *self.words])


def command_lines(block: Block) -> list[Line]:
    """The commands of a shell block, without comments; a backslash continues a line."""
    found = []
    for text in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(text, comments=True)
        environment = []
        while words and re.match(r"[A-Z_]+=", words[0]):
            name, value = words.pop(0).split("=", 1)
            environment.append((name, value))
        if words:
            found.append(Line(tuple(words), tuple(environment)))
    return found


def write_files(page: str, folder: Path) -> None:
    """Writes the files that a page shows into a folder."""
    for block in blocks(page):
        if block.file:
            with (folder / block.file).open("a") as file:
                file.write(block.code)
