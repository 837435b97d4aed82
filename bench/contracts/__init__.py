"""Contract checks of optimizers and workloads, for built-in entries and plug-ins.

Boundary: a failed check raises; ``bench.check`` and the tests run checks and show errors.
"""

from __future__ import annotations


class ContractError(AssertionError):
    """An unmet requirement; the text gives the expected and the actual value."""


class NotApplicableError(Exception):
    """A check that does not apply to its subject; the text gives the reason."""


def require(met: bool, expected: str, got: object) -> None:
    """Raises ContractError if a requirement is not met."""
    if not met:
        raise ContractError(f"expected {expected}, got {got}")
