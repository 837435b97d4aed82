"""Python files named by a user: ``path/to/file.py:make``.

Boundary: reads and runs a file only when it is named; ``registry`` makes an entry of its content.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.machinery
import importlib.util
import re
import sys
import traceback
from importlib import metadata
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from timetrial.framework.errors import UserError
from timetrial.framework.paths import expanded
from timetrial.framework.suggestions import unknown

FILE: Final = re.compile(r"(?P<path>.*\.py):(?P<name>[A-Za-z_]\w*(?:\.\w+)*)", re.DOTALL)
"""``path/to/file.py:name``."""

MODULE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""``package.module:name``; a name that ends with ``.py`` is a file."""

FILLED: Final = ("horizon", "step_hint", "steps", "num_steps")
"""Parameters of a function that the race fills in: the ``Horizon``, the workload's step hint, and
the updates within the budget."""

_MOST_BYTES: Final = 4 << 20


@dataclasses.dataclass(frozen=True)
class Source:
    """A Python file that was run.

    Attributes:
        path: as typed, with ``~`` expanded.
        sha256: digest of the bytes that were run.
        module: what the file defines.
    """

    path: str
    sha256: str
    module: ModuleType


def is_target(name: str) -> bool:
    """Whether a name is meant as ``path/to/file.py:name`` or ``package.module:name``."""
    return name.endswith(".py") or bool(FILE.fullmatch(name) or MODULE.fullmatch(name))


def shown_name(name: str) -> str:
    """A name for tables: of a file without its directory, ``lion.py:make``."""
    found = FILE.fullmatch(name)
    return f"{Path(found['path']).name}:{found['name']}" if found else name


def find(target: str) -> tuple[Any, Source | None]:
    """The object of ``path/to/file.py:name`` or ``package.module:name``, and its file.

    The file is None for a module. Modules beside a file, and of this directory, can be imported.

    Raises:
        UserError: the file cannot be read, or it defines no such name.
        Exception: whatever the file or module raises.
    """
    found = FILE.fullmatch(target)
    if found is None:
        if target.endswith(".py"):
            raise UserError(f"expected {target}:make, with the name of a function in the file")
        _allow_imports_from(Path.cwd())
        return metadata.EntryPoint(target, target, "").load(), None
    source = run_file(found["path"])
    try:
        return functools.reduce(getattr, found["name"].split("."), source.module), source
    except AttributeError:
        known = [name for name, value in vars(source.module).items() if _is_own(value, source)]
        raise UserError(unknown("function", found["name"], known)) from None


def run_file(path: str) -> Source:
    """Runs a Python file; one of the same content is not run again by this process.

    Raises:
        UserError: the file cannot be read.
        Exception: whatever the file raises.
    """
    path = expanded(path)
    content = _content(path)
    digest = hashlib.sha256(content).hexdigest()
    file = Path(path).resolve()
    place = hashlib.sha256(str(file).encode(errors="surrogatepass")).hexdigest()[:8]
    name = f"timetrial_{re.sub(r'[^A-Za-z0-9_]', '_', file.stem)}_{place}_{digest[:16]}"
    if name not in sys.modules:
        _allow_imports_from(file.parent)
        loader = _Loader(name, str(file), content)
        spec = importlib.util.spec_from_file_location(name, file, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # where dataclasses look their annotations up
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return Source(path, digest, sys.modules[name])


def digest_of(path: str) -> str:
    """sha256 of a file, which is not run.

    Raises:
        UserError: the file cannot be read.
    """
    return hashlib.sha256(_content(expanded(path))).hexdigest()


def reason(error: BaseException, file: str = "") -> str:
    """An error of a plug-in in one line, with the line of the file where it was raised."""
    text = " ".join(str(error).split())
    text = text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": ")
    places = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if file and Path(frame.filename) == Path(file).resolve()
    ]
    here = places and not (isinstance(error, SyntaxError) and error.lineno)
    return f"{text} ({Path(file).name}, line {places[-1]})" if here else text


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs given bytes; writes no bytecode."""

    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self._content = content

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self._content, self.path)
        return code


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL character in its name
        raise UserError(f"cannot read {path!r}: {error}") from error
    if len(content) > _MOST_BYTES:
        raise UserError(f"{path}: expected a Python file of at most {_MOST_BYTES:,} bytes")
    return content


def _is_own(value: object, source: Source) -> bool:
    """Whether an object may be meant: made by the file, and no plain number or text."""
    home = getattr(value, "__module__", None)
    return home == source.module.__name__ or dataclasses.is_dataclass(value)


def _allow_imports_from(directory: Path) -> None:
    """Modules of a directory can be imported; installed ones come first."""
    here = {"", str(directory)} if directory == Path.cwd() else {str(directory)}
    if not here & set(sys.path):
        sys.path.append(str(directory))
