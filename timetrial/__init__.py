"""Timetrial: a time trial for optimizers. The public API, loaded lazily.

Boundary: names only; every name is imported from its room when it is first used.
"""

__version__ = "0.2.0"
