"""Settings that name learned weights, and the number of steps that these are told.

Boundary: checks of settings, shared by the entries of learned optimizers; reads no file.
"""

from __future__ import annotations

from timetrial.framework.entries import Horizon
from timetrial.framework.errors import UserError


def checked_digest(weights: str, given: str, found: str) -> str:
    """The digest of a file of weights.

    Args:
        weights: setting that names the weights.
        given: digest in the settings; "" accepts any.
        found: digest of the file.

    Raises:
        ValueError: another digest was given.
    """
    if given not in ("", found):
        raise ValueError(
            f"weights_sha256: expected {given}, but the weights {weights!r} here have {found}"
        )
    return found


def prompted_steps(prompt: float, horizon: Horizon, unknown: str) -> int:
    """``prompt`` times the steps of the budget, rounded down, >= 1.

    Args:
        prompt: factor, > 0.
        horizon: of the training.
        unknown: message where the number of steps of the budget is unknown.

    Raises:
        UserError: it is unknown.
    """
    if horizon.steps is None:
        raise UserError(unknown)
    return max(1, int(prompt * horizon.steps))
