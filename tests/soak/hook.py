"""Strikes the own process at a named call: a moment that no timer hits reliably.

Boundary: tests only; wraps functions from outside, so the product has no code for it.

``SOAK_HOOK`` is ``module:name:n:when:signals:token``, or several with spaces between: before or
after the n-th call of ``name`` in ``module`` the process sends itself the signals, 0.3 s apart. Of
all processes with the same token, a file, the first one does so, once.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

HOOK = "SOAK_HOOK"
UPDATES = "SOAK_UPDATES"
"""Directory of one file per process: charged seconds after each of its updates."""


def install() -> None:
    """Wraps functions as the environment says, now or when their modules are imported."""
    for text in os.environ.get(HOOK, "").split():
        _when_loaded(text.partition(":")[0], functools.partial(_wrap, text))
    if directory := os.environ.get(UPDATES, ""):
        _when_loaded("timetrial.framework.trainer", functools.partial(_note_updates, directory))


def _when_loaded(name: str, change: Callable[[ModuleType], None]) -> None:
    if name in sys.modules:
        change(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, change))


def _note_updates(directory: str, module: ModuleType) -> None:
    """Notes the charged seconds at the start of a run and after each update."""
    path = Path(directory) / str(os.getpid())

    def noting(original: Callable[..., Any], before: bool) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapped(self: Any, *args: Any, **options: Any) -> Any:
            if before:
                path.write_text(str(self.clock.train_seconds))
            result = original(self, *args, **options)
            if not before:
                path.write_text(str(self._finished_at))
            return result

        return wrapped

    module.Trainer.fit = noting(module.Trainer.fit, before=True)  # type: ignore[attr-defined]
    module.Trainer._finish = noting(module.Trainer._finish, before=False)  # type: ignore[attr-defined]


def strike(signals: Sequence[int], token: Path) -> None:
    """Sends this process the signals; the second one from a thread."""
    try:
        os.close(os.open(token, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if len(signals) > 1:
        threading.Thread(target=_later, args=(signals[1:],), daemon=True).start()
    os.kill(os.getpid(), signals[0])


def _later(signals: Sequence[int]) -> None:
    for number in signals:
        time.sleep(0.3)
        os.kill(os.getpid(), number)


def _wrap(text: str, module: ModuleType) -> None:
    _, name, n, when, numbers, token = text.split(":", 5)
    signals = [int(number) for number in numbers.split(",")]
    owner: Any = module
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original: Callable[..., Any] = getattr(owner, last)
    calls = [0]

    @functools.wraps(original)
    def wrapped(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        due = calls[0] == int(n)
        if due and when == "before":
            strike(signals, Path(token))
        result = original(*args, **options)
        if due and when == "after":
            strike(signals, Path(token))
        return result

    setattr(owner, last, wrapped)


class _Finder(MetaPathFinder):
    """Changes a module as soon as it is loaded."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self._name, self._change = name, change

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert isinstance(spec.loader, importlib.machinery.SourceFileLoader)
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self._change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
