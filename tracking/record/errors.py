"""The error of recording and reading runs.

Boundary: imports ``framework.errors`` only.
"""

from __future__ import annotations

from timetrial.framework.errors import UserError


class TrackingError(UserError):
    """Runs cannot be recorded or read; the message is one line for the user."""
