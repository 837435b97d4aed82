"""Kernels of a compiled program: counted in its text, and in a profile of a GPU.

Boundary: reads texts and profiles; TensorFlow is not needed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jax.profiler import ProfileData

FREE: Final = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
        *("partition-id", "replica-id", "opt-barrier", "add-dependency", "async-done"),
        *("async-update", "copy-done", "all-reduce-done", "all-gather-done"),
    )
)
"""Instructions of an optimized program that launch nothing."""

CONTROL: Final = frozenset({"call", "while", "conditional"})
"""Instructions that run other computations; the bodies of loops are counted once."""

TOP_KERNELS: Final = 15
"""Kernels of a profile to report, those with the most time."""

_OPCODE = re.compile(r" ([a-z][a-z0-9-]*)\(")
_CALLED = re.compile(
    r"(?:to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)"
    r"|(?:branch_computations|called_computations)=\{([^}]*)\}"
)


def launches(text: str) -> dict[str, int]:
    """Number of launched instructions of an optimized HLO module, by opcode.

    Fusions, library calls, copies and so on of the entry computation and of what it calls. On a GPU
    each is about one kernel; a library call may be several, and a copy may be of the driver.

    Args:
        text: ``compiled.as_text()``.

    Raises:
        ValueError: the text has no entry computation.
    """
    computations, entry = _computations(text.splitlines())
    if entry is None:
        raise ValueError("expected the text of an HLO module with an ENTRY computation")
    found: defaultdict[str, int] = defaultdict(int)
    waiting = [entry]
    while waiting:
        for line in computations.get(waiting.pop(), ()):
            opcode = _opcode(line)
            if opcode in CONTROL:
                waiting += _called(line)
            elif opcode is not None and opcode not in FREE:
                found[opcode] += 1
    return dict(found)


def _computations(lines: Iterable[str]) -> tuple[dict[str, list[str]], str | None]:
    """Lines of instructions by computation, and the name of the entry."""
    computations: dict[str, list[str]] = {}
    entry, current = None, None
    for line in lines:
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            is_entry = line.startswith("ENTRY ")
            name = re.split(r"[ (]", line.removeprefix("ENTRY ").lstrip("%"), maxsplit=1)[0]
            entry = name if is_entry else entry
            current = computations.setdefault(name, [])
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            current.append(line)
    return computations, entry


def _opcode(line: str) -> str | None:
    found = _OPCODE.search(line.split(" = ", 1)[1])
    # A type of one array is followed by the opcode; " (" begins the type of a tuple.
    return found and found.group(1)


def _called(line: str) -> Iterator[str]:
    for one, several in _CALLED.findall(line):
        yield from [one] if one else [name.strip().lstrip("%") for name in several.split(",")]


def profile(directory: Path, updates: int) -> dict[str, Any] | None:
    """What a GPU ran, from the profile that ``jax.profiler.trace`` wrote; None without a GPU.

    Args:
        directory: directory of the trace.
        updates: updates in it.

    Returns:
        Per update: ``kernels``, ``copies`` (memory operations), ``busy_ms`` (some stream is at
        work) and ``top``, the kernels with the most time as (name, number, ms).
    """
    files = sorted(directory.rglob("*.xplane.pb"))
    if not files:
        return None
    return summary(ProfileData.from_file(str(files[-1])), updates)


def summary(data: ProfileData, updates: int) -> dict[str, Any] | None:
    """As ``profile``, of a profile in memory."""
    planes = [plane for plane in data.planes if plane.name.startswith("/device:GPU")]
    events = [
        (event.name, event.start_ns, event.duration_ns)
        for plane in planes
        for line in plane.lines
        if line.name.startswith("Stream")
        for event in line.events
    ]
    if not events:
        return None
    kernels = [event for event in events if not _is_copy(event[0])]
    return {
        "kernels": len(kernels) / updates,
        "copies": (len(events) - len(kernels)) / updates,
        "busy_ms": _busy_ns([(start, start + length) for _, start, length in events])
        / updates
        / 1e6,
        "top": _top(kernels, updates),
    }


def _is_copy(name: str) -> bool:
    return name.lower().startswith(("memcpy", "memset"))


def _busy_ns(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    busy, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return busy


def _top(kernels: Sequence[tuple[str, float, float]], updates: int) -> list[Mapping[str, Any]]:
    number: defaultdict[str, int] = defaultdict(int)
    time: defaultdict[str, float] = defaultdict(float)
    for name, _, length in kernels:
        number[name] += 1
        time[name] += length
    longest = sorted(time, key=lambda name: -time[name])[:TOP_KERNELS]
    return [
        {"name": name, "number": number[name] / updates, "ms": time[name] / updates / 1e6}
        for name in longest
    ]
