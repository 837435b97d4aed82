"""The error of recording or reading runs.

Boundary: imports ``framework.errors`` only.
"""

from __future__ import annotations

from timetrial.framework.errors import UserError


class TrackingError(UserError):
    """Recording or reading runs fails; the message is one line for the user."""


class DamagedJournalError(TrackingError):
    """A journal has other bytes than those that were written, or is no journal."""
