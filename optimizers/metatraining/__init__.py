"""Meta-training of small VeLO weights on synthetic tasks, by persistent evolution strategies.

Boundary: pure functions of arrays and frozen settings; files, progress and records are for the
command ``timetrial metatrain``, which is in ``bench``.
"""
