"""Entries from what a plug-in defines: an entry, a factory, or a function with a signature.

Boundary: objects in, entries out; ``source`` finds the objects, ``registry`` their names.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from timetrial.framework.entries import Entry, Horizon, OptimizerEntry
from timetrial.framework.signature import (
    is_filled,
    is_transformation,
    optimizer_of,
    parameters_of,
)
from timetrial.framework.source import Source

E = TypeVar("E", bound=Entry[Any])


def entry_of(found: Any, kind: type[E]) -> E:
    """The entry of a plug-in.

    These forms are allowed:

    - an entry;
    - a factory: a function or class, its first parameter annotated as its settings' dataclass;
    - a function that returns an entry when it is called without arguments;
    - for an optimizer, a function that returns an optax transformation; see ``signature``.

    Raises:
        TypeError: the object has none of these forms.
        Exception: whatever a function without parameters raises.
    """
    if isinstance(found, kind):
        return found
    if callable(found) and not isinstance(found, Entry):
        parameters = parameters_of(found)
        hint = parameters[0].annotation if parameters else None
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return kind(_summary(found), hint, found)
        by_signature = kind is OptimizerEntry and not isinstance(found, type)
        required = [p for p in parameters if p.default is p.empty and not is_filled(p)]
        if not required and (made := _entry_made(found, kind, by_signature)) is not None:
            return made
        if by_signature:
            return cast(E, optimizer_of(found, _summary(found)))
    got = getattr(found, "__qualname__", type(found).__name__)
    more = ", or one that returns an optax transformation" if kind is OptimizerEntry else ""
    raise TypeError(
        f"expected {_a(kind)}, a function without parameters that returns one, or a factory "
        f"whose first parameter is annotated with its settings' dataclass{more}; got {got}"
    )


def _entry_made(found: Any, kind: type[E], by_signature: bool) -> E | None:
    """The entry that a function returns; None for a function that returns a transformation.

    Raises:
        TypeError: it returns something else.
        Exception: whatever it raises, if it has no parameters.
    """
    parameters = parameters_of(found)
    try:
        made = found()
    except Exception:
        if by_signature and parameters:  # its defaults need not be fit for a call
            return None
        raise
    if isinstance(made, kind):
        return made
    if by_signature and is_transformation(made):
        return None
    more = "; an optax transformation will do, too" if by_signature else ""
    raise TypeError(f"expected it to return {_a(kind)}, got {type(made).__name__}{more}")


def identified(entry: E, source: Source) -> E:
    """The entry with the content of its file in the identity of its runs.

    Its settings have one more, ``file_sha256``. Tables show its first digits as the variant, so
    that runs before and after a change of the file are not mixed.
    """
    settings = _with_digest(entry.settings, source)
    if not isinstance(entry, OptimizerEntry):
        return dataclasses.replace(entry, settings=settings)
    optimizer = cast(OptimizerEntry, entry)

    def variant(settings: Any) -> str:
        own = optimizer.variant(settings)
        return f"{own},{source.sha256[:8]}" if own else source.sha256[:8]

    def notes(settings: Any, horizon: Horizon) -> Mapping[str, str]:
        tags = {"optimizer_file": source.path, "optimizer_file_sha256": source.sha256}
        return {**tags, **optimizer.notes(settings, horizon)}

    changed = dataclasses.replace(optimizer, settings=settings, variant=variant, notes=notes)
    return cast(E, changed)


def _with_digest(settings: type, source: Source) -> type:
    """The dataclass with the setting ``file_sha256``: filled in by default, checked if given."""
    before: Callable[[Any], None] = getattr(settings, "__post_init__", lambda self: None)

    def check(self: Any) -> None:
        if self.file_sha256 not in ("", source.sha256):
            raise ValueError(
                f"file_sha256: expected {self.file_sha256}, but {source.path} here has "
                f"{source.sha256}"
            )
        object.__setattr__(self, "file_sha256", source.sha256)
        before(self)

    text = "sha256 of the Python file; filled in by default, checked if given."
    names = {
        "__post_init__": check,
        "__doc__": f"Settings.\n\nAttributes:\n    file_sha256: {text}",
    }
    made = dataclasses.make_dataclass(
        settings.__name__,
        [("file_sha256", str, "")],
        bases=(settings,),
        frozen=True,
        namespace=names,
    )
    made.__module__ = settings.__module__
    return made


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def _summary(found: Any) -> str:
    """First line of the docstring, else the name."""
    name = getattr(found, "__qualname__", type(found).__name__)
    return (inspect.getdoc(found) or name).split("\n")[0] or name
