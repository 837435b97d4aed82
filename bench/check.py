"""The command ``timetrial check``: runs the contract checks on one optimizer or workload.

Boundary: prints one line per check; nothing is recorded.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from rich.console import Console

from timetrial.bench.contracts import NotApplicableError, optimizers, workloads
from timetrial.bench.contracts.cost import cost
from timetrial.bench.suite import load_run
from timetrial.framework.config import Choice, hints
from timetrial.framework.errors import UserError
from timetrial.framework.registry import Registry
from timetrial.optimizers import OPTIMIZERS
from timetrial.workloads import WORKLOADS

_LONGEST_REASON: Final = 300


def check(overrides: Sequence[str]) -> int:
    """Checks ``optimizer=NAME``, ``workload=NAME`` or both, with the given settings.

    An optimizer that passes is measured, too: its cost per update beside Adam's.

    Returns:
        0 when every check passes, 1 when one fails.

    Raises:
        UserError: no name, another key, an unknown setting, or an unusable plug-in.
    """
    _check_words(overrides)
    failed = 0
    for title, checks, subject in _chosen(overrides):
        print(title)
        before = failed
        for text, run in checks:
            with Console().status(text):  # on a terminal only
                word, reason = _outcome(run)
            print(f"  {word:<6} {text}" + (f"\n         {reason}" if reason else ""), flush=True)
            failed += word == "FAILED"
        if isinstance(subject, optimizers.Subject) and failed == before:
            print(f"  ok     {cost(subject)}", flush=True)
    count = "1 check" if failed == 1 else f"{failed} checks"
    print(f"{count} failed" if failed else "all checks passed")
    return 1 if failed else 0


def _check_words(overrides: Sequence[str]) -> None:
    keys = [word.split("=")[0] for word in overrides]
    others = [key for key in keys if key.split(".")[0] not in ("optimizer", "workload")]
    if others or not {"optimizer", "workload"} & set(keys):
        raise UserError(
            "check: expected optimizer=NAME or workload=NAME, and settings of it "
            f"(as in optimizer.learning_rate=0.01), got {' '.join(overrides) or 'nothing'}"
        )


def _chosen(
    overrides: Sequence[str],
) -> Iterator[tuple[str, list[tuple[str, Callable[[], None]]], Any]]:
    """Yields title, checks and subject of each named entry.

    A check is (first docstring line, function).
    """
    keys = {word.split("=")[0] for word in overrides}
    words = [*overrides, "budget.steps=1"]
    for room, registry in (("optimizer", OPTIMIZERS), ("workload", WORKLOADS)):
        if room not in keys:
            words.append(f"{room}={next(iter(registry.built_in))}")
    if "workload" in keys:
        words += _small(overrides)
    config = load_run(words)
    if "optimizer" in keys:
        subject: Any = optimizers.Subject(config.optimizer)
        if subject.entry.is_foreign:
            raise UserError(
                f"check: optimizer {config.optimizer.name} makes whole updates by itself; expected "
                "one with an optax transformation"
            )
        yield _title(config.optimizer, OPTIMIZERS), _bound(optimizers.CHECKS, subject), subject
    if "workload" in keys:
        subject = workloads.Subject(config.workload)
        yield _title(config.workload, WORKLOADS), _bound(workloads.CHECKS, subject), subject


def _small(overrides: Sequence[str]) -> list[str]:
    """Overrides for small sizes, for settings of the workload without a given value."""
    given = dict(word.split("=", 1) for word in overrides)
    name = given["workload"]
    known = hints(WORKLOADS[name].settings) if name in WORKLOADS else {}
    sizes = {f"workload.{key}": size for key, size in workloads.SMALL.items() if key in known}
    return [f"{key}={size}" for key, size in sizes.items() if key not in given]


def _title(choice: Choice, registry: Registry[Any]) -> str:
    return f"{registry.what} {choice.name} ({registry.origin(choice.name)})"


def _bound(checks: Sequence[Callable[[Any], None]], subject: Any) -> list[Any]:
    return [
        (str(each.__doc__).split("\n")[0].replace("`", ""), functools.partial(each, subject))
        for each in checks
    ]


def _outcome(run: Callable[[], None]) -> tuple[str, str]:
    """``ok``, ``FAILED`` or ``n/a``, and the reason in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
    except NotApplicableError as error:
        return "n/a", str(error)
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        name = "" if isinstance(error, (AssertionError, UserError)) else f"{type(error).__name__}: "
        reason = f"{name}{' '.join(str(error).split())}"
        shown = reason[: _LONGEST_REASON - 3] + "..." if len(reason) > _LONGEST_REASON else reason
        return "FAILED", shown
    return "ok", ""
