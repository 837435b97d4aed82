"""Contract checks of optimizers and workloads: plain functions that a plug-in can be run against.

Boundary: a check raises; ``bench.check`` and the tests run them and show what came.
"""

from __future__ import annotations


class ContractError(AssertionError):
    """A requirement that is not met: what was expected, and what came."""


class NotApplicableError(Exception):
    """A check that says nothing about its subject; the text says why."""


def require(met: bool, expected: str, got: object) -> None:
    """Raises ContractError unless a requirement is met."""
    if not met:
        raise ContractError(f"expected {expected}, got {got}")
