"""Compilation ahead of time, and where each executable came from.

Boundary: one executable at a time; ``step`` says which functions are compiled. The directory of
JAX's cache is chosen by ``compiled_files``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jax
from jax.experimental.compilation_cache import compilation_cache

from timetrial.framework.types import PyTree

_HIT: Final = "/jax/compilation_cache/cache_hits"
_DAMAGED: Final = re.compile(r"Error \w+ persistent compilation cache entry for '([\w.]+)'")
"""JAX's warning about an entry that it cannot read or write, and the name of the program."""


class Source(enum.StrEnum):
    """Where an executable came from; the text is recorded with ``time/compile_seconds``."""

    COMPILED = "compilation"
    CACHE = "cache on disk"
    SHARED = "earlier run"


Key = tuple[str, Any, Any]
"""Digest of a lowered program, and the trees of its arguments and results."""


@dataclasses.dataclass(frozen=True)
class Executable:
    """A compiled function.

    Attributes:
        function: takes and returns the trees of arrays that it was compiled for.
        key: programs with the same key compute the same.
        source: where the executable came from.
    """

    function: Callable[..., Any]
    key: Key
    source: Source


_hits = 0


def _count(event: str, **tags: Any) -> None:
    global _hits
    _hits += event == _HIT


jax.monitoring.register_event_listener(_count)


def compile_ahead(
    function: Callable[..., Any],
    arguments: tuple[PyTree, ...],
    known: Mapping[Key, Executable],
    **options: Any,
) -> Executable:
    """Compiles a function, unless an executable of the same program is known.

    Programs are the same when their lowered texts are, constants included. So an optimizer that
    keeps its numbers in its state shares the executable of another one with other numbers.

    Args:
        function: pure function of arrays.
        arguments: trees of arrays, or of their shapes.
        known: executables by key, made with the same devices.
        options: of ``jax.jit``.
    """
    # Unused arguments stay, otherwise two programs that use different ones may have one text.
    lowered = jax.jit(function, keep_unused=True, **options).lower(*arguments)
    text = hashlib.sha256(lowered.as_text().encode()).hexdigest()
    key = (text, lowered.in_tree, lowered.out_tree)
    if key in known:
        return dataclasses.replace(known[key], source=Source.SHARED)
    hits = _hits
    with quiet_cache():
        compiled = lowered.compile()
    return Executable(compiled, key, Source.CACHE if _hits > hits else Source.COMPILED)


@contextlib.contextmanager
def quiet_cache() -> Iterator[None]:
    """Removes entries that JAX's cache cannot read or write within the block, without a warning.

    The program is compiled then, and a later run writes the entry again. A write that failed for
    want of room may have left a part of an entry, which JAX would never replace.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for found in caught:
        if _DAMAGED.match(str(found.message)) is None:
            warnings.warn_explicit(found.message, found.category, found.filename, found.lineno)
    directory = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    programs = {match[1] for found in caught if (match := _DAMAGED.match(str(found.message)))}
    for name in programs if directory else ():
        with contextlib.suppress(OSError):
            for path in Path(directory).glob(f"{name}-*"):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compiles within the block without JAX's cache on disk."""
    enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    _enable_cache(False)
    try:
        yield
    finally:
        _enable_cache(enabled)


def _enable_cache(enabled: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", enabled)
    compilation_cache.reset_cache()  # JAX looks at the setting once
