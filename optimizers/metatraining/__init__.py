"""Meta-training of small VeLO weights on synthetic tasks, by persistent evolution strategies.

Boundary: pure functions of arrays and frozen settings; the command ``timetrial metatrain``, in
``bench``, writes files, shows progress and records the run.
"""
