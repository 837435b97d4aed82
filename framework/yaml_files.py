"""YAML files as trees of texts; a scalar stays as typed until its field's type is applied.

Boundary: the only importer of PyYAML. Tags and aliases are errors, ``${...}`` is plain text: a file
cannot run code, read the environment or expand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from timetrial.framework.checksums import seal, unsealed
from timetrial.framework.errors import ConfigError
from timetrial.framework.files import write_atomically

Tree = dict[str, Any]
"""Values by key; a value is a text, a list of values or another tree."""

MAX_BYTES = 2**18
"""Maximum size of a configuration file."""

MAX_DEPTH = 20
"""Maximum levels of nesting; a configuration has four."""

NULLS = ("", "~", "null", "none")
"""Texts for None, in upper or lower case, where a setting may be None."""


class Scalar(str):
    """A scalar of a YAML file, as typed.

    Attributes:
        quoted: True when it is in quotes; a quoted ``null`` is always text.
        where: file and line.
    """

    quoted: bool
    where: str


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that is not allowed here."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)


def read_yaml(path: Path) -> Tree:
    """Reads a mapping from a YAML file; its scalars are ``Scalar`` texts.

    Raises:
        ConfigError: the file is unreadable, empty, not a mapping, or has another checksum than its
            bytes (``checksums``); names file and line.
    """
    tree = parse_yaml(_text(path), str(path))
    if tree is None:
        raise ConfigError(f"{path} is empty: expected a mapping of keys to values")
    if not isinstance(tree, dict):
        got = "a list" if isinstance(tree, list) else repr(tree[:40])
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {got}")
    return tree


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL character in its name
        raise ConfigError(f"cannot read {str(path)!r}: {error}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"cannot read {path}: expected at most {MAX_BYTES} bytes of YAML")
    content = unsealed(content, str(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: expected UTF-8 text") from error


def parse_yaml(text: str, source: str) -> Any:
    """The tree of a YAML text: dicts, lists and ``Scalar`` texts; None for an empty text.

    Args:
        text: one YAML document.
        source: name of the text in errors.

    Raises:
        ConfigError: the text is not YAML, repeats a key, or has a tag or an alias.
    """
    try:
        node = yaml.compose(text, _Loader)
        return None if node is None else _tree(node, source)
    except yaml.MarkedYAMLError as error:
        place = _place(source, error.problem_mark or error.context_mark)
        what = "" if isinstance(error, _Refused) else "not valid YAML: "
        raise ConfigError(f"{place}: {what}{error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"character {error.character!r} is not allowed"
        raise ConfigError(f"{source}, line {line}: not valid YAML: {reason}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # an escape beyond Unicode
        raise ConfigError(f"{source}: not valid YAML: {error}") from error


def _place(source: str, mark: Any) -> str:
    return source if mark is None else f"{source}, line {mark.line + 1}"


class _Loader(yaml.BaseLoader):
    """Composes the nodes of a document; raises for tags, aliases and deep nesting."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            text = f"aliases such as *{event.anchor} are not read: write the value out"
            raise _Refused(text, event.start_mark)
        if getattr(event, "tag", None) is not None:
            text = f"tags such as {event.tag} are not read: write the value alone"
            raise _Refused(text, event.start_mark)
        if self._depth >= MAX_DEPTH:
            raise _Refused(f"nested more than {MAX_DEPTH} levels deep", event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _tree(node: yaml.Node, source: str) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_tree(child, source) for child in node.value]
    if isinstance(node, yaml.MappingNode):
        found: Tree = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused("expected a text as key", key_node.start_mark)
            key = _scalar(key_node, source)
            if key in found:
                raise _Refused(f"key {str(key)!r} is given twice", key_node.start_mark)
            found[key] = _tree(value_node, source)
        return found
    return _scalar(node, source)


def _scalar(node: yaml.Node, source: str) -> Scalar:
    scalar = Scalar(node.value)
    scalar.quoted = getattr(node, "style", None) is not None
    scalar.where = _place(source, node.start_mark)
    return scalar


class _Dumper(yaml.SafeDumper):
    """Writes trees of plain values without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def write_text(self, text: str) -> yaml.Node:
        """A text; quoted when it reads as None or contains a Unicode line break."""
        quotes = "'" if text and text.lower() in NULLS else None
        if any(character in text for character in "\x85\u2028\u2029"):
            quotes = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", str(text), style=quotes)


_Dumper.add_multi_representer(str, _Dumper.write_text)  # also members of a StrEnum
_Dumper.add_representer(str, _Dumper.write_text)


def yaml_of(tree: Mapping[str, Any]) -> str:
    """Nested dicts of plain values as YAML; ``read_yaml`` returns the same texts."""
    return yaml.dump(
        dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )


def write_sealed(path: Path, head: str, tree: Mapping[str, Any], what: str) -> None:
    """Writes comment lines and a tree as YAML with its checksum; creates the directory.

    Args:
        path: the file.
        head: lines that begin with ``#``.
        tree: nested dicts of plain values.
        what: kind and name of the file's content, for errors.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, seal(head + yaml_of(tree)))
    except OSError as error:
        raise ConfigError(f"{what} {path}: cannot be written ({error.strerror})") from error
