"""Errors of data sets.

Boundary: exceptions only; imports no array library.
"""

from __future__ import annotations

from timetrial.framework.errors import UserError


class DataError(UserError, OSError):
    """A data file is missing, unreadable or has a wrong digest."""
