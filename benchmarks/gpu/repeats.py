"""The same bits twice? Parameters after a few updates in two freshly compiled programs.

Boundary: reduced models; ``steps`` gives the digests at full size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

from benchmarks.gpu import cases, steps


def repeated(names: Iterable[str], optimizer: str) -> dict[str, Any]:
    """By workload: the digests of two fresh programs with the same seed, and whether they agree."""
    found = {}
    for name in names:
        digests = [once(name, optimizer, "tf32", reduced=True)["digest"] for _ in range(2)]
        found[name] = {"digests": digests, "same": digests[0] == digests[1]}
    return found


def once(name: str, optimizer: str, precision: str, *, reduced: bool) -> dict[str, Any]:
    """Digest and losses of ``steps.DIGEST_STEPS`` updates in a freshly compiled program."""
    jax.clear_caches()
    case = cases.CASES[name]
    workload = case.workload(precision, reduced=reduced)
    prepared = steps.prepare(workload, cases.optimizer(optimizer), case.synthetic(workload))
    found, losses = steps.first_steps(prepared)
    return {"digest": found, "losses": losses}
